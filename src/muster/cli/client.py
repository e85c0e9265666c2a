"""The control plane over HTTP, as the command line uses it: blocking, from the standard library, so it starts fast."""

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from muster import __version__
from muster.cli.running import find_running
from muster.errors import MusterError, SetupError
from muster.settings import Settings, load_settings
from muster.tls import trusting, trusting_only

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
FIRST_TOKEN_TIMEOUT_S = 300.0  # a model may have to be loaded first
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_HTTP_ERROR = 400
_HTTP_UNAUTHORIZED = 401
_HTTP_FORBIDDEN = 403


class Unreachable(SetupError):
    """No control plane answers at that address."""

    code = "unreachable"
    retriable = True


class Refused(MusterError):
    """The control plane answered, and said no."""

    def __init__(self, status: int, body: Any) -> None:
        problem = body if isinstance(body, dict) else {}
        inner = problem.get("error")  # the gateway's paths wrap theirs
        if isinstance(inner, dict):
            problem = inner
        elif isinstance(inner, str):
            problem = {"message": inner}
        super().__init__(str(problem.get("message") or f"the control plane answered {status}"))
        self.status = status
        self.refused_code = str(problem.get("code") or status)

    @property
    def next_step(self) -> str | None:
        if self.status == _HTTP_UNAUTHORIZED:
            return "set MUSTER_TOKEN to a token of this fleet"
        if self.status == _HTTP_FORBIDDEN:
            return "set MUSTER_TOKEN to a token of such a role; an admin makes one with `muster token create`"
        return _NEXT_STEPS.get(self.refused_code)


_NEXT_STEPS = {
    "job_not_found": "muster jobs lists what there is",
    "node_not_found": "muster nodes lists what there is",
    "model_not_found": "muster models lists what there is",
    "model_asleep": "muster model ls shows which node has what, on disk and in memory",
    "no_worker_available": "muster models shows who serves it and why it takes no work",
}


class Client:
    def __init__(self, url: str, token: str = "", tls: ssl.SSLContext | None = None) -> None:
        """`tls` says whom to trust; without it the system's authorities."""
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SetupError(f"{url!r} is no address of a control plane", next_step="give http://HOST:PORT")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._parts = parts
        self._tls = tls
        self._headers = {"User-Agent": f"muster/{__version__}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    @classmethod
    def find(cls, server: str | None, data_dir: str | None = None) -> Self:
        """Ask `server`, else the control plane in the settings, else the one that runs on this machine."""
        settings = load_settings({"data_dir": data_dir})
        return cls.at(server or _address(settings), settings)

    @classmethod
    def at(cls, url: str, settings: Settings) -> Self:
        """Ask the control plane at `url` with the token, and trusting whom the settings name."""
        return cls(url, settings.token, _trust(url, settings))

    def get(self, path: str, **query: Any) -> Any:
        return self.request("GET", path, query=query)[0]

    def post(self, path: str, body: Any = None) -> Any:
        return self.request("POST", path, body=body)[0]

    def request(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: Any = None
    ) -> tuple[Any, dict[str, str]]:
        """Return the decoded body and the headers (lower-case names)."""
        with self.open(method, path, query=query, body=body) as answer:
            return decode(answer.read()), answer.headers

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        silence_s: float = READ_TIMEOUT_S,
    ) -> Iterator["Answer"]:
        """Send a request and give its answer for reading as it comes; a silence of `silence_s` ends it."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = self._parts.path.rstrip("/") + path + (f"?{urlencode(given, doseq=True)}" if given else "")
        sent = self._headers | (headers or {})
        if body is not None:
            sent["Content-Type"] = "application/json"
        with ExitStack() as opened:
            connection = opened.enter_context(closing(self._connect()))
            with _as_unreachable(self.url, silence_s):
                connection.sock.settimeout(silence_s)
                connection.request(method, target, None if body is None else json.dumps(body).encode(), sent)
                # A response that ends with its connection keeps the socket open by itself.
                response = opened.enter_context(closing(connection.getresponse()))
            answer = Answer(response, self.url, silence_s)
            if response.status >= _HTTP_ERROR:
                raise Refused(response.status, decode(answer.read()))
            yield answer

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        connection = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
        if self._parts.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT_S, context=self._tls)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"the certificate of {self.url} is not to be trusted ({error.verify_message})",
                next_step="set MUSTER_CA_FILE to the certificate of the authority that signed it",
            ) from None
        except OSError as error:
            raise Unreachable(
                f"no control plane answers at {self.url} ({error.strerror or error})",
                next_step="start one with `muster up`, or say where it is: --server or MUSTER_CONTROL_PLANE",
            ) from None
        return connection


class Answer:
    """A response as it comes; what breaks it is told as Unreachable, what its reader does wrong is not."""

    def __init__(self, response: http.client.HTTPResponse, url: str, silence_s: float) -> None:
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self._response = response
        self._url = url
        self._silence_s = silence_s

    def read(self) -> bytes:
        with _as_unreachable(self._url, self._silence_s):
            return self._response.read()

    def lines(self) -> Iterator[bytes]:
        while True:
            with _as_unreachable(self._url, self._silence_s):
                line = self._response.readline()
            if not line:
                return
            yield line


@contextmanager
def _as_unreachable(url: str, silence_s: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise Unreachable(
            f"{url} has been silent for {silence_s:g} s", next_step="look at its log: `muster status` says where it is"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            f"the connection to {url} broke ({str(error) or type(error).__name__})", next_step="try once more"
        ) from None


def find_address(server: str | None) -> tuple[str, str, ssl.SSLContext | None]:
    """Return where `Client.find` would ask, with which token, and whom it would trust."""
    settings = load_settings({})
    url = server or _address(settings)
    return url, settings.token, _trust(url, settings)


def _trust(url: str, settings: Settings) -> ssl.SSLContext | None:
    parts = urlsplit(url)
    if parts.scheme != "https":
        return None
    if settings.tls_cert_file and parts.hostname in _LOOPBACK and not settings.ca_file:
        return trusting_only(settings.tls_cert_file)  # our own certificate, which may bear another name
    return trusting(settings.ca_file)


def _address(settings: Settings) -> str:
    default = Settings().control_plane
    if settings.control_plane != default:
        return settings.control_plane
    running = find_running(settings.data_path)
    if running:
        return running.url
    host, port = settings.listen_addresses[0]  # where one would listen here
    scheme = "https" if settings.tls_cert_file else "http"
    return f"{scheme}://{_ANYWHERE.get(host, host)}:{port}"


def decode(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode(errors="replace")

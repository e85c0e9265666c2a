"""Certificates: the one we show, taken anew when its files change, and those of others that we trust."""

import ssl
from pathlib import Path

from muster.errors import SetupError

_Stamp = tuple[int, int, int]


class Certificate:
    """What a server shows; `context` stays the same object, so that a new certificate needs no new server.

    `pem` has the present certificate and its key for those that bring a TLS of their own.
    """

    def __init__(self, cert_file: str, key_file: str) -> None:
        """Raise SetupError when the files cannot be read or do not fit each other."""
        self._files = (Path(cert_file).expanduser(), Path(key_file).expanduser())
        self.context = self._loaded()
        self.pem = self._read()
        self._stamps = self._seen()

    def refresh(self) -> bool:
        """Take the files if they have changed, and say so; SetupError, and the old ones stay, when they do not fit.

        What was refused is tried again only when the files change once more.
        """
        seen = self._seen()
        if seen == self._stamps:
            return False
        self._stamps = seen
        self._loaded()  # a context of its own first: one that was half loaded could show nothing any more
        self.context.load_cert_chain(*self._files)
        self.pem = self._read()
        return True

    def _read(self) -> tuple[bytes, bytes]:
        cert_file, key_file = self._files
        return cert_file.read_bytes(), key_file.read_bytes()

    def _loaded(self) -> ssl.SSLContext:
        cert_file, key_file = self._files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(cert_file, key_file, password=_no_password)
        except ssl.SSLError as error:
            raise SetupError(
                f"{cert_file} and {key_file} are not a PEM certificate and its key: {error.reason or error}",
                next_step="set tls_cert_file to the certificate with its chain and tls_key_file to the key without a "
                "password, both in PEM",
            ) from None
        except (OSError, ValueError) as error:
            name = getattr(error, "filename", None) or f"{cert_file} or {key_file}"
            raise SetupError(
                f"cannot read {name}: {getattr(error, 'strerror', None) or error}",
                next_step="check tls_cert_file and tls_key_file, and the rights of these files",
            ) from None
        return context

    def _seen(self) -> tuple[_Stamp | None, ...]:
        return tuple(map(_stamp, self._files))


def trusting(ca_file: str = "") -> ssl.SSLContext:
    """Return what clients verify servers with: the system's authorities and those of `ca_file`."""
    context = ssl.create_default_context()
    if ca_file:
        _load(context, ca_file, "ca_file")
    return context


def trusting_only(cert_file: str) -> ssl.SSLContext:
    """Return what accepts exactly this certificate, under whatever name: for a server on the same machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load(context, cert_file, "tls_cert_file")
    return context


def _load(context: ssl.SSLContext, file: str, setting: str) -> None:
    try:
        context.load_verify_locations(Path(file).expanduser())
    except ssl.SSLError as error:
        raise SetupError(
            f"{file} holds no PEM certificate: {error.reason or error}", next_step=f"correct {setting}"
        ) from None
    except OSError as error:
        raise SetupError(
            f"cannot read {file}: {error.strerror}", next_step=f"check {setting} and the rights of this file"
        ) from None


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _no_password() -> str:
    """Keep OpenSSL from asking on the terminal for the password of a key."""
    raise ValueError("the key has a password")

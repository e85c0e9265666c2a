"""Where an artifact comes from, as people write it.

https://host/model.gguf · https://host/tools.tar.gz#sha256=… · hf:org/repo · hf:org/repo/file.gguf@revision ·
ollama:name
"""

import re
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from msgspec import Struct

from muster.errors import InvalidInput

HF = "hf"
OLLAMA = "ollama"
_WEB = ("http", "https")
_FILE_SCHEME = "file"
_MAIN = "main"
_CHARS_MAX = 2048
_MASK = "***"

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z")
_FILE = re.compile(r"[A-Za-z0-9._][^\x00-\x1f\\?#]{0,511}\Z")
_OLLAMA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}\Z")
_SECRET_WORDS = ("token", "sig", "key", "secret", "password", "credential", "auth")


class WebSource(Struct, frozen=True, kw_only=True):
    """One file at a URL. `name` is the URL as it may be shown; `sha256` is what the file must be."""

    name: str
    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        last = unquote(urlsplit(self.url).path).rpartition("/")[2]
        return re.sub(r"[^A-Za-z0-9._-]+", "_", last)[-128:].lstrip(".") or "file"


class HubSource(Struct, frozen=True, kw_only=True):
    """A repository with the layout of Hugging Face, or one file of it."""

    name: str
    repo: str
    path: str | None = None
    revision: str = _MAIN


class OllamaSource(Struct, frozen=True, kw_only=True):
    """A model that an Ollama service fetches and keeps itself."""

    name: str
    model: str


Source = WebSource | HubSource | OllamaSource


def parse_source(text: str) -> Source | None:
    """Return what a name stands for; None where it has none of these forms: a built-in model, or a path.

    Raises InvalidInput for one that has the form and says nothing that could be fetched.
    """
    scheme, separator, rest = text.partition(":")
    if not separator or len(text) > _CHARS_MAX:
        return None
    match scheme.lower():
        case "http" | "https":
            return _web(text)
        case "hf":
            return _hub(rest)
        case "ollama":
            if not _OLLAMA_NAME.match(rest):
                raise _wrong(text, "ollama:NAME, as in ollama:qwen2.5:0.5b")
            return OllamaSource(name=f"{OLLAMA}:{rest}", model=rest)
        case known if rest.startswith("//") and known != _FILE_SCHEME:
            raise InvalidInput(f"nothing is fetched by {known}://: give an address with https://", field="model")
        case _:
            return None


def canonical_name(text: str) -> str:
    """Return the one spelling under which an artifact is known, so that the same is not fetched twice."""
    try:
        source = parse_source(text)
    except InvalidInput:
        return text
    return text if source is None else source.name


def is_digest(text: str) -> bool:
    return bool(_DIGEST.match(text))


def _web(text: str) -> WebSource:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _wrong(text, "https://HOST/FILE") from None
    if parts.scheme not in _WEB or not parts.hostname or port == 0 or re.search(r"[\s\\]", text):
        raise _wrong(text, "https://HOST/FILE")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            f"the URL on {parts.hostname} has a user's name or password in it, which would be read wherever it is "
            "shown: leave them out, and use an address that needs none",
            field="model",
        )
    sha256 = None
    if parts.fragment:
        key, _, value = parts.fragment.partition("=")
        if key != "sha256" or not is_digest(value.lower()):
            raise _wrong(text, "https://HOST/FILE#sha256= and 64 hexadecimal digits")
        sha256 = value.lower()
    url = urlunsplit(parts._replace(fragment=""))
    shown = urlunsplit(parts._replace(fragment="", query=_without_secrets(parts.query)))
    return WebSource(name=shown, url=url, sha256=sha256)


def _hub(rest: str) -> HubSource:
    place, separator, revision = rest.partition("@")
    org, _, more = place.strip("/").partition("/")
    repo, _, path = more.partition("/")
    fits = _PART.match(org) and _PART.match(repo) and (not path or is_safe_path(path))
    if not fits or (separator and (not _REVISION.match(revision) or ".." in revision)):
        raise _wrong(f"{HF}:{rest}", "hf:ORG/REPO, hf:ORG/REPO/FILE or either with @REVISION")
    at = "" if revision in {"", _MAIN} else f"@{revision}"
    name = f"{HF}:{org}/{repo}{f'/{path}' if path else ''}{at}"
    return HubSource(name=name, repo=f"{org}/{repo}", path=path or None, revision=revision or _MAIN)


def is_safe_path(path: str) -> bool:
    """Tell whether a path stays below the folder that it is meant for."""
    return bool(_FILE.match(path)) and all(part not in {"", ".", ".."} for part in path.split("/"))


def _without_secrets(query: str) -> str:
    """Mask what a signed address carries: it is part of how to get there, not of what is there."""
    masked = [
        f"{key}={_MASK if any(word in key.lower() for word in _SECRET_WORDS) else value}"
        for key, value in parse_qsl(query, keep_blank_values=True)
    ]
    return "&".join(masked)


def _wrong(text: str, form: str) -> InvalidInput:
    shown = text.partition("?")[0][:200]
    return InvalidInput(f"{shown!r} cannot be fetched: it must be like {form}", field="model")

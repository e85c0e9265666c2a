"""A file that a payload or a result speaks of; what is in it lies elsewhere."""

import re

from msgspec import Struct

from muster.errors import InvalidInput

FILES_PATH = "/api/files/"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_OWNER = re.compile(r"[A-Za-z0-9~][A-Za-z0-9._:~-]{0,127}\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NAME_CHARS_MAX = 100
_TYPES = {
    "avif": "image/avif",
    "csv": "text/csv",
    "flac": "audio/flac",
    "gif": "image/gif",
    "glb": "model/gltf-binary",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ogg": "audio/ogg",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "zip": "application/zip",
}
_UNKNOWN = "application/octet-stream"


class FileRef(Struct, frozen=True, kw_only=True):
    """`url` is a path below the control plane's address."""

    name: str
    type: str
    bytes: int
    sha256: str
    url: str


def media_type(name: str) -> str:
    return _TYPES.get(name.rpartition(".")[2].lower(), _UNKNOWN)


def ending_of(content_type: str) -> str:
    """Return the usual ending of a name for a `Content-Type`, `bin` where none is known."""
    kind = content_type.partition(";")[0].strip().lower()
    return next((ending for ending, known in _TYPES.items() if known == kind), "bin")


def safe_name(text: str) -> str:
    """Make a file name of anything, its end kept: that is where the kind stands."""
    return _UNSAFE.sub("_", text)[-_NAME_CHARS_MAX:].lstrip("._-") or "file"


def check_file_name(name: str, field: str = "name") -> str:
    if not _NAME.match(name):
        raise InvalidInput(
            f"{field} must be 1 to 128 letters, digits or ._- and start with a letter or digit, got {name[:200]!r}",
            field=field,
        )
    return name


def file_url(owner: str, name: str) -> str:
    return f"{FILES_PATH}{owner}/{name}"


def parse_file_url(url: str, field: str = "url") -> tuple[str, str]:
    """Return owner and name; InvalidInput where it is no address of a file of this fleet."""
    owner, _, name = url.removeprefix(FILES_PATH).partition("/")
    if not url.startswith(FILES_PATH) or not _OWNER.match(owner) or not _NAME.match(name):
        raise InvalidInput(
            f"{field} must be the url of a file ({FILES_PATH}OWNER/NAME), got {url[:200]!r}", field=field
        )
    return owner, name

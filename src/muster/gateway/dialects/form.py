"""Forms with files (`multipart/form-data`): single fields are read where they lie, and the file is never copied."""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from muster.errors import InvalidInput

_PARTS_MAX = 64
_BOUNDARY_BYTES_MAX = 70  # RFC 2046
_HEAD_END = b"\r\n\r\n"


class Form(Struct, frozen=True):
    """Where in a body the value of each field lies; a name that comes twice counts with its first value."""

    boundary: bytes
    spans: dict[str, tuple[int, int]]

    @property
    def content_type(self) -> bytes:
        return b'multipart/form-data; boundary="%b"' % self.boundary

    def text(self, body: bytes, field: str) -> str:
        start, end = self.spans.get(field, (0, 0))
        return body[start:end].decode(errors="replace")


def read_form(body: bytes) -> Form:
    """Find the fields; the body begins with its boundary, which so needs no header to be known."""
    line, separator, _ = body[: _BOUNDARY_BYTES_MAX + 4].partition(b"\r\n")
    boundary = line[2:]
    if not separator or not line.startswith(b"--") or not boundary or b'"' in boundary:
        raise InvalidInput("this path takes a form: send the fields as multipart/form-data", field="body")
    spans: dict[str, tuple[int, int]] = {}
    for name, start, end in _parts(body, b"\r\n--" + boundary, len(line)):
        spans.setdefault(name, (start, end))
    return Form(boundary, spans)


def _parts(body: bytes, delimiter: bytes, position: int) -> Iterator[tuple[str, int, int]]:
    for _ in range(_PARTS_MAX):
        head_end = body.find(_HEAD_END, position)
        end = body.find(delimiter, head_end + len(_HEAD_END) - 2)  # an empty value's own line end is its delimiter's
        if head_end < 0 or end < 0:
            raise InvalidInput("the form ends within a part", field="body")
        start = head_end + len(_HEAD_END)
        yield _name_in(body[position:head_end]), start, max(start, end)
        position = end + len(delimiter)
        if body.startswith(b"--", position):
            return
    raise InvalidInput(f"a form may have {_PARTS_MAX} parts", field="body")


def _name_in(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-disposition:"):
            for parameter in line.split(b";")[1:]:
                key, _, value = parameter.strip().partition(b"=")
                if key.lower() == b"name":
                    return value.strip(b'"').decode(errors="replace")
    return ""


def with_field(body: bytes, field: str, value: str) -> bytes:
    """Replace one field's value; every other byte stays."""
    start, end = read_form(body).spans[field]
    return b"%b%b%b" % (body[:start], value.encode(), body[end:])


def flag(text: str) -> bool:
    """Read a form's `true`, which is a text there."""
    try:
        return msgspec.convert(text.strip().lower(), bool, strict=False)
    except msgspec.ValidationError:
        return False

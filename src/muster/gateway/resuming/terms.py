"""What is asked and said of answers that can be taken up again. Pure."""

import re
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from muster.domain.service import Dialect
from muster.errors import InvalidInput, NotFound
from muster.gateway.http.framing import path_of

PATH = "/v1/streams/"
ASKED = b"x-muster-resumable"
KEPT_S = 120.0  # for who says only that it is wanted
_YES, _NO = frozenset({b"yes", b"true"}), frozenset({b"no", b"false", b"0"})
_SECONDS = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,3})?\Z")
_DIGITS = re.compile(r"[0-9]{1,15}\Z")
# Credentials are not kept: who takes an answer up shows them again.
_SECRET = frozenset({b"authorization", b"x-api-key", b"x-auth-token", b"cookie"})
_OF_THE_FRAMING = (b"content-length:", b"connection:", b"transfer-encoding:")
_HEAD_END = b"\r\n\r\n"
_ENDLESS = (b"text/event-stream", b"application/x-ndjson")


class StreamNotFound(NotFound):
    code = "stream_not_found"


class OffsetBeyondEnd(InvalidInput):
    code = "offset_beyond_end"
    http_status = 416


class Head(Struct, frozen=True):
    """The head of an answer, without what belongs to one connection; `length` is that of the body, if it was told."""

    status: int
    lines: bytes
    length: int | None

    @property
    def streamed(self) -> bool:
        """Whether it can be said within the body that it will not go on."""
        return any(b"content-type: " + kind in self.lines.lower() for kind in _ENDLESS)


class Question(Struct, frozen=True):
    """A request whose answer another worker could go on with."""

    headers: dict[bytes, bytes]
    body: bytes


class Terms(Struct, frozen=True, kw_only=True):
    """What is known of an answer before it begins.

    `account` is whose it is; `question` is none where nobody could go on with the answer.
    """

    account: str
    path: str
    dialect: Dialect
    correlation_id: bytes
    keep_s: float
    question: Question | None


class Opening(Terms, frozen=True, kw_only=True):
    """All of a kept answer but its body."""

    head: Head


def opening_of(terms: Terms, head: Head) -> Opening:
    return Opening(**asdict(terms) | {"head": head})


encode_opening = msgspec.msgpack.Encoder().encode
decode_opening = msgspec.msgpack.Decoder(Opening).decode


def keep_s_asked(headers: dict[bytes, bytes], most_s: float) -> float | None:
    """Return for how long the answer is to be kept; None: not at all. InvalidInput names the header."""
    value = headers[ASKED].strip().lower()
    if value in _NO or not most_s:
        return None
    if value in _YES:
        return min(KEPT_S, most_s)
    if not _SECONDS.match(value) or not float(value):
        shown = value.decode("latin-1")
        raise InvalidInput(
            f"X-Muster-Resumable must be yes, no or a number of seconds, got {shown!r}", field="X-Muster-Resumable"
        )
    return min(float(value), most_s)


def without_secrets(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in headers.items() if name not in _SECRET}


def secrets_of(headers: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in headers.items() if name in _SECRET}


def stream_and_offset(url: bytes) -> tuple[str, int]:
    """Read which answer is asked for, and from where on. InvalidInput names the field."""
    stream_id = unquote(path_of(url).decode("latin-1"), errors="replace").removeprefix(PATH)
    query = parse_qs(url.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
    text = query.get("offset", ["0"])[-1]
    if not _DIGITS.match(text):
        raise InvalidInput(
            f"offset must be how many bytes of the body you have, a whole number, got {text!r}", field="offset"
        )
    return stream_id, int(text)


def check_offset(offset: int, size: int) -> None:
    if offset > size:
        raise OffsetBeyondEnd(
            f"this answer has {size} bytes so far, so nothing can follow on {offset}: ask with an offset of at most "
            f"{size}",
            field="offset",
        )


def lost(stream_id: str) -> StreamNotFound:
    return StreamNotFound(
        f"this gateway does not go on with {stream_id}: it was removed, or another gateway does; GET {PATH}{stream_id} "
        "tells",
        field="id",
    )


def not_found(stream_id: str) -> StreamNotFound:
    return StreamNotFound(
        f"no answer {stream_id[:64]!r} is kept for this token: its time is over, it was removed or it became too long; "
        "ask the model again",
        field="id",
    )


def take_head(data: bytes) -> tuple[Head, bytes] | None:
    """Read the head at the beginning of an answer; return it and what follows, None while it is not whole."""
    text, found, rest = data.partition(_HEAD_END)
    if not found:
        return None
    first, *lines = text.split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(_OF_THE_FRAMING)]
    lengths = [int(line.partition(b":")[2]) for line in lines if line.lower().startswith(b"content-length:")]
    status = int(first.split(b" ", 2)[1])
    return Head(status, b"".join([b"%b\r\n" % line for line in kept]), lengths[0] if lengths else None), rest

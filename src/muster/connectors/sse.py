"""Server-sent events as model servers send them: one JSON per `data:` line, `[DONE]` at the end."""

from muster.errors import UpstreamFailed

DONE = b"[DONE]"

_LINE_BYTES_MAX = 4_194_304


class EventLines:
    """Cuts arriving bytes into the values of `data:` lines; comments and other fields are left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES_MAX:
            raise UpstreamFailed(f"the model server sent an event of more than {_LINE_BYTES_MAX} bytes")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]

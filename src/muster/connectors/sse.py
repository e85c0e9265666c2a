"""How model servers send pieces: OpenAI's as server-sent events with `[DONE]` at the end, Ollama's a line each."""

from muster.errors import UpstreamFailed

DONE = b"[DONE]"

_LINE_BYTES_MAX = 4_194_304


class JsonLines:
    """Cuts arriving bytes into lines; empty ones are left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        return [line for line in map(bytes.strip, self._lines(data)) if line]

    def _lines(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES_MAX:
            raise UpstreamFailed(f"the model server sent an event of more than {_LINE_BYTES_MAX} bytes")
        return lines


class EventLines(JsonLines):
    """Cuts arriving bytes into the values of `data:` lines; comments and other fields are left out."""

    def feed(self, data: bytes) -> list[bytes]:
        return [line[5:].strip() for line in self._lines(data) if line.startswith(b"data:")]

"""How model servers send pieces: OpenAI's as server-sent events with `[DONE]` at the end, Ollama's a line each."""

from muster.errors import UpstreamFailed
from muster.sse import EventReader

DONE = b"[DONE]"

_PIECE_BYTES_MAX = 4_194_304


class JsonLines:
    """Cuts arriving bytes into lines; empty ones are left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _PIECE_BYTES_MAX:
            raise UpstreamFailed(f"the model server sent a line of more than {_PIECE_BYTES_MAX} bytes")
        return [line for line in map(bytes.strip, lines) if line]


class EventData:
    """Cuts arriving bytes into the data of events."""

    def __init__(self) -> None:
        self._reader = EventReader(_PIECE_BYTES_MAX)

    def feed(self, data: bytes) -> list[bytes]:
        return [event.data for event in self._reader.feed(data)]

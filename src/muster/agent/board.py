"""The services of this node as they stand: who looks after one writes here, workers and heartbeats read."""

from collections.abc import Awaitable, Callable

from msgspec import Struct
from msgspec.structs import replace

from muster.domain.process import ProcessFigures
from muster.domain.service import Service

ReadProcesses = Callable[[], Awaitable[tuple[ProcessFigures, ...]]]


class Entry(Struct, frozen=True, kw_only=True):
    """`service.url` is how this node reaches it, `public_url` how others do: None when they cannot."""

    service: Service
    public_url: str | None
    expected: bool = True  # false: found by chance, and nobody is worse off when it goes


class ServiceBoard:
    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._listeners: list[Callable[[], None]] = []
        self._watchers: dict[str, Callable[[], None]] = {}
        self._read_processes: ReadProcesses | None = None

    def on_change(self, listener: Callable[[], None]) -> None:
        """Be called when something changed that others may have to act upon; a busy slot is not such a thing."""
        self._listeners.append(listener)

    def on_doubt(self, name: str, look: Callable[[], None]) -> None:
        self._watchers[name] = look

    def doubt(self, name: str) -> None:
        """Have a service looked at soon: it has just failed somebody."""
        if (look := self._watchers.get(name)) is not None:
            look()

    def measured_by(self, read: ReadProcesses) -> None:
        """Have those asked there who are to be told how the services are doing."""
        self._read_processes = read

    async def processes(self) -> tuple[ProcessFigures, ...]:
        return () if self._read_processes is None else await self._read_processes()

    def put(self, entry: Entry) -> None:
        before = self._entries.get(entry.service.name)
        self._entries[entry.service.name] = entry
        if before is None or _lasting(before) != _lasting(entry):
            for listener in self._listeners:
                listener()

    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def services(self) -> list[Service]:
        return [entry.service for entry in self._entries.values()]

    def advertised(self) -> tuple[Service, ...]:
        """Return the services with the URLs under which others reach them."""
        return tuple(replace(entry.service, url=entry.public_url) for entry in self._entries.values())

    def has(self, name: str) -> bool:
        return name in self._entries


def _lasting(entry: Entry) -> Entry:
    return replace(entry, service=replace(entry.service, slots_busy=None, requests_waiting=None))

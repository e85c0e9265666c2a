"""Lines of several logs, of several nodes, as one: what is there in the order of time, then what comes as it comes."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from operator import itemgetter

from msgspec import Struct
from msgspec.structs import replace

from muster.control.logs.desk import CONTROL_PLANE, LogDesk, error_of
from muster.errors import InvalidInput, MusterError
from muster.ids import NodeId
from muster.wire import LogChunk
from muster.wire.logs import LogLine, LogWish

_SOURCES_MAX = 200
_SORTED_MAX = 20_000  # lines that are put into order; of more than these the newest
_SORT_FOR_S = 15.0  # then lines come as they come
_WAITING_MAX = 16


class Source(Struct, frozen=True):
    """A node's logs: those that are named, `*` standing for anything; none named: all."""

    node_id: NodeId
    logs: tuple[str, ...] = ()


class ToldLine(Struct, frozen=True):
    node_id: NodeId
    line: LogLine


class Note(Struct, frozen=True):
    """What a reader must know besides the lines: why there are none, or that some are left out."""

    node_id: NodeId
    text: str


class Alive(Struct, frozen=True):
    """Nothing new, and all is well."""


Told = ToldLine | Note | Alive
ALIVE = Alive()


def parse_source(text: str) -> Source:
    """Read NODE or NODE/LOG."""
    node_id, slash, name = text.partition("/")
    if not node_id or (slash and not name):
        raise InvalidInput(f"a source of logs is NODE or NODE/LOG, got {text!r}", field="source")
    return Source(NodeId(node_id), (name,) if name else ())


def together(sources: Sequence[Source]) -> list[Source]:
    """Make one of those that are about the same node; a node that is named whole is wanted whole."""
    logs: dict[NodeId, tuple[str, ...] | None] = {}
    for source in sources:
        before = logs.get(source.node_id, ())
        logs[source.node_id] = None if before is None or not source.logs else (*before, *source.logs)
    if len(logs) > _SOURCES_MAX:
        raise InvalidInput(f"at most {_SOURCES_MAX} nodes at a time, these are {len(logs)}", field="source")
    return [Source(node_id, names or ()) for node_id, names in logs.items()]


async def read_one(desk: LogDesk, source: Source, wish: LogWish) -> AsyncGenerator[Told, None]:
    """Yield one node's lines as it tells them; what keeps it from that is raised."""
    async with aclosing(desk.chunks(source.node_id, "read", replace(wish, logs=source.logs))) as chunks:
        async for chunk in chunks:
            if chunk.error is not None:
                raise error_of(chunk)
            for told in _told(source.node_id, chunk):
                yield told


async def read_all(desk: LogDesk, sources: Sequence[Source], wish: LogWish) -> AsyncGenerator[Told, None]:
    """Yield what all tell; one that cannot costs a note."""
    queue: asyncio.Queue[_Item] = asyncio.Queue(_WAITING_MAX)
    tasks = [asyncio.create_task(_pump(desk, source, wish, queue), name="logs") for source in sources]
    open_ends = {source.node_id for source in sources}
    past = _Past(set(open_ends))
    try:
        yield ALIVE
        async for item in _until(queue, past, open_ends):
            past.add(item)
        for one in past.in_order():
            yield one
        while open_ends:
            node_id, said = await queue.get()
            if said is None:
                open_ends.discard(node_id)
            else:
                for told in _told(node_id, said):
                    yield told
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_Item = tuple[NodeId, LogChunk | Note | None]  # None: it has ended


class _Past:
    """What was there, of all together, put into order."""

    def __init__(self, behind: set[NodeId]) -> None:
        self.behind = behind  # those that have not told it all
        self._told: list[tuple[int, int, ToldLine | Note]] = []
        self._at_ms: dict[tuple[NodeId, str], int] = {}
        self._left_out = 0

    def add(self, item: _Item) -> None:
        node_id, said = item
        if said is None or (isinstance(said, LogChunk) and said.caught_up):
            self.behind.discard(node_id)
        for told in () if said is None else _told(node_id, said):
            if not isinstance(told, Alive):
                self._told.append((self._time_of(told), len(self._told), told))
        if len(self._told) > 2 * _SORTED_MAX:
            self._cut()

    def in_order(self) -> Iterator[ToldLine | Note]:
        self._cut()
        if self._left_out:
            yield Note(CONTROL_PLANE, f"{self._left_out} older lines are left out: ask for fewer logs, or less of them")
        for _, _, told in self._told:
            yield told

    def _cut(self) -> None:
        self._told.sort(key=itemgetter(0, 1))
        if (over := len(self._told) - _SORTED_MAX) > 0:
            self._left_out += over
            del self._told[:over]

    def _time_of(self, told: ToldLine | Note) -> int:
        """Return its time; a line without one stays behind the line before it."""
        if isinstance(told, Note):
            return 0
        key = (told.node_id, told.line.log)
        self._at_ms[key] = max(self._at_ms.get(key, 0), told.line.at_ms or 0)
        return self._at_ms[key]


async def _until(queue: "asyncio.Queue[_Item]", past: _Past, open_ends: set[NodeId]) -> AsyncGenerator[_Item, None]:
    """Yield what comes until all that was there is told, or it takes too long to wait for it."""
    deadline_s = asyncio.get_running_loop().time() + _SORT_FOR_S
    while past.behind:
        try:
            async with asyncio.timeout_at(deadline_s):
                item = await queue.get()
        except TimeoutError:
            return
        if item[1] is None:
            open_ends.discard(item[0])
        yield item


async def _pump(desk: LogDesk, source: Source, wish: LogWish, queue: "asyncio.Queue[_Item]") -> None:
    node_id = source.node_id
    try:
        async with aclosing(desk.chunks(node_id, "read", replace(wish, logs=source.logs))) as chunks:
            async for chunk in chunks:
                await queue.put((node_id, chunk))
    except MusterError as error:
        await queue.put((node_id, Note(node_id, error.message)))
    await queue.put((node_id, None))


def _told(node_id: NodeId, said: LogChunk | Note) -> Iterator[Told]:
    if isinstance(said, Note):
        yield said
        return
    if not (said.lines or said.left_out or said.error):
        yield ALIVE
    if said.left_out:
        yield Note(node_id, f"{said.left_out} lines left out: they came faster than they were read")
    if said.error is not None:
        yield Note(node_id, said.error)
    for line in said.lines:
        yield ToldLine(node_id, line)

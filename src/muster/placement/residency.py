"""Where a model that is on disk is loaded, and what has to make room for it.

The cheapest place wins: one with room for it, then one of which nobody can say, then the one whose models that have to
go were used longest ago. What is pinned or at work never makes room.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

_MB_PER_GB = 1024
_NAMED_MAX = 3


class Resident(Struct, frozen=True, kw_only=True):
    """A model in memory. `service` is the service's name; `memory_mb` None: nobody knows what it takes."""

    service: str
    model: str
    memory_mb: int | None = None
    pinned: bool = False
    busy: bool = False
    used_ms: int = 0

    @property
    def stays(self) -> bool:
        return self.pinned or self.busy


class Room(Struct, frozen=True, kw_only=True):
    """A place for the model: one service on one node, and what shares its memory.

    `against` says in words why nothing can be loaded there now.
    """

    key: str
    needs_mb: int | None = None
    free_mb: int | None = None
    residents: tuple[Resident, ...] = ()
    resident_max: int | None = None
    against: str | None = None


class Plan(Struct, frozen=True, kw_only=True):
    """Load it at `key` once `unload` are gone."""

    key: str
    unload: tuple[Resident, ...] = ()

    @property
    def unloaded(self) -> list[str]:
        """Return what goes as the command to load names it, SERVICE/MODEL."""
        return [f"{resident.service}/{resident.model}" for resident in self.unload]


class Plans(Struct, frozen=True, kw_only=True):
    """`ways` are the cheapest first; `refusals` say of every other place why it cannot be."""

    ways: tuple[Plan, ...]
    refusals: tuple[str, ...]


def plans(rooms: Iterable[Room]) -> Plans:
    ways: list[tuple[tuple[int, int, int, str], Plan]] = []
    refusals = []
    for room in sorted(rooms, key=lambda room: room.key):
        made = _plan(room)
        if isinstance(made, str):
            refusals.append(f"{room.key} {made}")
        else:
            ways.append((_cost(room, made), made))
    return Plans(ways=tuple(plan for _, plan in sorted(ways, key=lambda way: way[0])), refusals=tuple(refusals))


def idle(residents: Iterable[tuple[Resident, float | None]], now_ms: int) -> list[Resident]:
    """Return those that nobody has used for as long as is given beside each, in seconds; None: it stays."""
    return [
        resident
        for resident, idle_s in residents
        if idle_s is not None and not resident.stays and now_ms - resident.used_ms >= idle_s * 1000
    ]


def _plan(room: Room) -> Plan | str:
    if room.against is not None:
        return room.against
    unload: list[Resident] = []
    for resident in _movable(room):
        if not _lacks(room, unload):
            break
        unload.append(resident)
    if lack := _lacks(room, unload):
        return lack
    return Plan(key=room.key, unload=_without_needless(room, unload))


def _movable(room: Room) -> list[Resident]:
    """Return what may make room, the longest unused first."""
    movable = [resident for resident in room.residents if not resident.stays]
    return sorted(movable, key=lambda resident: (resident.used_ms, resident.service, resident.model))


def _without_needless(room: Room, unload: Sequence[Resident]) -> tuple[Resident, ...]:
    """Let stay what need not go after all: a large one that came later may have made all the room."""
    needed = list(unload)
    for resident in reversed(unload):
        others = [other for other in needed if other is not resident]
        if not _lacks(room, others):
            needed = others
    return tuple(needed)


def _lacks(room: Room, unloaded: Sequence[Resident]) -> str | None:
    """Say what is missing when those are gone; what nobody knows is not held against a place."""
    freed_mb = sum(resident.memory_mb or 0 for resident in unloaded)
    if room.needs_mb is not None and room.free_mb is not None and room.free_mb + freed_mb < room.needs_mb:
        free = f"{_size(room.free_mb)} free" + (f" and {_size(freed_mb)} that could be" if freed_mb else "")
        return f"needs {_size(room.needs_mb)} of memory, {free}{_kept(room)}"
    if room.resident_max is not None and len(room.residents) - len(unloaded) >= room.resident_max:
        return f"keeps at most {room.resident_max} in memory{_kept(room)}"
    return None


def _kept(room: Room) -> str:
    kept = [resident for resident in room.residents if resident.stays]
    if not kept:
        return ""
    named = [f"{resident.model} is {'pinned' if resident.pinned else 'at work'}" for resident in kept[:_NAMED_MAX]]
    return f": {', '.join(named)}" + (f" and {len(kept) - _NAMED_MAX} more" if len(kept) > _NAMED_MAX else "")


def _cost(room: Room, plan: Plan) -> tuple[int, int, int, str]:
    if plan.unload:
        return 2, max(resident.used_ms for resident in plan.unload), len(plan.unload), room.key
    if room.needs_mb is None or room.free_mb is None:
        return 1, 0, 0, room.key
    return 0, -(room.free_mb - room.needs_mb), 0, room.key


def _size(mb: int) -> str:
    return f"{round(mb / _MB_PER_GB, 1):g} GB" if mb >= _MB_PER_GB else f"{mb} MB"

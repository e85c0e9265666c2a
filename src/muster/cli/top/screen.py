"""What the person at the keyboard has chosen: a list, its order and filter, a row of it, a question to be confirmed."""

from collections.abc import Callable, Sequence
from enum import StrEnum

from msgspec import Struct

from muster.cli.top import rows
from muster.cli.top.lines import Row
from muster.cli.top.picture import Picture
from muster.cli.top.rows import Sort

_FILTER_CHARS_MAX = 100


class Mode(StrEnum):
    LIST = "list"
    FILTER = "filter"
    CONFIRM = "confirm"
    HELP = "help"


class Deed(Struct, frozen=True):
    """Something to be done to a node or a job."""

    verb: str  # drain, resume or cancel
    about: str

    @property
    def question(self) -> str:
        match self.verb:
            case "drain":
                return f"Drain {self.about}: it takes no new work, what runs there goes on?"
            case "resume":
                return f"Give work to {self.about} again?"
            case _:
                return f"Cancel job {self.about} for good?"


class Listing:
    """One of the lists, with the place in it."""

    def __init__(self, sorts: Sequence[Sort], find: Callable[..., list[Row]], id_field: str) -> None:
        self._sorts = sorts
        self._find = find
        self._id_field = id_field
        self._sorted_by = 0
        self.turned = False
        self.words = ""
        self.selected: str | None = None
        self._at = 0  # where the selected row was last, for when it goes
        self._top = 0

    @property
    def sort(self) -> Sort:
        return self._sorts[self._sorted_by]

    def sort_by_next(self, *, of_lines: bool = False) -> None:
        """Go by the next column; where of most nodes there is only a line, by the next one that lines have."""
        for _ in self._sorts:
            self._sorted_by = (self._sorted_by + 1) % len(self._sorts)
            if not (of_lines and self.sort.in_full):
                break
        self.turned = False

    def rows(self, picture: Picture) -> list[Row]:
        return self._find(picture, self.words, self.sort, turned=self.turned)

    def settle(self, found: Sequence[Row]) -> None:
        """Stay with the selected row wherever it went; where it is gone, with its place."""
        ids = [row[self._id_field] for row in found]
        if self.selected in ids:
            self._at = ids.index(self.selected)
        else:
            self._at = max(0, min(self._at, len(ids) - 1))
            self.selected = ids[self._at] if ids else None

    def window(self, count: int, height: int) -> range:
        """Return which rows are seen: always the selected one, and no more moved than that takes."""
        height = max(1, height)
        self._top = max(self._at - height + 1, min(self._top, self._at))
        self._top = max(0, min(self._top, count - height))
        return range(self._top, min(count, self._top + height))

    def move(self, by: int, found: Sequence[Row]) -> None:
        self.settle(found)
        if found:
            self._at = max(0, min(len(found) - 1, self._at + by))
            self.selected = found[self._at][self._id_field]


class Screen:
    def __init__(self) -> None:
        self.nodes = Listing(rows.NODE_SORTS, rows.nodes, "machine_id")
        self.jobs = Listing(rows.JOB_SORTS, rows.jobs, "job_id")
        self.listing = self.nodes
        self.mode = Mode.LIST
        self.details = True
        self.deed: Deed | None = None  # which is asked about
        self.message = ""
        self.page = 10  # rows that were seen last
        self.shown: frozenset[str] = frozenset()  # nodes that were seen last
        self.left = False

    def press(self, key: str, picture: Picture) -> Deed | None:
        """Take in a key; return what is to be done, once it is confirmed."""
        if key == "ctrl_c":
            self.left = True
            return None
        match self.mode:
            case Mode.FILTER:
                self._write_filter(key)
            case Mode.CONFIRM:
                return self._answer(key)
            case Mode.HELP:
                self.mode = Mode.LIST
            case Mode.LIST:
                self.message = ""
                self._choose(key, picture)
        return None

    def _write_filter(self, key: str) -> None:
        if key == "escape":
            self.listing.words = ""
        if key in {"enter", "escape"}:
            self.mode = Mode.LIST
        elif key == "backspace":
            self.listing.words = self.listing.words[:-1]
        elif len(key) == 1 and len(self.listing.words) < _FILTER_CHARS_MAX:
            self.listing.words += key

    def _answer(self, key: str) -> Deed | None:
        deed, self.deed = self.deed, None
        self.mode = Mode.LIST
        if key in {"y", "Y"}:
            return deed
        self.message = "Left as it is."
        return None

    def _choose(self, key: str, picture: Picture) -> None:
        listing = self.listing
        match key:
            case "q":
                self.left = True
            case "?":
                self.mode = Mode.HELP
            case "/":
                self.mode = Mode.FILTER
            case "escape":
                listing.words = ""
            case "tab":
                self.listing = self.jobs if listing is self.nodes else self.nodes
            case "enter":
                self.details = not self.details
            case _ if key in _DEEDS:
                self._ask(key, picture)
            case _:
                self._look(key, picture)

    def _look(self, key: str, picture: Picture) -> None:
        listing = self.listing
        if key == "s":
            listing.sort_by_next(of_lines=picture.selective)
        elif key == "S":
            listing.turned = not listing.turned
        elif key in _STEPS:
            listing.move(_STEPS[key](self.page), listing.rows(picture))

    def _ask(self, key: str, picture: Picture) -> None:
        listing = self.listing
        listing.settle(listing.rows(picture))
        verb, wanted = _DEEDS[key]
        if wanted == "job" and listing is self.nodes:
            self.message = "Tab shows the jobs; c cancels the one that is selected there."
        elif wanted == "node" and listing is self.jobs:
            self.message = f"Tab shows the nodes; {key} is for the one that is selected there."
        elif listing.selected is not None:
            self.deed = Deed(verb, listing.selected)
            self.mode = Mode.CONFIRM


_DEEDS = {"d": ("drain", "node"), "r": ("resume", "node"), "c": ("cancel", "job")}
_ALL = 1 << 30
_STEPS: dict[str, Callable[[int], int]] = {
    "up": lambda _: -1,
    "k": lambda _: -1,
    "down": lambda _: 1,
    "j": lambda _: 1,
    "page_up": lambda page: -page,
    "page_down": lambda page: page,
    "home": lambda _: -_ALL,
    "g": lambda _: -_ALL,
    "end": lambda _: _ALL,
    "G": lambda _: _ALL,
}
HELP = (
    ("up, down, j, k", "move; page up and down, home and end (g, G) go further"),
    ("Tab", "nodes or jobs"),
    ("Enter", "show or hide what the selected one is made of"),
    ("/", "filter: every word must be in name, health, label, pool, model ...; Esc takes it away"),
    ("s, S", "sort by the next column; turn the order round"),
    ("d, r", "drain the selected node, resume it (asks first)"),
    ("c", "cancel the selected job (asks first)"),
    ("q, Ctrl-C", "leave"),
)

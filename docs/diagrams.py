"""Draw the state diagrams of docs/architecture.md from the tables that the code runs on.

`python -m docs.diagrams --write` refreshes the page; without `--write` it says whether the page is current.
"""

import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from muster.commands import lifecycle as commands
from muster.jobs import lifecycle as jobs
from muster.registry import health as nodes

Table = Mapping[tuple[Any, Any], StrEnum]  # (state, signal) -> state

PAGE = Path(__file__).parent / "architecture.md"
TABLES: dict[str, Table] = {
    "jobs": jobs.TABLE,
    "nodes": nodes.TABLE,
    "commands": commands.TABLE,
}
END = "<!-- /diagram -->"

_ARROWS_EACH_MAX = 3  # more states that go the same way are drawn as one


class MarkerMissingError(Exception):
    """The page has no place for a diagram."""


def diagram(table: Table) -> str:
    """Render a transition table as Mermaid; life begins in the table's first state and ends where nothing follows."""
    sources: dict[tuple[StrEnum, StrEnum], list[StrEnum]] = {}  # (signal, target) -> states it is taken in
    for (state, signal), target in table.items():
        sources.setdefault((signal, target), []).append(state)
    everything = list(dict.fromkeys([state for state, _ in table] + list(table.values())))
    boxes: dict[str, str] = {}
    arrows: dict[tuple[str, str], list[str]] = {}
    for (signal, target), states in sources.items():
        tails = [str(state) for state in states]
        if len(tails) > _ARROWS_EACH_MAX:
            label = "any state" if len(tails) == len(everything) else ", ".join(tails)
            tails = [boxes.setdefault(label, f"some_{len(boxes)}")]
        for tail in tails:
            arrows.setdefault((tail, str(target)), []).append(str(signal))
    ends = [state for state in everything if state not in {state for state, _ in table}]
    lines = [
        "stateDiagram-v2",
        *(f'state "{label}" as {box}' for label, box in boxes.items()),
        f"[*] --> {everything[0]}",
        *(f"{tail} --> {head}: {', '.join(signals)}" for (tail, head), signals in arrows.items()),
        *(f"{state} --> [*]" for state in ends),
    ]
    return "\n    ".join(lines)


def refreshed(page: str) -> str:
    """Return the page with every diagram drawn anew."""
    for name, table in TABLES.items():
        begin = f"<!-- diagram:{name} -->"
        block = re.search(f"{re.escape(begin)}\n(?:(?!<!--).)*{re.escape(END)}", page, re.DOTALL)
        if block is None:
            raise MarkerMissingError(f"{PAGE.name} has no block from `{begin}` to `{END}`: add these two lines to it")
        drawn = f"{begin}\n```mermaid\n{diagram(table)}\n```\n{END}"
        page = page[: block.start()] + drawn + page[block.end() :]
    return page


def main(arguments: list[str]) -> int:
    old = PAGE.read_text(encoding="utf-8")
    try:
        new = refreshed(old)
    except MarkerMissingError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if "--write" in arguments:
        PAGE.write_text(new, encoding="utf-8")
    elif new != old:
        sys.stderr.write(f"{PAGE.name} differs from the tables: run python -m docs.diagrams --write\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The monitor under load: what a thousand readers cost, how soon a page of many nodes answers, what a long look loses.

    python -m bench.monitor               all of it in about five minutes; writes docs/reference/benchmarks-monitor.md
    python -m bench.monitor --quick       the same in a minute, to see whether it works
    python -m bench.monitor --minutes 10  look on for longer while jobs are done
    python -m bench.monitor --only readers

Control plane, fleet and browser are processes of their own, and need more than two cores for figures that mean much.
"""

import argparse
import asyncio
import os
from collections.abc import Iterator

from bench.monitor_browser import fleet, opened, soak
from bench.monitor_fanout import fan_out, plane
from bench.monitor_page import Line, of_fan_out, of_opened, of_soak, write
from msgspec import Struct, structs

_WORKERS = 8
_WORKING = 20  # nodes that take jobs while the page is used
_HEARTBEAT_S = {100: 5.0, 1000: 10.0}
_PARTS = ("readers", "page", "soak")


class Sizes(Struct, frozen=True):
    readers: int
    events_per_s: float
    fan_out_s: float
    look_s: float
    minutes: float
    jobs: int


_FULL = Sizes(readers=1000, events_per_s=100.0, fan_out_s=20.0, look_s=30.0, minutes=2.0, jobs=1000)
_QUICK = Sizes(readers=200, events_per_s=100.0, fan_out_s=3.0, look_s=3.0, minutes=0.25, jobs=200)


def measure(sizes: Sizes, part: str | None) -> Iterator[tuple[str, list[Line]]]:
    """Yield a title with its table, one after another."""
    if part in {None, "readers"}:
        yield f"{sizes.readers:,} readers", of_fan_out(fan_out(sizes.readers, sizes.events_per_s, sizes.fan_out_s))
    if part in {None, "page"}:
        for nodes, beat_s in _HEARTBEAT_S.items():
            with plane() as started, fleet(started, nodes, _WORKERS, _WORKING, beat_s):
                found = asyncio.run(opened(started, sizes.look_s))
            yield f"The fleet page with {nodes:,} nodes of {_WORKERS} workers", of_opened(found)
    if part in {None, "soak"}:
        with plane() as started, fleet(started, 100, _WORKERS, 100, _HEARTBEAT_S[100]):
            lasting = asyncio.run(soak(started, sizes.minutes, sizes.jobs))
        yield f"{sizes.jobs:,} jobs on 100 nodes, looked at for {sizes.minutes:g} minutes", of_soak(lasting)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.monitor", description="Measure the monitor.")
    parser.add_argument("--quick", action="store_true", help="less of everything, to see whether it works")
    parser.add_argument("--minutes", type=float, help="how long the page is looked at while jobs are done (default: 2)")
    parser.add_argument("--only", choices=_PARTS, help="one of the parts")
    arguments = parser.parse_args()
    sizes = _QUICK if arguments.quick else _FULL
    if arguments.minutes:
        sizes = structs.replace(sizes, minutes=arguments.minutes)
    tables: dict[str, list[Line]] = {}
    load = os.getloadavg()[0]
    for title, lines in measure(sizes, arguments.only):
        tables[title] = lines
        print(f"\n{title}\n", *lines, sep="\n", flush=True)
    if not arguments.quick and arguments.only is None:
        print(f"\nwritten: {write(tables, max(load, os.getloadavg()[0]))}")


if __name__ == "__main__":
    main()

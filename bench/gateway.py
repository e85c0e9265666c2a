"""The gateway measured: what it adds to a request, what a relayed event costs, how soon it lets go.

    python -m bench.gateway                      with nginx beside it, where nginx is installed
    python -m bench.gateway --peers [NAME...]    beside all others (that writes the page), or those that are named
    python -m bench.gateway --quick              fewer of everything, to see whether it works
    python -m bench.gateway --soak 30            no rates: so many minutes of faults, and what they leave behind

The engines and the load come from gateway_tools.c, built on the spot, so that Python is only where a gateway is made of
it. With two cores or more the gateway has the first for itself and the tools the second. Figures are from this machine
and this moment; compare only what was measured together.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import gateway_page, gateway_soak
from bench.gateway_load import Engines, Loaded, LoadFailed, engines
from bench.gateway_page import Figures, Outcome
from bench.gateway_peers import ALONE, MUSTER, NGINX, PROGRAMS, Program, Running, install, started
from msgspec import Struct
from msgspec.structs import replace

_FAST = "mock-200x10000"  # 200 events, one every 10 ms: 100 a second and stream
_SLOW = "mock-40x50000"  # 20 a second: as fast as a person's model talks


class Sizes(Struct, frozen=True, kw_only=True):
    seconds: float
    warm_s: float  # until all streams run; less for less
    connections: int
    streams: int
    leaving: int
    rounds: int


_FULL = Sizes(seconds=2.0, warm_s=1.5, connections=64, streams=1000, leaving=500, rounds=3)
_QUICK = Sizes(seconds=0.7, warm_s=1.0, connections=16, streams=100, leaving=50, rounds=1)


class Bench:
    """One program after another, each in every round."""

    def __init__(self, engines: Engines, folder: Path, sizes: Sizes) -> None:
        self._engines = engines
        self._folder = folder
        self._sizes = sizes
        self._starts = 0

    def measure(self, program: Program, figures: Figures) -> None:
        """Take the measures in turn; the program is started anew where it has failed in one or still works for nobody.

        The log of a program tells in its folder what it had to say.
        """
        waiting = [self._requests, self._slow_streams, self._fast_streams, self._leaving]
        while waiting:
            self._starts += 1
            with started(program, self._engines.ports, self._folder / f"{program.key}-{self._starts}") as running:
                good = True
                while waiting and good:
                    good = self._take(waiting.pop(0), running, figures)

    def _take(self, measure: Callable[[Running, Figures], None], running: Running, figures: Figures) -> bool:
        """Return whether the program can go on to the next."""
        try:
            measure(running, figures)
        except LoadFailed as error:
            figures.fail(measure.__name__.strip("_").replace("_", " "), str(error))
            return False
        return self._engines.let_go_at_us() is not None

    def _load(self, running: Running, mode: str, connections: int, seconds: float, model: str, warm_s: float) -> Loaded:
        return self._engines.load(
            mode,
            running.port,
            connections,
            seconds,
            model,
            warm_s=warm_s,
            headers=running.headers,
            process=running.process,
        )

    def _requests(self, running: Running, figures: Figures) -> None:
        seconds = self._sizes.seconds
        direct = self._engines.load("requests", self._engines.ports[0], 1, seconds / 3, "mock").load
        one = self._load(running, "requests", 1, seconds / 3, "mock", self._sizes.warm_s / 6).load
        figures.add(added_p50_ms=one.p50_ms - direct.p50_ms)
        many = self._load(running, "requests", self._sizes.connections, seconds, "mock", self._sizes.warm_s / 2)
        figures.add(requests_per_s=many.load.done / many.load.seconds, cpu_us_per_request=_cost(many, many.load.done))

    def _slow_streams(self, running: Running, figures: Figures) -> None:
        slow = self._load(running, "streams", self._sizes.streams, self._sizes.seconds, _SLOW, self._sizes.warm_s)
        figures.add(cpu_us_per_slow_event=_cost(slow, slow.load.events))

    def _fast_streams(self, running: Running, figures: Figures) -> None:
        fast = self._load(running, "streams", self._sizes.streams, self._sizes.seconds, _FAST, self._sizes.warm_s)
        figures.add(
            events_per_s=fast.load.events / fast.load.seconds,
            cpu_us_per_event=_cost(fast, fast.load.events),
            delay_p99_ms=fast.load.p99_ms,
            memory_mb=fast.memory_mb,
        )

    def _leaving(self, running: Running, figures: Figures) -> None:
        sizes = self._sizes
        left = self._load(running, "leave", sizes.leaving, sizes.seconds / 4, _FAST, sizes.warm_s / 2).load
        gone_at_us = self._engines.let_go_at_us()
        if gone_at_us is None:
            raise LoadFailed(f"10 s after {sizes.leaving} callers had left some of their streams went on")
        figures.add(let_go_ms=(gone_at_us - left.left_at_us) / 1000)


def _cost(loaded: Loaded, count: int) -> float:
    return loaded.cpu_s / count * 1e6 if count else 0.0


def run(programs: Sequence[Program], sizes: Sizes) -> Outcome:
    """Measure these in turns; what cannot be installed, or does not start, is named with the reason."""
    absent = {program.name: problem for program in programs if (problem := install(program)) is not None}
    figures = {program.name: Figures() for program in programs}
    loads = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mst-")))
        bench = Bench(stack.enter_context(engines(folder)), folder, sizes)
        for number in range(sizes.rounds):
            for program in programs:
                if program.name in absent:
                    continue
                loads.append(os.getloadavg()[0])
                try:
                    bench.measure(program, figures[program.name])
                except LoadFailed as error:
                    absent[program.name] = f"failed: {error}"
                rate = figures[program.name].median("requests_per_s") or 0
                print(f"# {number + 1}/{sizes.rounds} {program.name}: {rate:,.0f}/s", file=sys.stderr, flush=True)
    return Outcome(
        rounds=sizes.rounds,
        loads=loads,
        figures={name: found for name, found in figures.items() if name not in absent},
        absent=absent,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description="Measure the gateway.")
    parser.add_argument("--quick", action="store_true", help="fewer of everything, to see whether it works")
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="beside others: all, or those that are named")
    parser.add_argument("--rounds", type=int, help="of all programs (default: 3)")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="faults for so long, and what they leave behind")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what was started is stopped with it
    if arguments.soak:
        sys.exit(gateway_soak.main(arguments.soak))
    sizes = _QUICK if arguments.quick else _FULL
    rounds = arguments.rounds or (1 if arguments.peers is None else sizes.rounds)
    outcome = run(_wanted(arguments.peers), replace(sizes, rounds=rounds))
    for table in (gateway_page.targets_table(outcome), gateway_page.programs_table(outcome)):
        print("", *table, sep="\n")
    print("", *gateway_page.missing(outcome), sep="\n")
    if arguments.peers == [] and not arguments.quick:
        print(f"\nwritten: {gateway_page.write(outcome)}")


def _wanted(names: Sequence[str] | None) -> list[Program]:
    """Muster is always among them."""
    if names == []:
        return list(PROGRAMS)
    wanted = {NGINX.lower()} if names is None else {name.lower() for name in names}
    unknown = wanted - {program.key for program in PROGRAMS}
    if unknown:
        known = ", ".join(program.key for program in PROGRAMS)
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}; there are {known}")
    return [program for program in PROGRAMS if program.name in {MUSTER, ALONE} or program.key in wanted]


if __name__ == "__main__":
    main()

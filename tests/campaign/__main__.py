"""`make faults`: a fleet does its work while everything that can be hurt is hurt.

    make faults                                     10,000 jobs, 20 workers, 10 minutes, a seed of its own
    make faults ARGS="--seed 7"                     the same orders and faults again
    make faults ARGS="--minutes 2 --jobs 1000 --workers 8"

The report lies in .cache/faults, with the logs of all processes beside it; the exit code is 0 only if nothing was lost.
"""

import argparse
import asyncio
import random
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.campaign.conduct import Campaign, Plan
from tests.campaign.fleet import Shape
from tests.campaign.report import Report

_RUNS = Path(__file__).resolve().parents[2] / ".cache" / "faults"
_CALM = 0.08  # of the time, before the first fault; and as much after the last


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="Hurt a fleet that works.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="of an earlier campaign, to repeat it")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--agents", type=int, default=6, help="processes that the workers are in")
    parser.add_argument("--planes", type=int, default=3, help="control planes")
    parser.add_argument("--submitters", type=int, default=4)
    parser.add_argument("--every", type=float, default=7.0, help="seconds between two faults, in the mean")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    shape = Shape(planes=given.planes, agents=given.agents, workers=given.workers)
    again = " ".join(
        f"--{name} {getattr(given, name):g}" for name in ("minutes", "jobs", "workers", "agents", "planes", "every")
    )
    plan = Plan(
        seed=seed,
        jobs=given.jobs,
        shape=shape,
        faults=max(1, round(given.minutes * 60 * (1 - 2 * _CALM) / given.every)),
        calm_s=given.minutes * 60 * _CALM,
        every_s=given.every,
        submitters=given.submitters,
        command=f'make faults ARGS="--seed {seed} {again}"',
    )
    folder = _RUNS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-seed-{seed}"
    folder.mkdir(parents=True)
    began_s = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - began_s:6.1f}] {line}\n")
        sys.stdout.flush()

    say(f"seed {seed}, in {folder}")
    report = asyncio.run(_run(Campaign(plan, folder, say)))
    report.save(folder)
    sys.stdout.write(f"\n{report.text()}\n{folder / 'report.txt'}\n")
    sys.exit(0 if report.passed else 1)


async def _run(campaign: Campaign) -> Report:
    """Whoever ends it by a signal ends all its processes with it."""
    running = asyncio.create_task(campaign.run())
    for sig in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sig, running.cancel)
    return await running


if __name__ == "__main__":
    main()

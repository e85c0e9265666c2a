import asyncio

import pytest

from muster.sim.plane import finish
from muster.sim.timeline import START_MS, Timeline


def test_things_happen_in_the_order_of_time_then_of_asking() -> None:
    timeline = Timeline()
    seen: list[tuple[int, str]] = []

    def note(name: str) -> None:
        seen.append((timeline.now_ms() - START_MS, name))

    def second() -> None:
        note("second")
        timeline.after(0, lambda: note("third"))

    timeline.after(20, lambda: note("later"))
    timeline.after(10, lambda: note("first"))
    timeline.after(10, second)
    timeline.run(START_MS + 15)
    assert seen == [(10, "first"), (10, "second"), (10, "third")]
    assert timeline.monotonic_s() == 0.015
    timeline.run(START_MS + 20)
    assert seen[-1] == (20, "later")
    assert timeline.happened == 4


async def test_what_waits_cannot_run_in_virtual_time() -> None:
    async def answer() -> int:
        return 3

    assert finish(answer()) == 3
    with pytest.raises(RuntimeError, match="waits"):
        finish(asyncio.Event().wait())

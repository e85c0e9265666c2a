"""Services that share a GPU: one at a time, in the order in which they came, none for ever."""

import asyncio
from typing import Any

import pytest

from muster.agent.gpus.turns import GpuTurns
from muster.agent.outbox import Outbox
from muster.domain.service import Service, ServiceStatus
from muster.errors import UpstreamFailed
from muster.ids import NodeId
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes


def service(name: str, gpu: int | None = 0) -> Service:
    return Service(name=name, connector=name.partition("-")[0], status=ServiceStatus.RUNNING, gpu_index=gpu)


LLM, PAINTER, OTHER, FREE = service("ollama"), service("comfyui"), service("comfyui-1", 1), service("whisper")


class Site:
    def __init__(self) -> None:
        self.outbox = Outbox(NodeId("a"), LoopClock())
        self.turns = GpuTurns(("ollama", "comfyui"), lambda: (LLM, PAINTER, OTHER, FREE), LoopClock(), self.outbox)
        self.freed: list[str] = []
        self.turns.freed_by(self._free)
        self.said: list[str] = []
        self.order: list[str] = []

    async def _free(self, service: Service) -> None:
        self.freed.append(service.name)

    async def work(self, service: Service, doing: str, took_s: float = 1.0, **more: Any) -> None:
        async with self.turns.take(service, doing, self.said.append, **more):
            self.order.append(doing)
            await time_passes(took_s)

    def begin(self, service: Service, doing: str, took_s: float = 1.0, **more: Any) -> asyncio.Task[None]:
        return asyncio.create_task(self.work(service, doing, took_s, **more))


@in_virtual_time
async def test_who_begins_has_the_memory_of_the_others_and_who_waits_hears_for_whom() -> None:
    site = Site()
    first, second = site.begin(LLM, "answers", 5.0), site.begin(PAINTER, "paints")
    await time_passes(1.0)
    assert (site.order, site.said) == (["answers"], ["waits for GPU 0: ollama answers"])
    await asyncio.gather(first, second)
    assert site.order == ["answers", "paints"]
    assert site.freed == ["comfyui", "ollama"], "neither the one on another GPU nor one that shares nothing"
    (turn,) = [event.data for event in site.outbox.batch(9) if event.kind == "gpu_turn"]
    assert (turn["service"], turn["token"]) == ("comfyui", 2)


@in_virtual_time
async def test_jobs_of_one_service_go_side_by_side_and_those_on_other_gpus_too() -> None:
    site = Site()
    await time_passes(0.0)
    started_s = LoopClock().monotonic_s()
    await asyncio.gather(site.work(PAINTER, "a", 9.0), site.work(PAINTER, "b", 9.0), site.work(OTHER, "c", 9.0))
    assert LoopClock().monotonic_s() - started_s < 10.0
    assert site.said == []


@in_virtual_time
async def test_nobody_overtakes_who_waits_for_the_same_gpu() -> None:
    site = Site()
    tasks = [site.begin(PAINTER, "one", 5.0)]
    await time_passes(1.0)
    tasks.append(site.begin(LLM, "answers"))
    await time_passes(1.0)
    tasks.append(site.begin(PAINTER, "two"))
    await asyncio.gather(*tasks)
    assert site.order == ["one", "answers", "two"]


@in_virtual_time
async def test_a_turn_goes_on_for_what_may_follow_until_it_is_left() -> None:
    site = Site()
    await site.work(LLM, "answers", lasts_s=100.0)
    waiting = site.begin(PAINTER, "paints")
    await time_passes(50.0)
    assert site.order == ["answers"]
    site.turns.leave(LLM)
    await waiting
    assert site.order == ["answers", "paints"]


@in_virtual_time
async def test_a_turn_that_goes_on_ends_by_itself() -> None:
    site = Site()
    await site.work(LLM, "answers", lasts_s=15.0)
    started_s = LoopClock().monotonic_s()
    await site.work(PAINTER, "paints")
    assert 15.0 <= LoopClock().monotonic_s() - started_s <= 18.0


@in_virtual_time
async def test_long_work_keeps_its_turn() -> None:
    site = Site()
    long = site.begin(LLM, "answers", 600.0)
    waiting = site.begin(PAINTER, "paints")
    await time_passes(599.0)
    assert site.order == ["answers"]
    await asyncio.gather(long, waiting)


@in_virtual_time
async def test_who_was_held_up_learns_that_its_turn_is_over() -> None:
    site = Site()
    held_up = site.begin(LLM, "answers", 600.0)
    await time_passes(1.0)
    for turn in site.turns._held:
        turn.until_s = 0.0  # as after the sleep of a laptop: nobody renewed it, and time went on
    await site.work(PAINTER, "paints")
    with pytest.raises(UpstreamFailed, match="went to another"):
        await held_up


@in_virtual_time
async def test_who_gives_up_leaves_the_line() -> None:
    site = Site()
    first, second = site.begin(LLM, "answers", 5.0), site.begin(PAINTER, "paints")
    await time_passes(1.0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await first
    await site.work(LLM, "again")
    assert site.order == ["answers", "again"]
    with pytest.raises(asyncio.CancelledError):
        await second


@in_virtual_time
async def test_who_shares_nothing_waits_for_nobody() -> None:
    site = Site()
    first = site.begin(LLM, "answers", 5.0)
    await site.work(FREE, "listens")
    assert site.freed == ["comfyui"]
    await first

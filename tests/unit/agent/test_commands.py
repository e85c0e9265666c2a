"""The desk where an agent takes its commands, against a control plane that comes and goes, in virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from muster.agent import commands as desks
from muster.agent.commands import Action, CommandDesk
from muster.domain.command import Command, CommandStatus
from muster.domain.job import Progress
from muster.errors import InvalidInput, Unauthorized, UpstreamFailed
from muster.ids import CommandId
from muster.ports import ReportProgress
from tests.unit.agent.nodes import NODE, FakePlane
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes, until


class Noting:
    """An action that notes what it was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, args: dict[str, Any], _: ReportProgress) -> str:
        self.seen.append(args)
        return "noted"


async def hang(_: dict[str, Any], __: ReportProgress) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def at_work(plane: FakePlane, **actions: Action) -> AsyncIterator[CommandDesk]:
    desk = CommandDesk(NODE, "boot-b", plane, actions, LoopClock(), random.Random(1))
    await desk.start()
    desk.allow(allowed=True)
    try:
        yield desk
    finally:
        await desk.stop()


@in_virtual_time
async def test_a_command_is_acknowledged_at_once_and_its_result_told() -> None:
    plane = FakePlane()

    async def take_five_seconds(_: dict[str, Any], __: ReportProgress) -> dict[str, int]:
        await time_passes(5)
        return {"n": 7}

    async with at_work(plane, status=take_five_seconds):
        await time_passes(3)
        plane.order("status")
        await time_passes(1)
        assert [report.status for report in plane.reports] == [CommandStatus.ACKED]
        await time_passes(5)
        assert [(end.status, end.result) for end in plane.ends()] == [(CommandStatus.DONE, {"n": 7})]


@in_virtual_time
async def test_a_command_is_carried_out_once_however_often_it_comes() -> None:
    plane, note = FakePlane(), Noting()
    async with at_work(plane, status=note):
        plane.order("status", who="first")
        plane.order("status", who="again")
        await until(plane.ends)
        plane.order("status", who="and again")
        await time_passes(30)
    assert note.seen == [{"who": "first"}]
    assert {end.result for end in plane.ends()} == {"noted"}


@in_virtual_time
async def test_a_result_is_kept_while_the_control_plane_is_away() -> None:
    plane, note = FakePlane(), Noting()

    async def away(call: str) -> None:
        if call == "report_commands" and LoopClock().monotonic_s() < 1300:
            raise UpstreamFailed("nobody there")

    plane.trouble = away
    async with at_work(plane, status=note):
        plane.order("status")
        await until(plane.ends)
    assert LoopClock().monotonic_s() <= 1335
    assert len(note.seen) == 1


@pytest.mark.parametrize("refusal", [Unauthorized("no such token"), ValueError("a fault of ours")])
def test_whatever_goes_wrong_it_goes_on_asking(refusal: Exception) -> None:
    @in_virtual_time
    async def run() -> None:
        plane, note = FakePlane(), Noting()

        async def refuse(call: str) -> None:
            if call == "next_commands" and LoopClock().monotonic_s() < 1100:
                raise refusal

        plane.trouble = refuse
        async with at_work(plane, status=note):
            plane.order("status")
            await until(plane.ends)

    run()


@in_virtual_time
async def test_reports_that_are_refused_do_not_hold_up_others() -> None:
    plane, note = FakePlane(), Noting()
    refusals = [InvalidInput("too odd")]

    async def refuse(call: str) -> None:
        if call == "report_commands" and refusals:
            raise refusals.pop()

    plane.trouble = refuse
    async with at_work(plane, status=note):
        plane.order("status", 1)
        plane.order("status", 2)
        await until(lambda: plane.ends(1) and plane.ends(2))  # they come again, and their last words are told again
    assert len(note.seen) == 2


@in_virtual_time
async def test_what_cannot_be_carried_out_is_told() -> None:
    async def fail(_: dict[str, Any], __: ReportProgress) -> None:
        raise ValueError("no such thing")

    async def time_out(_: dict[str, Any], __: ReportProgress) -> None:
        raise TimeoutError("of its own")

    async def say_too_much(_: dict[str, Any], __: ReportProgress) -> str:
        return "x" * 100_000

    plane = FakePlane()
    async with at_work(plane, status=fail, drain=time_out, logs=say_too_much):
        for number, name in enumerate(("status", "dance", "drain", "logs")):
            plane.order(name, number)
        await until(lambda: all(plane.ends(number) for number in range(4)))
    assert [plane.ends(number)[0].error for number in range(4)] == [
        "ValueError: no such thing",
        "this agent does not know it; it knows drain, logs, status",
        "TimeoutError: of its own",
        "it was done, but its result of 100002 bytes is too large to be told",
    ]


@in_virtual_time
async def test_a_command_is_cut_at_its_deadline_by_the_time_of_the_control_plane() -> None:
    plane = FakePlane()
    async with at_work(plane, status=hang):
        plane.order("status", timeout_s=30.0)
        asked_s = LoopClock().monotonic_s()
        await until(plane.ends)
        assert 29 <= LoopClock().monotonic_s() - asked_s <= 31
    assert (plane.ends()[0].error or "").startswith("cut at its deadline, after ")


@in_virtual_time
async def test_what_was_meant_for_an_earlier_life_is_carried_out_only_where_twice_does_no_harm() -> None:
    plane, shut_down, tell = FakePlane(), Noting(), Noting()
    async with at_work(plane, shutdown=shut_down, status=tell):
        for number, name in enumerate(("shutdown", "status")):
            plane.waiting.append(
                Command(
                    command_id=CommandId(f"command-{number}"),
                    node_id=NODE,
                    command=name,
                    boot_id="boot-a",
                    deadline_ms=LoopClock().now_ms() + 60_000,
                )
            )
        await until(lambda: plane.ends(0) and plane.ends(1))
    assert not shut_down.seen
    assert "before its restart" in (plane.ends(0)[0].error or "")
    assert len(tell.seen) == 1


@in_virtual_time
async def test_progress_is_told_now_and_then() -> None:
    async def pull(_: dict[str, Any], report: ReportProgress) -> str:
        for percent in range(100):
            report(Progress(fraction=percent / 100))
            await time_passes(0.1)
        return "all of it"

    plane = FakePlane()
    async with at_work(plane, pull_model=pull):
        plane.order("pull_model")
        await until(plane.ends)
    told = [report.progress.fraction for report in plane.reports if report.progress]
    assert told == sorted(told, key=lambda fraction: fraction or 0)
    assert 8 <= len(told) <= 11


@in_virtual_time
async def test_only_so_many_run_at_a_time_and_the_others_wait_their_turn() -> None:
    async def take_a_second(_: dict[str, Any], __: ReportProgress) -> None:
        await time_passes(1)

    plane, count = FakePlane(), desks.KNOWN_MAX - 10
    async with at_work(plane, status=take_a_second) as desk:
        for number in range(count):
            plane.order("status", number, timeout_s=600)
        while not all(plane.ends(number) for number in range(count)):
            await time_passes(0.5)
            assert len(desk._running) <= desks._RUNNING_MAX
    assert len(plane.polls) < count


@in_virtual_time
async def test_the_ids_of_old_commands_are_not_kept_for_ever() -> None:
    plane, note = FakePlane(), Noting()
    async with at_work(plane, status=note) as desk:
        for number in range(desks.KNOWN_MAX + 10):
            plane.order("status", number)
        await until(lambda: len(note.seen) == desks.KNOWN_MAX + 10)
        assert len(desk._known) == desks.KNOWN_MAX


@in_virtual_time
async def test_an_answer_that_comes_too_early_is_no_reason_to_ask_without_end() -> None:
    class Hasty(FakePlane):
        async def next_commands(self, message: Any) -> Any:
            return await super().next_commands(type(message)(node_id=NODE, boot_id="boot-b", wait_s=0.0))

    plane = Hasty()
    async with at_work(plane):
        await time_passes(60)
    assert 50 <= len(plane.polls) <= 65


@in_virtual_time
async def test_a_stop_ends_what_is_under_way_and_tells_so() -> None:
    plane = FakePlane()
    async with at_work(plane, status=hang):
        plane.order("status")
        await until(lambda: plane.reports)
    assert [end.error for end in plane.ends()] == ["the agent stopped before it was done"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_a_stop_does_not_wait_long_for_a_control_plane_that_is_away() -> None:
    plane = FakePlane()
    async with at_work(plane, status=hang):
        plane.order("status")
        await until(lambda: plane.reports)

        async def silent(_: str) -> None:
            await asyncio.Event().wait()

        plane.trouble = silent
        stopped_s = LoopClock().monotonic_s()
    assert LoopClock().monotonic_s() - stopped_s <= 6

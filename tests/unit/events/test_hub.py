import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from muster.api.views import JobView
from muster.domain.event import Event
from muster.domain.job import Progress
from muster.errors import StoreUnavailable
from muster.events.followers import FollowLimits
from muster.events.selection import Wish
from muster.ids import JobId, NodeId, SessionId, WorkerId
from muster.sse import KEEP_ALIVE
from muster.wire import AgentEvents, CloseSession, Deregistration, Outcome, OutcomeKind, ProgressReport, ProgressReports
from tests.planes import PlaneUnderTest

Message = dict[str, Any]


class Listener:
    """Reads a stream of frames as a browser does."""

    def __init__(self, frames: AsyncIterator[bytes]) -> None:
        self._frames = frames
        self._waiting: list[Message] = []
        self.last_id: str | None = None

    async def next(self, *kinds: str) -> Message:
        """Return the next message, of one of these kinds when given."""
        async with asyncio.timeout(10):
            while True:
                while self._waiting:
                    message = self._waiting.pop(0)
                    if not kinds or message["type"] in kinds:
                        return message
                self._take(await anext(self._frames))

    async def machine(self, name: str) -> Message:
        """Return the next update of this machine; others may come as well: a delta twice is harmless."""
        while True:
            message = await self.next("machine_update")
            if message["machine"]["machine_id"] == name:
                return message

    async def all(self) -> list[Message]:
        """Read to the end of the stream."""
        async with asyncio.timeout(10):
            async for frame in self._frames:
                self._take(frame)
        return self._waiting

    async def close(self) -> None:
        await self._frames.aclose()  # type: ignore[attr-defined]  # generators have it

    def _take(self, frames: bytes) -> None:
        for block in frames.decode().split("\n\n"):
            for line in block.splitlines():
                if line.startswith("id: "):
                    self.last_id = line.removeprefix("id: ")
                elif line.startswith("data: "):
                    self._waiting.append(json.loads(line.removeprefix("data: ")))


def monitor(plane: PlaneUnderTest, last_id: str | None = None, *machines: str) -> Listener:
    return Listener(plane.hub.monitor(last_id, Wish(machines=frozenset(machines))))


async def test_a_monitor_gets_a_snapshot_and_then_what_changes(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n1")
    listener = monitor(plane)
    assert (await listener.next())["type"] == "connected"
    snapshot = await listener.next()
    assert snapshot["type"] == "full_state_snapshot"
    assert [machine["machine_id"] for machine in snapshot["data"]["machines"]] == ["n1"]
    await plane.heartbeat("n2")
    update = await listener.machine("n2")
    assert [worker["worker_id"] for worker in update["workers"]] == ["n2-worker-0"]
    await plane.ingest.deregister(Deregistration(node_id=NodeId("n2"), boot_id="n2-boot"))
    assert (await listener.next("machine_removed"))["machine_id"] == "n2"


async def test_jobs_show_each_change_with_their_whole_state(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    listener = monitor(plane)
    await listener.next("full_state_snapshot")
    job_id = await plane.submit()
    update = await listener.next("job_update")
    assert (update["job"]["job_id"], update["job"]["status"]) == (job_id, "pending")
    assert "payload" not in update["job"]
    await plane.claim()
    assert (await listener.next("job_update"))["job"]["status"] == "assigned"


async def test_what_is_no_node_is_not_shown_as_one_that_is_gone(plane: PlaneUnderTest) -> None:
    listener = monitor(plane)
    await listener.next("full_state_snapshot")
    kinds = ("webhook_paused", "batch_completed")
    await plane.store.log.append([Event(kind=kind, key="no-node", at_ms=1) for kind in kinds])
    await plane.submit()
    assert (await listener.next("job_update", "machine_removed"))["type"] == "job_update"


async def test_a_reader_that_returns_gets_the_present_state_of_what_it_missed(plane: PlaneUnderTest) -> None:
    listener = monitor(plane)
    await listener.next("full_state_snapshot")
    await plane.submit("job-1")
    await listener.next("job_update")
    last_id = listener.last_id
    assert last_id is not None
    await listener.close()
    await plane.submit("job-2")
    again = monitor(plane, last_id)
    assert (await again.next())["type"] == "connected"
    assert (await again.next("job_update", "full_state_snapshot"))["job"]["job_id"] == "job-2"


def step(name: str) -> AgentEvents:
    event = Event(kind="startup_step", key="n1", at_ms=1, data={"step": name, "type": "its own"})
    return AgentEvents(node_id=NodeId("n1"), events=(event,))


async def test_a_machine_that_comes_up_is_followed_event_by_event(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n1")
    listener, other = monitor(plane), monitor(plane, None, "n2")
    await listener.next("full_state_snapshot")
    await other.next("full_state_snapshot")
    for name in ("one", "two"):
        await plane.ingest.report_events(step(name))
    for name in ("one", "two"):
        told = await listener.next("machine_startup_step", "machine_startup")
        assert told["timestamp"]
        assert (told["event"], told["machine_id"], told["step"]) == ("startup_step", "n1", name)
    await plane.ingest.report_events(
        AgentEvents(node_id=NodeId("n2"), events=(Event(kind="startup_complete", key="n2", at_ms=1),))
    )
    assert (await other.next("machine_startup_step", "machine_startup_complete"))["machine_id"] == "n2"


async def test_a_reader_that_returns_hears_what_a_machine_told_meanwhile_and_others_not_again(
    plane: PlaneUnderTest,
) -> None:
    leaves, stays = monitor(plane), monitor(plane)
    await leaves.next("full_state_snapshot")
    await stays.next("full_state_snapshot")
    await plane.ingest.report_events(step("heard"))
    await leaves.next("machine_startup_step")
    last_id = leaves.last_id
    await leaves.close()
    await plane.ingest.report_events(step("missed"))
    heard = [(await stays.next("machine_startup_step"))["step"] for _ in range(2)]

    again = monitor(plane, last_id)

    assert (await again.next("machine_startup_step"))["step"] == "missed"
    await plane.ingest.report_events(step("new"))
    assert (await again.next("machine_startup_step"))["step"] == "new"
    assert [*heard, (await stays.next("machine_startup_step"))["step"]] == ["heard", "missed", "new"]


@pytest.mark.parametrize("last_id", ["999999", "nonsense"])
async def test_an_id_that_nobody_remembers_gets_a_snapshot(plane: PlaneUnderTest, last_id: str) -> None:
    listener = monitor(plane, last_id)
    await listener.next()
    assert (await listener.next())["type"] == "full_state_snapshot"


async def test_lesson_too_many_changes_at_once_become_one_snapshot(plane: PlaneUnderTest) -> None:
    listener = monitor(plane)
    await listener.next("full_state_snapshot")
    for number in range(60):
        await plane.submit(f"job-{number:02}")
    assert "too many" in (await listener.next("resync"))["reason"]
    snapshot = await listener.next("full_state_snapshot")
    assert snapshot["data"]["system_stats"]["jobs"]["unworkable"] == 60


async def test_only_the_machines_asked_for_are_told_of(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n1")
    await plane.heartbeat("n2")
    listener = monitor(plane, None, "n2")
    snapshot = await listener.next("full_state_snapshot")
    assert [machine["machine_id"] for machine in snapshot["data"]["machines"]] == ["n2"]
    await plane.heartbeat("n1", seq=2)
    await plane.heartbeat("n2", seq=2)
    assert (await listener.next("machine_update"))["machine"]["machine_id"] == "n2"


async def test_figures_come_by_themselves(plane: PlaneUnderTest) -> None:
    listener = monitor(plane)
    assert (await listener.next("system_stats"))["data"]["total_machines"] == 0


async def test_progress_is_told_without_a_look_at_the_store(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit()
    await plane.claim()
    listener = monitor(plane)
    await listener.next("full_state_snapshot")
    report = ProgressReport(job_id=job_id, attempt=1, progress=Progress(fraction=0.25))
    await plane.jobs.report_progress(ProgressReports(session_id=SessionId("s1"), reports=(report,)))
    assert (await listener.next("job_progress"))["progress"]["fraction"] == 0.25


async def test_who_watches_one_job_sees_it_to_its_one_end(plane: PlaneUnderTest) -> None:
    await plane.open_session()
    job_id = await plane.submit()
    listener = Listener(plane.hub.job(job_id))
    assert (await listener.next())["job"]["status"] == "pending"
    await plane.claim()
    assert (await listener.next())["job"]["status"] == "assigned"
    done = Outcome(job_id=job_id, attempt=1, kind=OutcomeKind.COMPLETED)
    await plane.claim(want=0, done=(done, done))
    messages = await listener.all()
    assert [message["job"]["status"] for message in messages] == ["completed"]
    assert plane.hub.readers == 0


async def test_a_job_that_has_ended_is_told_once(plane: PlaneUnderTest) -> None:
    job_id = await plane.submit()
    await plane.jobs.cancel(job_id)
    messages = await Listener(plane.hub.job(job_id)).all()
    assert [message["job"]["status"] for message in messages] == ["cancelled"]


async def test_a_stream_without_news_is_kept_alive(plane: PlaneUnderTest) -> None:
    plane.hub.followers._limits = FollowLimits(keep_alive_s=0.01)
    frames = plane.hub.job(await plane.submit())
    async with asyncio.timeout(10):
        assert (await anext(frames)).startswith(b"id: ")
        assert await anext(frames) == KEEP_ALIVE


async def test_a_job_that_is_not_there_ends_its_stream_with_an_error(plane: PlaneUnderTest) -> None:
    (message,) = await Listener(plane.hub.job(JobId("job-none"))).all()
    assert (message["type"], message["code"]) == ("error", "job_not_found")
    assert plane.hub.readers == 0


async def test_the_log_itself_can_be_followed_without_gaps(plane: PlaneUnderTest) -> None:
    await plane.submit("job-1")
    frames = plane.hub.facts("0")
    read: list[Message] = []
    async with asyncio.timeout(10):
        async for frame in frames:
            read += [json.loads(line[6:]) for line in frame.decode().splitlines() if line.startswith("data: ")]
            if len(read) == 1:
                for number in range(2, 40):
                    await plane.submit(f"job-{number}")
            if len(read) >= 39:
                break
    assert [fact["kind"] for fact in read] == ["job_submitted"] * 39
    assert [int(fact["id"]) for fact in read] == list(range(1, 40))


async def test_readers_end_when_the_hub_stops(plane: PlaneUnderTest) -> None:
    listener = monitor(plane)
    await listener.next("full_state_snapshot")
    await plane.hub.stop()
    await listener.all()
    assert plane.hub.readers == 0


async def test_a_machine_gives_signs_of_life_while_nothing_changes(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n1")
    listener = monitor(plane)
    await listener.next("full_state_snapshot")
    for _ in range(2):
        sign = await listener.next("periodic_status_update")
        assert (sign["machine_id"], sign["status"], sign["timestamp"]) == ("n1", "ready", plane.clock.now_ms())


async def test_of_jobs_only_those_on_the_machines_asked_for_are_told(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n1")
    await plane.open_session("s1", "n1")
    await plane.open_session("s2", "n2")
    listener = monitor(plane, None, "n1")
    await listener.next("full_state_snapshot")
    for session, node in (("s2", "n2"), ("s1", "n1")):
        job_id = await plane.submit()
        await plane.claim(session, node)
        report = ProgressReport(job_id=job_id, attempt=1, progress=Progress(fraction=0.25))
        await plane.jobs.report_progress(ProgressReports(session_id=SessionId(session), reports=(report,)))
    told = await listener.next("job_update", "job_progress")
    assert (told["type"], told["job"]["job_id"], told["job"]["worker_id"]) == ("job_update", job_id, "n1-worker-0")
    again = monitor(plane, listener.last_id, "n1")
    snapshot = await again.next("full_state_snapshot")
    assert [job["job_id"] for job in snapshot["data"]["jobs"]["active"]] == [job_id]
    assert snapshot["data"]["jobs"]["pending"] == []
    await plane.jobs.close_session(CloseSession(session_id=SessionId("s1"), worker_id=WorkerId("n1-worker-0")))
    left = await again.next("job_update")
    assert (left["job"]["job_id"], left["job"]["status"]) == (job_id, "pending")


async def test_what_could_not_be_read_is_told_when_the_store_is_back(
    plane: PlaneUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = monitor(plane)
    await listener.next("full_state_snapshot")
    read, failed = plane.scenery.jobs, asyncio.Event()

    async def away(job_ids: Sequence[JobId]) -> list[JobView]:
        if failed.is_set():
            return await read(job_ids)
        failed.set()
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(plane.scenery, "jobs", away)
    job_id = await plane.submit()
    await plane.heartbeat("n1")
    assert (await listener.next("job_update"))["job"]["job_id"] == job_id
    assert failed.is_set()


async def test_of_a_large_fleet_there_is_a_line_about_each_node_and_in_full_only_those_wanted(
    plane: PlaneUnderTest,
) -> None:
    for name in ("n1", "n2", "n3"):
        await plane.heartbeat(name)
    wish = Wish(machines=frozenset({"n2"}), whole_up_to=2)
    listener = Listener(plane.hub.monitor(None, wish))
    data = (await listener.next("full_state_snapshot"))["data"]
    assert [machine["machine_id"] for machine in data["machines"]] == ["n2"]
    assert [line["machine_id"] for line in data["lines"]] == ["n1", "n2", "n3"]
    await plane.heartbeat("n4")
    await plane.ingest.deregister(Deregistration(node_id=NodeId("n1"), boot_id="n1-boot"))
    seen: set[str] = set()
    removed: set[str] = set()
    while not ("n4" in seen and "n1" in removed):
        news = await listener.next("machine_lines", "machine_update")
        if news["type"] == "machine_update":
            assert news["machine"]["machine_id"] == "n2", "nobody asked for the others in full"
        else:
            seen |= {line["machine_id"] for line in news["lines"]}
            removed |= set(news["removed"])


async def test_a_fleet_that_is_small_enough_is_told_whole(plane: PlaneUnderTest) -> None:
    await plane.heartbeat("n1")
    listener = Listener(plane.hub.monitor(None, Wish(whole_up_to=1)))
    data = (await listener.next("full_state_snapshot"))["data"]
    assert [machine["machine_id"] for machine in data["machines"]] == ["n1"]
    assert "lines" not in data
    await plane.heartbeat("n2")
    assert await listener.machine("n2")


async def test_who_looks_at_jobs_hears_of_all_of_them_whatever_machines_are_wanted(plane: PlaneUnderTest) -> None:
    listener = Listener(plane.hub.monitor(None, Wish(whole_up_to=0, all_jobs=True)))
    assert (await listener.next("full_state_snapshot"))["data"]["machines"] == []
    job_id = await plane.submit()
    assert (await listener.next("job_update"))["job"]["job_id"] == job_id

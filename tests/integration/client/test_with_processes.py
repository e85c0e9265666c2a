"""The client against real control planes and agents, which are killed, frozen and restarted under it."""

import json
import os
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from muster.client import Client, Job, NewJob
from muster.client.async_client import AsyncClient
from muster.errors import Forbidden, Unauthorized
from tests.integration.client.conftest import QUICK, StartAgent
from tests.muster_process import ControlPlane, MusterProcess
from tests.waiting import eventually, eventually_sync

Planes = tuple[ControlPlane, ControlPlane]
WAIT_S = 60.0


@contextmanager
def meanwhile(work: Any) -> Iterator[list[Any]]:
    """Do something in another thread; what comes of it is in the list at the end."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # noqa: BLE001  # the test looks at it
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield outcome
    thread.join(WAIT_S)
    assert not thread.is_alive()


def simulated(number: int, duration_ms: int = 1) -> dict[str, Any]:
    return {"duration_ms": duration_ms, "result": {"n": number}}


def ends_told(plane: ControlPlane) -> Counter[str]:
    """Count for each job how often the log says that it completed."""
    events: list[Any] = []
    after = "0"
    while page := plane.get(f"/api/events?after={after}&limit=1000")["events"]:
        events += page
        after = page[-1]["id"]
    completed = [event for event in events if event["kind"] == "job_completed"]
    return Counter(job_id for event in completed for job_id in event["ids"] or [event["key"]])


def test_a_thousand_jobs_are_mapped_over_a_real_fleet(plane: ControlPlane, start_agent: StartAgent) -> None:
    start_agent("one", plane.url)
    with Client(plane.url, token="") as client:
        payloads = (simulated(number) for number in range(1000))
        results = list(client.map("simulation", payloads, in_flight=200, wait_s=WAIT_S))
    assert [result["n"] for result in results] == list(range(1000))
    assert set(ends_told(plane).values()) == {1}


def test_a_control_plane_is_killed_and_comes_back_in_mid_wait(plane: ControlPlane, start_agent: StartAgent) -> None:
    start_agent("one", plane.url)
    ended: list[Job] = []
    with Client(plane.url, token="") as client:
        job_ids = client.submit_many([NewJob("simulation", simulated(n, duration_ms=300)) for n in range(100)])
        with meanwhile(lambda: ended.extend(client.as_completed(job_ids, WAIT_S))) as outcome:
            eventually_sync(lambda: len(ended) >= 5, WAIT_S)
            plane.kill()
            plane.start()
    assert outcome == [None]
    assert Counter(job.job_id for job in ended) == Counter(job_ids)
    assert {job.status for job in ended} == {"completed"}


def test_a_map_goes_on_over_the_death_of_its_control_plane(plane: ControlPlane, start_agent: StartAgent) -> None:
    start_agent("one", plane.url)
    seen: list[int] = []

    def work() -> None:
        with Client(plane.url, token="") as client:
            payloads = (simulated(n, duration_ms=100) for n in range(200))
            seen.extend(result["n"] for result in client.map("simulation", payloads, in_flight=40, wait_s=WAIT_S))

    with meanwhile(work) as outcome:
        eventually_sync(lambda: len(seen) >= 20, WAIT_S)
        plane.kill()
        plane.start()
    assert outcome == [None]
    assert seen == list(range(200))


def test_of_two_control_planes_one_may_go_in_mid_wait(planes: Planes, start_agent: StartAgent) -> None:
    first, second = planes
    start_agent("one", second.url)
    ended: list[Job] = []
    with Client([first.url, second.url], token="") as client:
        job_ids = client.submit_many([NewJob("simulation", simulated(n, duration_ms=300)) for n in range(60)])
        with meanwhile(lambda: ended.extend(client.as_completed(job_ids, WAIT_S))) as outcome:
            eventually_sync(lambda: len(ended) >= 5, WAIT_S)
            first.kill()
        assert client.url == second.url
    assert outcome == [None]
    assert Counter(job.job_id for job in ended) == Counter(job_ids)


def test_of_two_control_planes_one_may_freeze_in_mid_wait(
    planes: Planes, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.client.connection._HEARTBEAT_S", 1.0)
    first, second = planes
    start_agent("one", second.url)
    with Client([first.url, second.url], token="", timeout_s=2.0) as client:
        job = client.submit("simulation", {"duration_ms": 60_000})
        with meanwhile(lambda: client.wait(job.job_id, WAIT_S)) as outcome:
            eventually_sync(lambda: readers(first) == 1, WAIT_S)
            first.freeze()
            second.post(f"/api/jobs/{job.job_id}/cancel")
        first.thaw()
        assert outcome[0].status == "cancelled"


def readers(plane: ControlPlane) -> float:
    with urllib.request.urlopen(f"{plane.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("muster_event_readers "))


def test_ctrl_c_leaves_the_job_and_says_so(plane: ControlPlane) -> None:
    command = MusterProcess(
        plane.folder / "at-the-keyboard",
        "submit",
        *("simulation", "--wait"),
        env={"MUSTER_CONTROL_PLANE": plane.url, "MUSTER_DATA_DIR": str(plane.folder / "none")},
    ).start()
    eventually_sync(lambda: "unworkable" in command.log, WAIT_S)
    os.kill(command.pid, signal.SIGINT)
    assert command.wait() == 130
    assert "goes on" in command.log
    (job,) = plane.get("/api/jobs")["jobs"]
    assert job["status"] == "unworkable"


def test_what_one_control_plane_is_told_the_other_tells(planes: Planes, start_agent: StartAgent) -> None:
    first, second = planes
    start_agent("one", first.url)
    with Client(first.url, token="") as here, Client(second.url, token="") as there:
        job = here.submit("simulation", {"duration_ms": 500, "steps": 5, "result": 7})
        seen = list(there.stream(job.job_id, WAIT_S))
        assert (seen[-1].ok, seen[-1].result) == (True, 7)
        assert [state.done for state in seen].count(True) == 1
        fractions = [state.fraction for state in seen if state.fraction is not None]
        assert fractions
        assert fractions == sorted(fractions)


def test_jobs_that_end_in_an_instant_are_never_missed(plane: ControlPlane, start_agent: StartAgent) -> None:
    start_agent("one", plane.url)
    with Client(plane.url, token="") as client:
        for number in range(100):
            assert client.run("simulation", {"duration_ms": 0, "result": number}, wait_s=WAIT_S) == number


def test_a_running_job_is_cancelled_while_somebody_waits(plane: ControlPlane, start_agent: StartAgent) -> None:
    start_agent("one", plane.url)
    with Client(plane.url, token="") as client:
        job = client.submit("simulation", {"duration_ms": 60_000})
        with meanwhile(lambda: client.wait(job.job_id, WAIT_S)) as outcome:
            eventually_sync(lambda: client.get(job.job_id).status in {"assigned", "in_progress"}, WAIT_S)
            began_s = time.monotonic()
            client.cancel(job.job_id)
        assert outcome[0].status == "cancelled"
        assert time.monotonic() - began_s < WAIT_S / 2


async def test_a_follower_that_does_not_read_holds_nobody_up(plane: ControlPlane, start_agent: StartAgent) -> None:
    start_agent("one", plane.url)
    async with (
        AsyncClient(plane.url, token="") as client,
        aiohttp.ClientSession(plane.url, read_bufsize=1024) as session,
        session.ws_connect("/ws/client/slow", max_msg_size=0) as slow,
    ):
        big = "x" * 20_000
        job_ids = await client.submit_many(
            [NewJob("simulation", {"duration_ms": 1, "result": {"n": n, "big": big}}) for n in range(300)]
        )
        await slow.send_str(json.dumps({"type": "subscribe_job", "job_ids": job_ids}))  # and it does not read
        assert {job.status for job in await client.wait_all(job_ids, WAIT_S)} == {"completed"}
        ends: Counter[str] = Counter()

        async def read_all() -> bool:
            message = json.loads(await slow.receive_str(timeout=10))
            if message["type"] == "complete_job":
                ends[message["job_id"]] += 1
            return len(ends) == len(job_ids)

        await eventually(read_all, WAIT_S)
        assert ends == Counter(job_ids)


def test_a_token_that_may_not_is_told_so(tmp_path: Any) -> None:
    plane = ControlPlane(tmp_path / "guarded", env=QUICK | {"MUSTER_TOKEN": "first"})
    plane.start()
    try:
        viewer = plane.post("/api/v1/tokens", {"name": "eye", "role": "viewer"})["token"]
        with Client(plane.url, token="first") as admin:
            job = admin.submit("simulation")
        with Client(plane.url, token=viewer) as eye:
            assert eye.get(job.job_id).job_id == job.job_id
            with pytest.raises(Forbidden):
                eye.submit("simulation")
        with Client(plane.url, token="wrong") as nobody:
            with pytest.raises(Unauthorized):
                nobody.get(job.job_id)
            with pytest.raises(Forbidden):
                nobody.wait(job.job_id, WAIT_S)
    finally:
        plane.kill()

"""Clocks that are wrong by hours, an agent's own and the control plane's, over every link."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import FAST
from tests.faults.test_kills import all_events, assert_each_completed_once, health, submit
from tests.muster_process import ControlPlane, MusterProcess, free_port
from tests.rabbitmq import RabbitMq
from tests.waiting import eventually_sync

# Found by every Python that starts with this folder on its path. The shift is read from a file with each look at the
# clock, so that a test can set the clock of a process that runs.
SET_THE_CLOCK = """
import pathlib, time
_file = pathlib.Path(__file__).with_name("shift_s")
_time, _time_ns = time.time, time.time_ns
def _shift_s():
    return float(_file.read_text() or 0)
time.time = lambda: _time() + _shift_s()
time.time_ns = lambda: _time_ns() + int(_shift_s() * 1e9)
"""

HOUR_S = 3600.0

StartAgent = Callable[[str, str, float], MusterProcess]


class WrongClock:
    """A clock for a process, that is as wrong as one says."""

    def __init__(self, folder: Path, shift_s: float = 0.0) -> None:
        folder.mkdir(parents=True)
        self._file = folder / "shift_s"
        self.set(shift_s)
        (folder / "sitecustomize.py").write_text(SET_THE_CLOCK)
        self.env = {"PYTHONPATH": str(folder)}

    def set(self, shift_s: float) -> None:
        written = self._file.with_suffix(".new")
        written.write_text(str(shift_s))
        written.replace(self._file)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RabbitMq]:
    broker = RabbitMq(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    agents: list[MusterProcess] = []

    def start(node_id: str, url: str, shift_s: float) -> MusterProcess:
        env = FAST | {
            "MUSTER_CONTROL_PLANE": url,
            "MUSTER_NODE_ID": node_id,
            "MUSTER_DATA_DIR": str(tmp_path / node_id / "data"),
        }
        clock = WrongClock(tmp_path / node_id / "clock", shift_s)
        agents.append(MusterProcess(tmp_path / node_id, "agent", env=env | clock.env).start())
        return agents[-1]

    yield start
    for agent in agents:
        agent.kill()


def test_an_agents_clock_wrong_by_hours_has_no_effect_on_its_health(
    tmp_path: Path, broker: RabbitMq, start_agent: StartAgent
) -> None:
    grpc = f"127.0.0.1:{free_port()}"
    plane = ControlPlane(tmp_path / "plane", env=FAST | {"MUSTER_GRPC_LISTEN": grpc, "MUSTER_RABBITMQ_URL": broker.url})
    urls = {"http": plane.url, "grpc": f"grpc://{grpc}", "amqp": broker.url}
    try:
        plane.start()
        agents = {
            f"{link}-{name}": start_agent(f"{link}-{name}", url, shift_s)
            for link, url in urls.items()
            for name, shift_s in (("ahead", 5 * HOUR_S), ("behind", -5 * HOUR_S))
        }
        healthy = dict.fromkeys(agents, "healthy")
        eventually_sync(lambda: health(plane) == healthy, 60)
        job_ids = submit(plane, 12, duration_ms=200)
        assert_each_completed_once(plane, job_ids)
        assert health(plane) == healthy
        agents["http-behind"].kill()
        agents["amqp-ahead"].kill()
        lost = {"http-behind": "dead", "amqp-ahead": "dead"}
        eventually_sync(lambda: health(plane) == healthy | lost, 60)
        told = {(event["key"], event["kind"]) for event in all_events(plane) if event["kind"] == "node_stale"}
        assert told == {(node_id, "node_stale") for node_id in lost}
    finally:
        plane.kill()


def seen_ms(plane: ControlPlane) -> list[int]:
    return [node["last_seen_ms"] for node in plane.get("/api/v1/nodes")]


def heard_hours_from(before_ms: int, plane: ControlPlane) -> bool:
    return all(abs(at_ms - before_ms) > 1000 * HOUR_S / 2 for at_ms in seen_ms(plane))


def test_a_control_plane_whose_clock_is_set_calls_nobody_late(tmp_path: Path, start_agent: StartAgent) -> None:
    clock = WrongClock(tmp_path / "clock")
    plane = ControlPlane(tmp_path / "plane", env=FAST | {"MUSTER_GRPC_LISTEN": "none"} | clock.env)
    try:
        plane.start()
        agent = start_agent("one", plane.url, 0.0)
        start_agent("two", plane.url, 0.0)
        eventually_sync(lambda: health(plane) == {"one": "healthy", "two": "healthy"}, 60)
        for shift_s in (HOUR_S, -HOUR_S):
            before_ms = max(seen_ms(plane))
            clock.set(shift_s)
            eventually_sync(partial(heard_hours_from, before_ms, plane), 30)
        assert [event["key"] for event in all_events(plane) if event["kind"] in {"node_stale", "node_dead"}] == []
        agent.kill()
        eventually_sync(lambda: health(plane) == {"one": "dead", "two": "healthy"}, 60)
        clock.set(0.0)
        eventually_sync(lambda: health(plane) == {"one": "dead", "two": "healthy"}, 30)
    finally:
        plane.kill()

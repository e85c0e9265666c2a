"""The rows of the test plan's future areas: scale, reliability, consistency, security, and figures for the record."""

import json
import socket
import ssl
import stat
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Any, Self

import psutil
import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from tests.conformance.queue.conftest import FLEET_GPUS, FLEET_MACHINES, GPUS, Site
from tests.conformance.queue.live import TERMINAL
from tests.forked import ForkedProcess
from tests.integration.access.test_for_real import BOOTSTRAP, QUIET, SealedPlane
from tests.muster_process import MusterProcess
from tests.valkey_server import ValkeyServer
from tests.waiting import eventually_sync

Record = Callable[[str, object], None]

JOBS = 1000


def ends_told(site: Site) -> Counter[str]:
    """Return how often the log tells an end of each job."""
    kinds = {f"job_{status}" for status in TERMINAL}
    return Counter(job_id for fact in site.facts() if fact["kind"] in kinds for job_id in fact["ids"] or [fact["key"]])


def figures(jobs: list[dict[str, Any]]) -> dict[str, float]:
    waits_ms = [job["started_at"] - job["created_at"] for job in jobs]
    takes_ms = [job["completed_at"] - job["created_at"] for job in jobs]
    return {
        f"{name}_{part}_ms": quantiles(times, n=100)[percent - 1]
        for name, times in (("wait", waits_ms), ("latency", takes_ms))
        for part, percent in (("p50", 50), ("p95", 95))
    }


class Sampler:
    """Looks again and again while something happens; what a look finds wrong fails the test."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.looks = 0
        self.found: list[BaseException] = []

    def _run(self) -> None:
        while not self._over.is_set() and not self.found:
            try:
                self._look()
                self.looks += 1
            except BaseException as error:  # noqa: BLE001 - told where the test can fail
                self.found.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for error in self.found:
            raise error


# --- scale and figures ----------------------------------------------------------------------------------------------


def test_g1_one_machine_and_one_job(site: Site) -> None:
    before = site.counts()
    (job,) = site.wait_for_ends(site.submit())
    assert job["status"] == "completed"
    assert site.counts() == before | {"completed": before["completed"] + 1}


def test_g1_and_g7_thirty_machines_and_a_thousand_jobs(fleet: Site, record_property: Record) -> None:
    before = fleet.counts()
    plane = psutil.Process(fleet.plane.pid)
    cpu_s = sum(plane.cpu_times()[:2])
    began_s = time.monotonic()

    job_ids = fleet.submit(JOBS)
    eventually_sync(lambda: fleet.counts()["completed"] == before["completed"] + JOBS, 60)

    took_s = time.monotonic() - began_s
    assert fleet.counts() == before | {"completed": before["completed"] + JOBS}
    completed = fleet.completed()
    jobs = [completed[job_id] for job_id in job_ids]
    assert Counter(job["status"] for job in jobs) == {"completed": JOBS}
    told = ends_told(fleet)
    assert {told[job_id] for job_id in job_ids} == {1}
    assert len(fleet.workers()) == FLEET_MACHINES * FLEET_GPUS
    record_property("jobs_per_s", JOBS / took_s)
    record_property("control_plane_cpu_s", sum(plane.cpu_times()[:2]) - cpu_s)
    record_property("control_plane_rss_mb", plane.memory_info().rss / 2**20)
    for name, value in figures(jobs).items():
        record_property(name, value)


def test_f3_s_throughput_for_each_number_of_gpus(bare: Site, record_property: Record) -> None:
    for gpus in (1, 2, 4, 8):
        pool = f"throughput-{gpus}"
        machine = bare.machines({pool: gpus}, env={"MUSTER_LABELS": f"test={pool}"})
        bare.wait_for_workers(gpus, pool)
        requirements = {"labels": {"test": pool}}
        began_s = time.monotonic()
        jobs = bare.wait_for_ends(bare.submit(12 * gpus, duration_ms=50, requirements=requirements))
        record_property(f"jobs_per_s_with_{gpus}_gpus", len(jobs) / (time.monotonic() - began_s))
        assert {job["worker_id"] for job in jobs} == {f"{pool}-worker-{index}" for index in range(gpus)}
        machine.kill()


# --- reliability ----------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[ValkeyServer]:
    """Keep every write, as a store must of which nothing may be lost."""
    store = ValkeyServer("valkey", "--appendonly", "yes", "--appendfsync", "always")
    store.start()
    yield store
    store.remove()


def test_g2_jobs_and_monitors_outlive_the_loss_of_the_store(store: ValkeyServer, tmp_path: Path) -> None:
    site = Site(tmp_path, {"MUSTER_VALKEY_URL": store.url})
    try:
        site.start()
        site.machines({"machine-a": 4, "machine-b": 4})
        site.wait_for_workers(8)
        with site.live() as live:
            live.wait_for_snapshot()
            site.plane.post("/api/queues/all/pause")  # however long the submits take, the work comes after them
            job_ids = site.submit(150, duration_ms=100)
            site.plane.post("/api/queues/all/resume")
            eventually_sync(lambda: 10 <= site.counts()["completed"] < 120, 30)

            store.kill()
            eventually_sync(lambda: refused(site), 30)
            store.start()

            job_ids += eventually_sync(site.submit, 30)
            jobs = site.wait_for_ends(job_ids)
            live.wait_for(lambda live: live.ended() >= set(job_ids))
            assert not live.broken
        assert Counter(job["status"] for job in jobs) == {"completed": len(job_ids)}
        assert ends_told(site) == Counter(job_ids)
        assert site.counts()["completed"] == len(job_ids)
        site.wait_for_workers(8)
    finally:
        site.remove()


def refused(site: Site) -> bool:
    try:
        site.plane.get("/api/v1/stats")
    except (AssertionError, OSError):
        return True
    return False


def test_g3_jobs_of_a_killed_machine_run_again_once_elsewhere(own_site: Site) -> None:
    victim = own_site.machine("victim")
    own_site.machine("survivor")
    own_site.wait_for_workers(2 * GPUS)
    job_ids = own_site.submit(2 * GPUS, duration_ms=3000)
    eventually_sync(lambda: own_site.counts()["assigned"] + own_site.counts()["in_progress"] == len(job_ids), 30)
    lost = {job_id for job_id in job_ids if own_site.job(job_id)["worker_id"].startswith("victim-")}
    assert len(lost) == GPUS

    victim.kill()

    eventually_sync(lambda: own_site.machine_shown("victim")["status"] == "offline", 30)
    jobs = own_site.wait_for_ends(job_ids)
    assert {job["status"] for job in jobs} == {"completed"}
    assert {job["worker_id"] for job in jobs} <= {f"survivor-worker-{index}" for index in range(GPUS)}
    assert {job["job_id"]: job["attempt"] for job in jobs} == {job_id: 1 + (job_id in lost) for job_id in job_ids}
    assert ends_told(own_site) == Counter(job_ids)


def test_g3_a_silent_machine_is_offline_at_the_stale_limit(own_site: Site) -> None:
    own_site.beat("silent", heartbeat_interval_s=0.5, workers=[])
    eventually_sync(lambda: own_site.machine_shown("silent")["health_status"] == "stale", 30)
    assert own_site.machine_shown("silent")["status"] == "offline"


# --- consistency ----------------------------------------------------------------------------------------------------


def test_g4_at_any_moment_each_job_is_in_one_place(own_site: Site) -> None:
    count = 45  # each list shows 50
    accepted: list[str] = []

    def look() -> None:
        known = set(accepted)
        state = own_site.state()
        lists = state["jobs"]
        found = Counter(job["job_id"] for jobs in lists.values() for job in jobs)
        assert set(found.values()) <= {1}, f"shown twice: {[name for name, times in found.items() if times > 1]}"
        assert known <= found.keys(), f"not shown: {known - found.keys()}"
        assert all(job["status"] in {"pending", "unworkable"} for job in lists["pending"])
        assert all(job["status"] in {"assigned", "in_progress"} for job in lists["active"])
        counted = sum(own_site.counts().values())
        assert len(known) <= counted <= count

    own_site.machines({"machine-a": 2, "machine-b": 2})
    own_site.wait_for_workers(4)
    with Sampler(look) as sampler:
        for _ in range(count):
            accepted += own_site.submit(duration_ms=40)
        own_site.wait_for_ends(accepted)
    assert sampler.looks > 5
    assert ends_told(own_site) == Counter(accepted)


def test_g4_what_the_log_tells_of_a_job_follows_its_life(fleet: Site) -> None:
    job_ids = fleet.submit(50, duration_ms=20)
    fleet.wait_for_ends(job_ids)
    told: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
    for fact in fleet.facts():
        for job_id in fact["ids"] or [fact["key"]]:
            if job_id in told:
                told[job_id].append(fact["kind"])
    for kinds in told.values():
        assert (kinds[0], kinds[-1]) == ("job_submitted", "job_completed")
        assert all(before != after for before, after in pairwise(kinds))


# --- security -------------------------------------------------------------------------------------------------------


class ForkedSealedPlane(ForkedProcess, SealedPlane):
    """Made as the others here are."""


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedPlane]:
    plane = ForkedSealedPlane(tmp_path_factory.mktemp("sealed"), QUIET)
    plane.start()
    yield plane
    plane.stop()


def answer_to(plane: SealedPlane, path: str, token: str | None, body: bytes | None = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    trust = ssl.create_default_context(cafile=plane.cert_file)
    try:
        request = urllib.request.Request(plane.url + path, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize("token", [None, "wrong"])
@pytest.mark.parametrize("path", ["/api/monitor/state", "/api/events/monitor", "/api/jobs", "/api/v1/nodes"])
def test_g6_without_a_valid_token_the_answer_is_401(sealed: SealedPlane, path: str, token: str | None) -> None:
    assert answer_to(sealed, path, token)[0] == 401


def test_g6_with_the_token_and_over_tls_the_state_is_told(sealed: SealedPlane) -> None:
    status, body = answer_to(sealed, "/api/monitor/state", BOOTSTRAP)
    assert (status, body["success"]) == (200, True)


@pytest.mark.parametrize("token", [None, "wrong"])
def test_g6_without_a_valid_token_a_socket_is_closed_with_1008(sealed: SealedPlane, token: str | None) -> None:
    trust = ssl.create_default_context(cafile=sealed.cert_file)
    url = sealed.url.replace("https", "wss") + "/ws/monitor/me"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with (
        websockets.sync.client.connect(url, ssl=trust, additional_headers=headers) as ws,
        pytest.raises(ConnectionClosed) as closed,
    ):
        ws.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"payload": {}}, "service_required"),
        ({"service_required": ""}, "service_required"),
        ({"service_required": "simulation", "priority": "high"}, "priority"),
        ({"service_required": "simulation", "max_retries": -1}, "max_retries"),
        ({"service_required": "simulation", "timeout_s": 0}, "timeout_s"),
        ({"service_required": "simulation", "no_such_field": 1}, "no_such_field"),
        ({"service_required": "simulation", "payload": {"duration_ms": -1}}, "duration_ms"),
        ({"service_required": "simulation", "payload": {"x": "y" * 1_100_000}}, "payload"),
        ({"service_required": "simulation", "job_id": "no spaces please"}, "job_id"),
        ([1, 2], ""),
        ("{", ""),
    ],
)
def test_g6_an_invalid_job_is_refused_with_the_reason_and_not_stored(site: Site, body: Any, field: str) -> None:
    before = site.counts()
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    request = urllib.request.Request(f"{site.plane.url}/api/jobs", data, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code in {400, 413, 422}
    answer = json.loads(refused.value.read())
    assert answer["retriable"] is False
    assert field in json.dumps([answer["message"], answer.get("field")])
    assert site.counts() == before


def test_g6_nobody_else_reaches_the_embedded_store(site: Site) -> None:
    (server,) = [
        child for child in psutil.Process(site.plane.pid).children(recursive=True) if "valkey-server" in child.name()
    ]
    assert server.net_connections("tcp") == []
    (path,) = {connection.laddr for connection in server.net_connections("unix")} - {""}
    assert stat.S_IMODE(Path(str(path)).stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(str(path)).parent.stat().st_mode) == 0o700


def test_g6_a_wrong_password_of_the_store_is_told_and_not_shown(store: ValkeyServer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(store.socket))
        client.sendall(b"CONFIG SET requirepass s3cret\r\n")
        assert client.recv(16) == b"+OK\r\n"
    wrong = Site(tmp_path / "wrong", {"MUSTER_VALKEY_URL": f"{store.url}?password=not-the-word"})
    right = Site(tmp_path / "right", {"MUSTER_VALKEY_URL": f"{store.url}?password=s3cret"})
    try:
        MusterProcess.start(wrong.plane)
        assert wrong.plane.wait() != 0
        assert "password" in wrong.plane.log
        assert "not-the-word" not in wrong.plane.log
        assert right.start().submit()
        assert "s3cret" not in right.plane.log
    finally:
        wrong.remove()
        right.remove()

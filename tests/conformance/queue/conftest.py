"""The machines of the document and larger fleets, against real processes and a real store.

What only looks shares two sites: the document's one machine with its two GPUs, and a fleet of thirty.
Whatever breaks something has an `own_site`.
"""

import http.client
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.queue.live import TERMINAL, Live
from tests.forked import MOTHER, ForkedPlane, ForkedProcess
from tests.muster_process import MusterProcess
from tests.waiting import eventually_sync

MACHINE = "basic-machine-local"
GPUS = 2
FLEET_MACHINES = 30
FLEET_GPUS = 4
FLEET_POOLS = ("even", "odd")
# Everything that waits is made short; the rules are the same.
FAST = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_HEARTBEAT_INTERVAL_S": "0.5",
    "MUSTER_JOB_LEASE_S": "2",
    "MUSTER_JOB_SWEEP_S": "0.1",
    "MUSTER_JOB_RETRY_BASE_S": "0.1",
    "MUSTER_STOP_TIMEOUT_S": "1",
}
QUIET = FAST | {"MUSTER_HEARTBEAT_INTERVAL_S": "5", "MUSTER_JOB_LEASE_S": "15"}  # for fleets that share a few cores

Job = dict[str, Any]


class Machines(ForkedProcess):
    """Many machines in one process."""

    def __init__(self, folder: Path, gpus_of: Mapping[str, int], env: Mapping[str, str]) -> None:
        named = [f"{name}={gpus}" for name, gpus in gpus_of.items()]
        super().__init__(folder, "machines", str(folder), *named, env=env)

    def _words(self) -> list[str]:
        return ["tests.conformance.queue.machines", *self.arguments]


class Site:
    """A control plane, whatever runs at it, and what a person asks of it."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.env = FAST | dict(env)
        self.plane = ForkedPlane(folder / "plane", env=self.env)
        self.watch: Live | None = None
        self._machines: list[MusterProcess] = []

    def start(self) -> "Site":
        self.plane.start()
        return self

    def remove(self) -> None:
        for process in self._machines:
            process.kill()
        self.plane.kill()

    def machine(
        self, machine_id: str = MACHINE, gpus: int = GPUS, env: Mapping[str, str] | None = None
    ) -> MusterProcess:
        """Start an agent as the document's container configures it."""
        folder = self.folder / machine_id
        process = ForkedProcess(
            folder,
            "agent",
            env=self.env
            | {
                "CONTROL_PLANE_ADDR": self.plane.url,
                "MACHINE_ID": machine_id,
                "NUM_GPUS": str(gpus),
                "MUSTER_DATA_DIR": str(folder / "data"),
            }
            | dict(env or {}),
        )
        self._machines.append(process)
        return process.start()

    def machines(self, gpus_of: Mapping[str, int], env: Mapping[str, str] | None = None) -> MusterProcess:
        folder = self.folder / f"machines-{len(self._machines)}"
        settings = self.env | {"CONTROL_PLANE_ADDR": self.plane.url} | dict(env or {})
        process = Machines(folder, gpus_of, settings)
        self._machines.append(process)
        return process.start()

    def beat(self, machine_id: str, seq: int = 1, **fields: Any) -> None:
        """Report as the agent of such a machine does."""
        body = {"facts": {"node_id": machine_id}, "boot_id": f"{machine_id}-boot", "seq": seq} | fields
        self.plane.post("/api/agent/heartbeat", {"heartbeat_interval_s": 30} | body)

    def live(self, *, machines: str = "", last_event_id: str | None = None) -> Live:
        return Live(self.plane.url, machines=machines, last_event_id=last_event_id)

    # --- the state ----------------------------------------------------------------------------------------------------

    def state(self, query: str = "limit=1000") -> Any:
        answer = self.plane.get(f"/api/monitor/state?{query}")
        assert answer["success"] is True
        return answer["data"]

    def machine_shown(self, machine_id: str = MACHINE) -> dict[str, Any]:
        return next((found for found in self.state()["machines"] if found["machine_id"] == machine_id), {})

    def workers(self, machine_id: str = "") -> list[dict[str, Any]]:
        return [worker for worker in self.state()["workers"] if machine_id in ("", worker["machine_id"])]

    def wait_for_workers(self, count: int, machine_id: str = "", timeout_s: float = 60) -> None:
        """Wait until there are exactly so many, all idle."""
        eventually_sync(
            lambda: [worker["status"] for worker in self.workers(machine_id)] == ["idle"] * count, timeout_s
        )

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def submit(self, count: int = 1, duration_ms: float = 0, **fields: Any) -> list[str]:
        """Submit over one kept-alive connection; return the ids."""
        job = {"service_required": "simulation", "payload": {"duration_ms": duration_ms, "steps": 2}} | fields
        connection = http.client.HTTPConnection("127.0.0.1", self.plane.port, timeout=10)
        job_ids = []
        for _ in range(count):
            connection.request("POST", "/api/jobs", json.dumps(job), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = json.loads(answer.read())
            assert answer.status == 201, body
            job_ids.append(body["job_id"])
        connection.close()
        return job_ids

    def job(self, job_id: str) -> Job:
        return self.plane.job(job_id)

    def counts(self) -> dict[str, int]:
        return dict(self.plane.get("/api/v1/stats")["jobs"])

    def wait_for_ends(self, job_ids: list[str], timeout_s: float = 60) -> list[Job]:
        """Wait until all have ended; return them."""
        connection = http.client.HTTPConnection("127.0.0.1", self.plane.port, timeout=10)

        def ended(job_id: str) -> Job:
            try:
                connection.request("GET", f"/api/jobs/{job_id}")
                answer = json.loads(connection.getresponse().read())
            except http.client.HTTPException as error:
                connection.close()
                raise ConnectionError(str(error)) from error
            job = answer.get("job", {})
            return dict(job) if job.get("status") in TERMINAL else {}

        jobs = [eventually_sync(partial(ended, job_id), timeout_s) for job_id in job_ids]
        connection.close()
        return jobs

    def completed(self) -> dict[str, Job]:
        """Return all that completed, by id: of many it is too much to ask for each."""
        found: list[Job] = []
        path = "/api/jobs?status=completed&limit=500"
        page = self.plane.get(path)
        found += page["jobs"]
        while page["next_cursor"]:
            page = self.plane.get(f"{path}&cursor={page['next_cursor']}")
            found += page["jobs"]
        return {job["job_id"]: job for job in found}

    def facts(self) -> list[dict[str, Any]]:
        """Return the whole log."""
        facts: list[dict[str, Any]] = []
        after = "0"
        while page := self.plane.get(f"/api/events?limit=1000&after={after}")["events"]:
            facts += page
            after = page[-1]["id"]
        return facts


@pytest.fixture(scope="package", autouse=True)
def _mother() -> Iterator[None]:
    yield
    MOTHER.stop()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run the document's machine; its monitor was open before it started and stays so."""
    site = Site(tmp_path_factory.mktemp("site"), {}).start()
    site.watch = site.live()
    site.machine()
    site.wait_for_workers(GPUS)
    yield site
    site.watch.close()
    site.remove()


@pytest.fixture(scope="package")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a control plane alone: tests speak for machines of their own."""
    site = Site(tmp_path_factory.mktemp("bare"), {}).start()
    yield site
    site.remove()


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run thirty machines with four GPUs each, in two pools."""
    site = Site(tmp_path_factory.mktemp("fleet"), QUIET).start()
    for parity, pool in enumerate(FLEET_POOLS):
        names = [f"machine-{number:03}" for number in range(FLEET_MACHINES) if number % 2 == parity]
        site.machines(dict.fromkeys(names, FLEET_GPUS), env={"MUSTER_POOL": pool})
    site.wait_for_workers(FLEET_MACHINES * FLEET_GPUS)
    yield site
    site.remove()


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, {}).start()
    yield site
    site.remove()

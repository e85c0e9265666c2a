"""The fleet as the control plane told it last: a snapshot, and every change since."""

from collections import deque
from collections.abc import Sequence

from muster.cli.top.lines import Row, is_line, machine_of, workers_of
from muster.domain.job import ACTIVE, TERMINAL, JobStatus

_JOBS_MAX = 1_000
_RATE_OVER_S = 10.0
_WAITING = frozenset({JobStatus.PENDING, JobStatus.UNWORKABLE})


class Picture:
    """What stream events and answers say, put together. Applying one twice is harmless."""

    def __init__(self) -> None:
        self.machines: dict[str, Row] = {}
        self.workers: dict[str, list[Row]] = {}
        self.jobs: dict[str, Row] = {}
        self.stats: Row = {}
        self.queues: Sequence[Row] | None = None  # None: not known yet
        self.complete = False  # a snapshot has come
        self.selective = False  # of most nodes there is only a line
        self.ahead_ms = 0  # the control plane's clock, seen from ours
        self._answered: deque[tuple[float, int]] = deque()

    def take(self, event: Row, now_s: float, now_ms: int) -> None:
        """Take in one event; kinds that are not known are left to newer versions."""
        if "timestamp" in event:
            self.ahead_ms = event["timestamp"] - now_ms
        match event["type"]:
            case "full_state_snapshot":
                self._begin(event["data"], now_s)
            case "system_stats":
                self._note_stats(event["data"], now_s)
            case "job_update" | "job_progress":
                self._take_job(event)
            case _:
                self._take_node(event)

    def _take_job(self, event: Row) -> None:
        if event["type"] == "job_update":
            self.jobs[event["job"]["job_id"]] = event["job"]
            self._forget_jobs()
        elif event["job_id"] in self.jobs:
            self.jobs[event["job_id"]] = {**self.jobs[event["job_id"]], "progress": event["progress"]}

    def _take_node(self, event: Row) -> None:
        match event["type"]:
            case "machine_update":
                machine_id = event["machine"]["machine_id"]
                self.machines[machine_id] = event["machine"]
                self.workers[machine_id] = event["workers"]
            case "machine_removed":
                self._remove(event["machine_id"])
            case "machine_lines":
                for line in event["lines"]:
                    self._put_line(line)
                for machine_id in event["removed"]:
                    self._remove(machine_id)
            case "periodic_status_update" if event["machine_id"] in self.machines:
                signs = {"status": event["status"], "last_seen": event["last_seen"]}
                self.machines[event["machine_id"]] = {**self.machines[event["machine_id"]], **signs}

    def take_state(self, pages: Sequence[Row]) -> None:
        """Take in the pages of one whole state."""
        first = pages[0]
        machines = [machine for page in pages for machine in page["machines"]]
        workers = [worker for page in pages for worker in page["workers"]]
        self._begin({**first, "machines": machines, "workers": workers}, 0.0)

    def take_waiting(self, jobs: Sequence[Row]) -> None:
        """Take in the first in line as they are now: that somebody came who can run them is no event of theirs.

        What has been claimed since they were read is known better.
        """
        for job in jobs:
            known = self.jobs.get(job["job_id"])
            if known is None or known["status"] in _WAITING:
                self.jobs[job["job_id"]] = job

    @property
    def requests_per_s(self) -> float | None:
        """What the gateway answered over the last seconds; None until that can be said."""
        if len(self._answered) < 2:  # noqa: PLR2004 - a rate needs two
            return None
        (from_s, before), (to_s, now) = self._answered[0], self._answered[-1]
        return (now - before) / (to_s - from_s) if to_s > from_s else None

    def _put_line(self, line: Row) -> None:
        """Take in a line, unless more is known of that node."""
        machine_id = line["machine_id"]
        known = self.machines.get(machine_id)
        if known is None or is_line(known):
            self.machines[machine_id] = machine_of(line)
            self.workers[machine_id] = workers_of(line)

    def _remove(self, machine_id: str) -> None:
        self.machines.pop(machine_id, None)
        self.workers.pop(machine_id, None)

    def _begin(self, data: Row, now_s: float) -> None:
        self.machines = {machine["machine_id"]: machine for machine in data["machines"]}
        self.workers = {}
        self.selective = "lines" in data
        for line in data.get("lines", ()):
            self._put_line(line)
        for worker in data["workers"]:
            self.workers.setdefault(worker["machine_id"], []).append(worker)
        self.jobs = {job["job_id"]: job for jobs in data["jobs"].values() for job in jobs}
        self._note_stats(data["system_stats"], now_s)
        self.complete = True

    def _note_stats(self, stats: Row, now_s: float) -> None:
        if stats.get("started_at") != self.stats.get("started_at"):
            self._answered.clear()  # another process: it counts anew
        self.stats = stats
        self._answered.append((now_s, stats["gateway"]["requests_total"]))
        while len(self._answered) > 2 and now_s - self._answered[0][0] > _RATE_OVER_S:  # noqa: PLR2004 - as above
            self._answered.popleft()

    def _forget_jobs(self) -> None:
        """Keep a bound: what has ended goes first, then what waits; what runs is shown longest."""
        if len(self.jobs) <= _JOBS_MAX:
            return
        dear = sorted(self.jobs.values(), key=_dearness)
        self.jobs = {job["job_id"]: job for job in dear[len(dear) - _JOBS_MAX * 9 // 10 :]}


def _dearness(job: Row) -> tuple[int, int]:
    if job["status"] in TERMINAL:
        return 0, job.get("completed_at") or 0
    if job["status"] in ACTIVE:
        return 2, 0
    return 1, -job["created_at"]

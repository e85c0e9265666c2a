import msgspec
from msgspec import Struct, field

from muster.domain.job import JobSpec, JobState, Lease, Settlement
from muster.ids import JobId, SessionId, WorkerId
from muster.stores.paging import Place


class Record(Struct, kw_only=True):
    spec: JobSpec
    signature: str
    score: int
    state: JobState
    deadline_ms: int = 0  # of the running attempt
    expires_ms: int | None = None  # the deadline of the job itself
    unmet: set[JobId] = field(default_factory=set)  # jobs that it waits for
    avoid_until_ms: int | None = None  # set while it waits in line without its avoided worker
    settled_for: SessionId | None = None  # whose attempt ended last: tells a repeat from a late one

    @property
    def job_id(self) -> JobId:
        return self.spec.job_id

    @property
    def place(self) -> Place:
        return (self.score, self.spec.job_id)

    def change(self, **fields: object) -> None:
        self.state = msgspec.structs.replace(self.state, **fields)

    def repeats(self, session_id: SessionId, settlement: Settlement) -> bool:
        """Tell whether the attempt has already ended just so, for this session: a reply was lost, nothing is late."""
        return (
            self.settled_for == session_id
            and self.state.attempt == settlement.attempt
            and self.state.status is settlement.status
        )

    def lost_lease(self, session_id: SessionId, worker_id: WorkerId, expired: str) -> Lease:
        return Lease(
            spec=self.spec,
            attempt=self.state.attempt,
            retry_count=self.state.retry_count,
            worker_id=worker_id,
            session_id=session_id,
            expired=expired,
        )


def is_due(at_ms: int | None, now_ms: int) -> bool:
    return at_ms is not None and at_ms <= now_ms

"""Who is there to work: sessions, the classes they belong to, and the jobs they hold."""

from collections.abc import Iterator, Mapping

from msgspec import Struct, field

from muster.domain.capability import Capability
from muster.domain.job import JobSpec
from muster.ids import JobId, SessionId, WorkerId
from muster.jobs import matching
from muster.ports import CapabilityClass


class Session(Struct, kw_only=True):
    worker_id: WorkerId
    class_id: str
    ends_ms: int
    leases: dict[JobId, int] = field(default_factory=dict)  # job id -> attempt


class _Class(Struct, kw_only=True):
    capability: Capability
    unused_since_ms: int | None = None
    verdicts: dict[tuple[str, str | None], bool] = field(default_factory=dict)  # by signature and customer


class Workers:
    def __init__(self) -> None:
        self.sessions: dict[SessionId, Session] = {}
        self.idle: set[str] = set()  # classes that asked for a wake-up
        self._classes: dict[str, _Class] = {}

    def join(
        self, session_id: SessionId, worker_id: WorkerId, capability: Capability, now_ms: int, lease_ms: int
    ) -> None:
        class_id = matching.class_id(capability)
        self._classes.setdefault(class_id, _Class(capability=capability)).unused_since_ms = None
        session = self.sessions.get(session_id)
        if session is None:
            self.sessions[session_id] = Session(worker_id=worker_id, class_id=class_id, ends_ms=now_ms + lease_ms)
            return
        left, session.class_id = session.class_id, class_id
        session.worker_id, session.ends_ms = worker_id, now_ms + lease_ms
        self._note_unused(left, now_ms)

    def leave(self, session_id: SessionId, now_ms: int) -> None:
        session = self.sessions.pop(session_id, None)
        if session is not None:
            self._note_unused(session.class_id, now_ms)

    def leases(self, session_id: SessionId | None) -> Mapping[JobId, int]:
        session = self.sessions.get(session_id) if session_id is not None else None
        return session.leases if session is not None else {}

    def can_run(self, class_id: str, signature: str, spec: JobSpec) -> bool:
        verdicts, kind = self._classes[class_id].verdicts, (signature, spec.customer_id)
        if kind not in verdicts:
            verdicts[kind] = not matching.match(spec.need, self._classes[class_id].capability, spec.customer_id)
        return verdicts[kind]

    def somebody_can_run(self, signature: str, spec: JobSpec) -> bool:
        """Tell whether a class with sessions can, whether or not they are still heard."""
        return any(
            self.can_run(class_id, signature, spec)
            for class_id in dict.fromkeys(session.class_id for session in self.sessions.values())
        )

    def others_can_run(self, worker_id: WorkerId, signature: str, spec: JobSpec, now_ms: int) -> bool:
        return any(
            session.worker_id != worker_id
            and session.ends_ms > now_ms
            and self.can_run(session.class_id, signature, spec)
            for session in self.sessions.values()
        )

    def classes(self) -> Iterator[CapabilityClass]:
        for class_id, known in self._classes.items():
            yield CapabilityClass(class_id=class_id, capability=known.capability, sessions=self._sessions_of(class_id))

    def forget(self, unused_until_ms: int, signatures: set[str]) -> None:
        """Drop classes that nobody has had for long, and verdicts on signatures that no job has."""
        for class_id, known in list(self._classes.items()):
            if known.unused_since_ms is not None and known.unused_since_ms <= unused_until_ms:
                del self._classes[class_id]
                self.idle.discard(class_id)
            else:
                known.verdicts = {kind: able for kind, able in known.verdicts.items() if kind[0] in signatures}

    def _note_unused(self, class_id: str, now_ms: int) -> None:
        if not self._sessions_of(class_id):
            self._classes[class_id].unused_since_ms = now_ms

    def _sessions_of(self, class_id: str) -> int:
        return sum(session.class_id == class_id for session in self.sessions.values())

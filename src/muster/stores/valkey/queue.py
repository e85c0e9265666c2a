from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from muster.domain.capability import Capability
from muster.domain.job import JobSpec, Settlement
from muster.errors import StoreUnavailable
from muster.ids import JobId, SessionId, WorkerId, check_name
from muster.jobs import matching
from muster.ports import Claimed, Renewed, Submitted
from muster.stores import rules
from muster.stores.valkey.matchmaker import Matchmaker
from muster.stores.valkey.rows import (
    claimed_of,
    customer_of,
    is_plain,
    kind_of,
    needs_of,
    settlement_args,
    submit_args,
)
from muster.stores.valkey.server import Server
from muster.wire import ProgressReport, encode

_JOBS_PER_CALL = 250  # a script keeps everybody else waiting: a few milliseconds at most
_BYTES_PER_CALL = 4_194_304
_CLAIM_BYTES_MAX = 16_777_216
_STORED, _MISSING, _TOO_MANY = 1, -1, -2  # what submit.lua says
_UNKNOWN = -1  # what its short way says of a signature
_FRONTS_MAX = 1024
_TRIES_MAX = 5  # one does, unless a purge comes in between

_Entries = Sequence[tuple[JobSpec, Sequence[Any]]]  # with what submit.lua takes for each


class ValkeyQueue:
    """A JobQueue. Nearly all of it is in the scripts."""

    def __init__(self, server: Server, matchmaker: Matchmaker, *, result_bytes_max: int) -> None:
        self._server = server
        self._matchmaker = matchmaker
        self._result_bytes_max = result_bytes_max
        self._front_of_call = lru_cache(_FRONTS_MAX)(
            lambda now_ms, *kind: server.packed_call("submit_one", now_ms, kind_of(*kind), more=2)
        )

    async def submit(self, specs: Sequence[JobSpec]) -> list[Submitted]:
        if len(specs) == 1 and (call := self._short_call(specs[0])) is not None:
            outcome = await self._server.send(call)
            if outcome != _UNKNOWN:
                return [Submitted(specs[0].job_id, bool(outcome))]
        submitted = []
        parts = list(_submit_calls(specs))
        if len(parts) > 1:
            await self._admit([entry for part in parts for entry in part])
        for part in parts:
            created = await self._submit(part, admitted=len(parts) > 1)
            submitted += [
                Submitted(job_id=spec.job_id, created=new) for (spec, _), new in zip(part, created, strict=True)
            ]
        return submitted

    def _short_call(self, spec: JobSpec) -> bytes | None:
        """Pack the short way of a plain job: all but id and specification are the same for job after job."""
        if not is_plain(spec):
            return None
        front = self._front_of_call(self._server.now_ms, encode(spec.need), spec.timeout_s, spec.priority)
        job_id, body = check_name(spec.job_id, "job_id").encode(), encode(spec)
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (front, len(job_id), job_id, len(body), body)

    async def _admit(self, entries: _Entries) -> None:
        """Refuse all that cannot be taken together, before the first of several calls has stored some of it."""
        args = [value for spec, _ in entries for value in (spec.job_id, customer_of(spec), needs_of(spec))]
        outcome, *reply = await self._server.run("admit", len(entries), *args)
        _check(outcome, reply, entries)

    async def _submit(self, part: _Entries, *, admitted: bool) -> list[bool]:
        args = [value for _, fields in part for value in fields]
        for _ in range(_TRIES_MAX):
            outcome, *reply = await self._server.run("submit", len(part), int(admitted), *args)
            if outcome == _STORED:
                return [bool(new) for new in reply]
            _check(outcome, reply, part)
            unknown = {name.decode() for name in reply}
            await self._matchmaker.add_signatures(
                {fields[0]: matching.normalised(spec.need) for spec, fields in part if fields[0] in unknown}
            )
        raise StoreUnavailable("signatures are forgotten faster than they are added; try again")

    async def open_session(
        self, session_id: SessionId, worker_id: WorkerId, capability: Capability, lease_s: float
    ) -> None:
        rules.check_session(session_id, worker_id)
        class_id = matching.class_id(capability)
        for _ in range(_TRIES_MAX):
            if await self._server.run("open_session", session_id, worker_id, class_id, _ms(lease_s)):
                return
            await self._matchmaker.add_class(class_id, capability)
        raise StoreUnavailable("classes are forgotten faster than they are added; try again")

    async def claim(
        self,
        session_id: SessionId,
        worker_id: WorkerId,  # noqa: ARG002 - the session knows whose it is
        want: int,
        done: Sequence[Settlement] = (),
        *,
        lease_s: float,
        mark_idle: bool = False,
    ) -> Claimed:
        refused: list[JobId] = []
        *before, last = list(_slices(done)) or [done]
        for part in before:
            refused += (await self._claim(session_id, 0, part, lease_s, mark_idle=False)).refused
        claimed = await self._claim(session_id, want, last, lease_s, mark_idle=mark_idle)
        if not refused:
            return claimed
        return Claimed(jobs=claimed.jobs, refused=(*refused, *claimed.refused), session_known=claimed.session_known)

    async def _claim(
        self,
        session_id: SessionId,
        want: int,
        done: Sequence[Settlement],
        lease_s: float,
        *,
        mark_idle: bool,
    ) -> Claimed:
        known, refused, *jobs = await self._server.run(
            "claim",
            session_id,
            want,
            _ms(lease_s),
            int(mark_idle),
            _CLAIM_BYTES_MAX,
            len(done),
            *settlement_args(self._bounded(done)),
        )
        return Claimed(jobs=tuple(claimed_of(jobs)), refused=_ids(refused or ()), session_known=bool(known))

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        accepted: list[bool] = []
        for part in _slices(settlements):
            accepted += map(bool, await self._server.run("settle", len(part), *settlement_args(self._bounded(part))))
        return accepted

    async def renew(
        self, session_id: SessionId, held: Sequence[tuple[JobId, int]], *, lease_s: float, grace_s: float
    ) -> Renewed:
        flat = [value for pair in held for value in pair]
        known, lost, returned = await self._server.run("renew", session_id, _ms(lease_s), _ms(grace_s), *flat)
        return Renewed(lost=_ids(lost), returned=_ids(returned), session_known=bool(known))

    async def record_progress(self, session_id: SessionId, reports: Sequence[ProgressReport]) -> list[JobId]:
        flat = [value for report in reports for value in (report.job_id, report.attempt, encode(report.progress))]
        return list(_ids(await self._server.run("progress", session_id, *flat)))

    async def close_session(self, session_id: SessionId) -> list[JobId]:
        return list(_ids(await self._server.run("close_session", session_id)))

    def _bounded(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        return [rules.bounded(settlement, self._result_bytes_max) for settlement in settlements]


def _check(outcome: int, reply: Sequence[Any], entries: _Entries) -> None:
    if outcome == _MISSING:
        raise rules.no_such_dependency(_ids(reply))
    if outcome == _TOO_MANY:
        customer, waiting = reply[0].decode(), reply[1]
        named = next(spec.customer_id for spec, _ in entries if customer_of(spec) == customer)
        raise rules.too_many_wait(named or "", waiting)


def _submit_calls(specs: Sequence[JobSpec]) -> Iterator[list[tuple[JobSpec, Sequence[Any]]]]:
    """Cut a submit into calls that are bounded in jobs and bytes."""
    part: list[tuple[JobSpec, Sequence[Any]]] = []
    size = 0
    for spec in specs:
        check_name(spec.job_id, "job_id")
        fields = submit_args(spec)
        if part and (len(part) == _JOBS_PER_CALL or size + len(fields[-1]) > _BYTES_PER_CALL):
            yield part
            part, size = [], 0
        part.append((spec, fields))
        size += len(fields[-1])
    if part:
        yield part


def _slices(settlements: Sequence[Settlement]) -> Iterator[Sequence[Settlement]]:
    for start in range(0, len(settlements), _JOBS_PER_CALL):
        yield settlements[start : start + _JOBS_PER_CALL]


def _ids(reply: Sequence[bytes]) -> tuple[JobId, ...]:
    return tuple(JobId(name.decode()) for name in reply)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

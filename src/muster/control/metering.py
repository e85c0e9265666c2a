"""What is used, at work: taken in for every answer, written behind, told to the other control planes and heard of them.

What waits to be written is lost with the process: about a second of it. What is written is written once, whatever
happens to the connection.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec
import structlog
from msgspec import Struct

from muster import metrics as m
from muster.clock import Clock
from muster.control.access import Access
from muster.domain.usage import ANONYMOUS, By, Spent, Sum, Use, day_of, hour_of, summed
from muster.errors import InvalidInput
from muster.ids import JobId, WorkerId
from muster.metrics import Metric
from muster.ports import JobIndex, UsageStore
from muster.rounds import Rounds

log = structlog.get_logger()

_EVERY_S = 1.0
_FORGET_EVERY_S = 3600.0
_HOURS_KEPT_MS = 8 * 86_400_000
_DAYS_AT_ONCE_MAX = 1100
_HOURS_AT_ONCE_MAX = 24 * 9
_WAITING_MAX = 10_000  # sums, and jobs, that wait to be written
_SERIES_MAX = 1000
_JOULES_PER_MWH = 3.6
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000


class _Batch(Struct):
    """What is on its way to the store, under one name until it has arrived."""

    name: str
    sums: list[Sum]
    spent: dict[str, Spent]
    at_ms: int


class _JobUse(Struct, frozen=True):
    job_id: JobId
    worker: WorkerId
    model: str
    prompt_tokens: int
    completion_tokens: int


class _Counts(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Result(Struct):
    """As much of a result as tells what it cost."""

    usage: _Counts | None = None
    model: str = ""


_result = msgspec.json.Decoder(_Result)


class Metering:
    """A Lifecycle. `leads` says who forgets what has been kept for long enough."""

    def __init__(
        self,
        store: UsageStore,
        jobs: JobIndex,
        access: Access,
        clock: Clock,
        *,
        plane_id: str,
        retention_s: float,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._access = access
        self._clock = clock
        self._plane_id = plane_id
        self._retention_ms = round(retention_s * 1000)
        self._leads = leads
        self._sums: dict[tuple[int, str, str], Sum] = {}
        self._of_jobs: list[_JobUse] = []
        self._batch: _Batch | None = None
        self._batches = 0
        self._forget_at_s = clock.monotonic_s()
        self._tokens: dict[tuple[str, ...], float] = {}
        self._joules: dict[tuple[str, ...], float] = {}
        self._rounds = Rounds()

    async def start(self) -> None:
        """Know what was used before the first request comes."""
        if not self._rounds:
            await self._hear()
            self._rounds.go("metering", self.sync, _EVERY_S)

    async def stop(self) -> None:
        await self._rounds.stop(last=self.sync)

    # --- taken in ----------------------------------------------------------------------------------------------------

    def take(self, *uses: Use) -> None:
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic_s()
        hour_ms = hour_of(now_ms)
        for use in uses:
            account = self._access.account_of(use.token)
            if account is not None:
                account.take(use, now_ms, now_s)
            key = (hour_ms, use.token, use.model)
            known = self._sums.get(key)
            if known is None:
                if len(self._sums) >= _WAITING_MAX:
                    key = (hour_ms, use.token, m.OTHER)
                known = self._sums.setdefault(key, Sum(at_ms=hour_ms, token=use.token, model=key[2]))
            known.take(use)

    def _count(self, one: Sum) -> None:
        for kind, count in (("prompt", one.prompt_tokens), ("completion", one.completion_tokens)):
            _bump(self._tokens, (one.token, one.model, kind), (m.OTHER, m.OTHER, kind), count)
        if one.metered:
            _bump(self._joules, (one.model,), (m.OTHER,), one.energy_mwh * _JOULES_PER_MWH)

    def job_done(self, job_id: JobId, worker_id: WorkerId, result: object) -> None:
        """Take what a job's result says that it cost; whose job it was is looked up later."""
        if not isinstance(result, msgspec.Raw) or b'"usage"' not in bytes(result) or len(self._of_jobs) >= _WAITING_MAX:
            return
        try:
            found = _result.decode(result)
        except msgspec.DecodeError:
            return  # another connector's, and it means something else by that word
        if found.usage is not None and found.usage.prompt_tokens + found.usage.completion_tokens > 0:
            counts = found.usage
            self._of_jobs.append(
                _JobUse(job_id, worker_id, found.model, counts.prompt_tokens, counts.completion_tokens)
            )

    # --- written, told and heard -------------------------------------------------------------------------------------

    async def sync(self) -> None:
        await self._take_jobs()
        batch = self._next_batch()
        if batch is not None:
            await self._store.add(batch.name, batch.sums, batch.spent, batch.at_ms)
            self._batch = None
        await self._hear()
        now_s = self._clock.monotonic_s()
        if now_s >= self._forget_at_s and self._leads():
            self._forget_at_s = now_s + _FORGET_EVERY_S
            now_ms = self._clock.now_ms()
            await self._store.forget(now_ms - _HOURS_KEPT_MS, now_ms - self._retention_ms)

    def _next_batch(self) -> _Batch | None:
        """Return what has not arrived, or else what is new: what was sent once keeps its name."""
        if self._batch is None:
            told = {account.token_id: spent for account in self._access.accounts() if (spent := account.tell())}
            if self._sums or told:
                self._batches += 1
                name = f"{self._plane_id}-{self._batches}"
                self._batch = _Batch(name, list(self._sums.values()), told, self._clock.now_ms())
                for one in self._sums.values():
                    self._count(one)
                self._sums = {}
        return self._batch

    async def _hear(self) -> None:
        now_ms = self._clock.now_ms()
        spent = await self._store.spent(now_ms)
        for account in self._access.accounts():
            account.hear(spent.get(account.token_id) or Spent(), now_ms)

    async def _take_jobs(self) -> None:
        if not self._of_jobs:
            return
        waiting = list(self._of_jobs)
        jobs = await self._jobs.get([use.job_id for use in waiting])
        del self._of_jobs[: len(waiting)]
        for use, job in zip(waiting, jobs, strict=True):
            if job is None:
                continue
            models = job.spec.requirements.models
            started_ms, ended_ms = job.state.started_at, job.state.completed_at
            self.take(
                Use(
                    token=job.spec.submitted_by or ANONYMOUS,
                    model=models[0] if models else use.model,
                    worker=use.worker,
                    prompt_tokens=use.prompt_tokens,
                    completion_tokens=use.completion_tokens,
                    worker_ms=ended_ms - started_ms if started_ms is not None and ended_ms is not None else 0,
                )
            )

    # --- read --------------------------------------------------------------------------------------------------------

    async def read(self, from_ms: int | None, to_ms: int | None, by: Sequence[By]) -> list[Sum]:
        """Sum up the days, or hours, from the one time on and before the other; otherwise the last 30 days."""
        hourly = By.HOUR in by
        unit_ms = _HOUR_MS if hourly else _DAY_MS
        begin = hour_of if hourly else day_of
        # Who asks may have a clock ahead of ours.
        last_ms = max(self._clock.now_ms(), from_ms or 0) if to_ms is None else to_ms - 1
        until_ms = begin(last_ms) + unit_ms
        since_ms = begin(until_ms - (_DAY_MS if hourly else 30 * _DAY_MS) if from_ms is None else from_ms)
        most = _HOURS_AT_ONCE_MAX if hourly else _DAYS_AT_ONCE_MAX
        if not 0 < until_ms - since_ms <= most * unit_ms:
            raise InvalidInput(
                f"`from` must be before `to`, and at most {most} {'hours' if hourly else 'days'} before it",
                field="from",
            )
        return summed(await self._store.read(since_ms, until_ms, hourly=hourly), by)

    def metrics(self) -> Iterator[Metric]:
        """Tell what was written, or is about to be: up to a second ago."""
        yield m.GATEWAY_TOKENS.of(self._tokens)
        yield m.GATEWAY_ENERGY.of(self._joules)


def _bump(counts: dict[tuple[str, ...], float], key: tuple[str, ...], other: tuple[str, ...], by: float) -> None:
    """Count for this series, or for all others together once there are as many as there may be."""
    if key not in counts and len(counts) >= _SERIES_MAX:
        key = other
    counts[key] = counts.get(key, 0) + by

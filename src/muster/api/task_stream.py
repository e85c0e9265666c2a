"""A task as its client follows it: `started`, its text as it grows, and exactly one `end` or `error`."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from muster.control.jobs.service import JobService
from muster.domain.job import TERMINAL, Job, JobStatus
from muster.errors import MusterError, ShuttingDown
from muster.events.hub import Hub
from muster.ids import JobId
from muster.sse import KEEP_ALIVE, frame


class Follower:
    """What one client has been told. `last_event_id` is where an earlier connection of it ended."""

    def __init__(self, last_event_id: str | None) -> None:
        attempt, _, sent = (last_event_id or "").partition(".")
        fits = attempt.isascii() and attempt.isdigit() and sent.isascii() and sent.isdigit()
        self._attempt = int(attempt[:9]) if fits else 0
        self._sent = int(sent[:9]) if fits else 0
        self._count = 0
        self.done = False

    def take(self, job: Job, *, tokens: bool = True) -> Iterator[bytes]:
        """Yield what is new; without `tokens` the text is kept back."""
        state = job.state
        if self._sent and state.attempt != self._attempt:
            yield self._error("restarted", "another worker began the answer anew", retriable=True)
            return
        if tokens and state.progress is not None and state.progress.text is not None:
            begin = self._sent - state.progress.text_at
            if begin >= 0:  # else the window has passed us by: the rest comes with the result
                yield from self._token(state.progress.text[begin:], state.attempt)
        if state.status is JobStatus.COMPLETED:
            result = msgspec.json.decode(state.result) if isinstance(state.result, Raw) else None
            yield from self._completed(job, result)
        elif state.status in TERMINAL:
            error = None if state.status is JobStatus.CANCELLED else state.error
            code = error.code if error else state.status.value
            message = error.message if error else f"the task was {state.status}"
            yield self._error(code, message, retriable=bool(error and error.retriable))

    def fail(self, error: MusterError) -> bytes:
        return self._error(error.code, error.message, retriable=error.retriable)

    def _completed(self, job: Job, result: Any) -> Iterator[bytes]:
        text = _text_of(result)
        yield from self._token((text or "")[self._sent :], job.state.attempt)
        self.done = True
        started, ended = job.state.started_at, job.state.completed_at
        said: dict[str, Any] = {
            "task_id": job.job_id,
            "tokens_out": _tokens_of(result),
            "decode_time_ms": ended - started if started and ended else None,
        }
        yield _event("end", said if text is not None else said | {"result": result})

    def _token(self, text: str, attempt: int) -> Iterator[bytes]:
        if text:
            self._sent += len(text)
            self._attempt = attempt
            yield _event("token", {"t": text, "i": self._count}, f"{attempt}.{self._sent}")
            self._count += 1

    def _error(self, code: str, message: str, *, retriable: bool) -> bytes:
        self.done = True
        return _event("error", {"code": code, "message": message, "retriable": retriable})


class TaskStreams:
    """All open streams; `on_ended` hears of each task that was followed to its end."""

    def __init__(self, jobs: JobService, hub: Hub, on_ended: Callable[[Job], None]) -> None:
        self._jobs = jobs
        self._hub = hub
        self._on_ended = on_ended
        self._open: Counter[JobId] = Counter()
        self._cancelled: set[JobId] = set()

    async def events(self, job_id: JobId, last_event_id: str | None) -> AsyncIterator[bytes]:
        follower = Follower(last_event_id)
        self._open[job_id] += 1
        try:
            yield _event("started", {"task_id": job_id, "queue_position": await self._jobs.position(job_id) or 0})
            async for touched in self._hub.touches(job_id):
                if not touched:
                    yield KEEP_ALIVE
                job = await self._jobs.get(job_id)
                # From here to the yield nothing is awaited, so no token follows a cancel that was answered.
                if frames := b"".join(follower.take(job, tokens=job_id not in self._cancelled)):
                    yield frames
                if follower.done:
                    self._on_ended(job)
                    return
            yield follower.fail(ShuttingDown("Muster is stopping: follow the task again by its id"))
        except MusterError as error:  # the answer has begun: it is told in the stream
            yield follower.fail(error)
        finally:
            self._close(job_id)

    async def cancel(self, job_id: JobId) -> None:
        """Raise JobNotFound, or InvalidTransition when it has ended otherwise; again is no error."""
        self._cancelled.add(job_id)
        try:
            job = await self._jobs.get(job_id)
            if job.state.status is not JobStatus.CANCELLED:
                await self._jobs.cancel(job_id)
        except MusterError:
            self._cancelled.discard(job_id)
            raise
        finally:
            if job_id not in self._open:
                self._cancelled.discard(job_id)

    def _close(self, job_id: JobId) -> None:
        self._open[job_id] -= 1
        if not self._open[job_id]:
            del self._open[job_id]
            self._cancelled.discard(job_id)


def _event(name: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    return frame(data, event_id, name)


def _text_of(result: Any) -> str | None:
    """Return what the model said, in OpenAI's forms and the simulation's; None for what is no text."""
    if not isinstance(result, dict):
        return None
    choices = result.get("choices")
    said = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else result
    message = said.get("message")
    text = message.get("content") if isinstance(message, dict) else said.get("text")
    return text if isinstance(text, str) else None


def _tokens_of(result: Any) -> int | None:
    usage = result.get("usage") if isinstance(result, dict) else None
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None

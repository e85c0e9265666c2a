"""A client's jobs over one WebSocket: submitted, cancelled and followed, however many they are."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from litestar import websocket
from litestar.params import FromPath
from msgspec import UNSET
from msgspec.structs import replace

from muster.access.book import Caller
from muster.access.roles import SEES_OWN_JOBS_ONLY, Right
from muster.api.entry import ADMIT
from muster.api.jobs import SubmitJob, accept
from muster.api.plane import Plane, ThePlane
from muster.api.sockets import AnySocket, converse
from muster.api.views import JobView, job_view
from muster.domain.job import Job
from muster.errors import InvalidInput, JobNotFound, MusterError, QueueFull
from muster.events.followers import Change, Follower
from muster.ids import JobId
from muster.wire import clients, decode
from muster.wire.codec import invalid

FOLLOWED_MAX = 10_000
_ENVELOPE = frozenset({"type", "id", "timestamp", "source", "client_id"})


@websocket("/ws/client/{client_id:str}")
async def client_socket(socket: AnySocket, plane: ThePlane, client_id: FromPath[str]) -> None:
    """Answer each request in its turn, and tell what becomes of the jobs that are followed."""
    await socket.accept()
    with plane.hub.followers.follower() as follower:
        talk = _Talk(socket, plane, follower)
        await talk.greet(client_id)
        await converse(socket, client_id, talk.tell(), talk.hear())


class _Talk:
    def __init__(self, socket: AnySocket, plane: Plane, follower: Follower) -> None:
        self._socket = socket
        self._plane = plane
        self._admit: Callable[[], Caller] = socket.scope["state"][ADMIT]
        self._caller: Caller = socket.user
        self._follower = follower

    async def greet(self, client_id: str) -> None:
        await self._send(clients.ConnectionEstablished(client_id=client_id, subscriptions_max=FOLLOWED_MAX))

    async def tell(self) -> None:
        async for changes in self._plane.hub.followers.changes(self._follower):
            for change in changes:
                await self._send(_told(change))

    async def hear(self) -> None:
        while (event := await self._socket.receive())["type"] == "websocket.receive":
            text = event.get("text")
            await self._answer(text.encode() if text is not None else event.get("bytes") or b"")

    async def _send(self, message: clients.Told) -> None:
        message = replace(message, timestamp=self._plane.clock.now_ms())
        await self._socket.send_text(msgspec.json.encode(message).decode())

    # --- what is asked ------------------------------------------------------------------------------------------------

    async def _answer(self, data: bytes) -> None:
        asked = clients.Asked(type="")
        try:
            asked = decode(data, clients.Asked)
            action = _ACTIONS.get(asked.type)
            if action is None:
                raise InvalidInput(f"type must be one of {', '.join(_ACTIONS)}, got {asked.type!r}", field="type")
            self._caller = self._admit()  # his token may be revoked by now, and each request counts as one
            await action(self, data)
        except MusterError as error:
            await self._send(_error(error, asked.id))

    async def submit(self, data: bytes) -> None:
        self._caller.admitted(Right.SUBMIT)
        self._check_room(1)
        body = decode(data, dict[str, Any])
        message_id = body.get("id")
        (answer,) = await accept(self._plane, self._caller, [_wanted(body)])
        await self._send(
            clients.JobAccepted(
                message_id=message_id, job_id=answer.job_id, status=answer.job.status, created=answer.created
            )
        )
        self._follower.follow(JobId(answer.job_id))

    async def cancel(self, data: bytes) -> None:
        self._caller.admitted(Right.CANCEL_JOB)
        asked = decode(data, clients.CancelJob)
        await self._own(asked.job_id)
        job = await self._plane.jobs.cancel(JobId(asked.job_id))
        await self._send(
            clients.Ack(
                message_id=asked.id, original_type="cancel_job", job_id=asked.job_id, status=job.state.status.value
            )
        )

    async def status(self, data: bytes) -> None:
        asked = decode(data, clients.RequestJobStatus)
        job = job_view(await self._own(asked.job_id), whole=True)
        await self._send(
            clients.ResponseJobStatus(message_id=asked.id, job_id=asked.job_id, status=job.status, job=job)
        )

    async def subscribe(self, data: bytes) -> None:
        asked = decode(data, clients.SubscribeJob)
        job_ids = await self._visible(asked.id, _ids_of(asked.job_id, asked.job_ids))
        self._check_room(sum(job_id not in self._follower for job_id in job_ids))
        await self._send(clients.SubscriptionConfirmed(message_id=asked.id, job_ids=tuple(job_ids)))
        for job_id in job_ids:
            self._follower.follow(job_id, asked.after.get(job_id))

    async def unsubscribe(self, data: bytes) -> None:
        asked = decode(data, clients.UnsubscribeJob)
        for job_id in _ids_of(asked.job_id, asked.job_ids):
            self._follower.leave(job_id)
        await self._send(clients.Ack(message_id=asked.id, original_type="unsubscribe_job", job_id=asked.job_id))

    # --- what may be --------------------------------------------------------------------------------------------------

    def _check_room(self, wanted: int) -> None:
        if len(self._follower) + wanted > FOLLOWED_MAX:
            raise QueueFull(
                f"a connection may follow {FOLLOWED_MAX} jobs that have not ended; this one follows "
                f"{len(self._follower)}: unsubscribe from some, or open another",
                field="job_ids",
            )

    async def _own(self, job_id: str) -> Job:
        job = await self._plane.jobs.get(JobId(job_id))
        if not self._caller.sees_jobs_of(job.spec.submitted_by):
            raise _unknown(job_id)
        return job

    async def _visible(self, message_id: str | None, job_ids: Sequence[JobId]) -> Sequence[JobId]:
        """Leave out the jobs of others, where they are not for this caller's eyes; each of them is said to be none."""
        if self._caller.role not in SEES_OWN_JOBS_ONLY:
            return job_ids
        found = await self._plane.jobs.get_many(job_ids)
        own = {job.job_id for job in found if self._caller.sees_jobs_of(job.spec.submitted_by)}
        for job_id in job_ids:
            if job_id not in own:
                await self._send(_error(_unknown(job_id), message_id, job_id))
        return [job_id for job_id in job_ids if job_id in own]


_ACTIONS: Mapping[str, Callable[[_Talk, bytes], Awaitable[None]]] = {
    "submit_job": _Talk.submit,
    "cancel_job": _Talk.cancel,
    "request_job_status": _Talk.status,
    "subscribe_job": _Talk.subscribe,
    "unsubscribe_job": _Talk.unsubscribe,
}


def _wanted(body: Mapping[str, Any]) -> SubmitJob:
    """Read the job in a message, whose `id` is the message's own: a job's is its `job_id`."""
    try:
        return msgspec.convert({name: value for name, value in body.items() if name not in _ENVELOPE}, SubmitJob)
    except msgspec.ValidationError as error:
        raise invalid(error) from None


def _ids_of(job_id: str | None, job_ids: Sequence[str]) -> list[JobId]:
    wanted = list(dict.fromkeys(JobId(one) for one in (*([job_id] if job_id else []), *job_ids)))
    if not 1 <= len(wanted) <= clients.JOBS_PER_MESSAGE_MAX:
        raise InvalidInput(
            f"name 1 to {clients.JOBS_PER_MESSAGE_MAX} jobs in job_id or job_ids, got {len(wanted)}", field="job_ids"
        )
    return wanted


def _unknown(job_id: str) -> JobNotFound:
    return JobNotFound(f"no job {job_id!r} of yours, or its time to be kept is over", field="job_id")


def _told(change: Change) -> clients.Told:
    job_id = change.job_id
    if change.progress is not None:
        moved = change.progress
        percent = None if moved.fraction is None else round(moved.fraction * 100, 2)
        return clients.UpdateJobProgress(
            job_id=job_id,
            progress=percent,
            fraction=moved.fraction,
            message=moved.message,
            text=moved.text,
            text_at=moved.text_at,
        )
    if not isinstance(change.job, JobView):
        return _error(_unknown(job_id), None, job_id)
    job = change.job
    slim = replace(job, payload=UNSET, result=UNSET)
    if not job.final:
        return clients.JobUpdate(event_id=job.version, job_id=job_id, status=job.status, job=slim)
    return clients.CompleteJob(
        event_id=job.version,
        job_id=job_id,
        status=job.status,
        worker_id=job.worker_id,
        result=None if job.result is UNSET else job.result,
        error=job.error,
        job=slim,
    )


def _error(error: MusterError, message_id: str | None, job_id: str | None = None) -> clients.Error:
    return clients.Error(
        message_id=message_id,
        job_id=job_id,
        error=error.message,
        code=error.code,
        retriable=error.retriable,
        field=error.field,
        retry_after_ms=None if error.retry_after_s is None else int(error.retry_after_s * 1000),
    )

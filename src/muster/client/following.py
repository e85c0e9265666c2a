"""Many waits on one WebSocket: opened when somebody waits, opened again when it breaks, and nobody notices.

What a job has come to is asked anew with each connection, so whatever happened while there was none is not missed.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Protocol, get_args

import aiohttp
import msgspec

from muster.client.connection import Connection, Pauses
from muster.client.errors import NotTrusted, Refused, Unreachable, error_of
from muster.client.jobs import Job, job_of
from muster.domain.job import JobStatus, Progress
from muster.errors import Forbidden, MusterError
from muster.ids import base32
from muster.wire import clients, encode

_IDLE_S = 10.0
_ASK_AGAIN_S = 1.0
_STEADY_S = 5.0  # a connection that lasted so long is no sign of trouble

_kind = msgspec.json.Decoder(clients.Asked)
_told = msgspec.json.Decoder(clients.Told)
_KNOWN = frozenset(kind.__struct_config__.tag for kind in get_args(clients.Told))


class Listener(Protocol):
    """Somebody who waits for jobs. It must take what it is told at once."""

    def told(self, job: Job) -> None: ...
    def failed(self, job_id: str, error: MusterError) -> None: ...


class _Followed:
    """One job, for all who wait for it here."""

    def __init__(self, job_id: str) -> None:
        self.job = Job(job_id=job_id)
        self.event_id: str | None = None
        self.listeners: list[Listener] = []


class Following:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._followed: dict[str, _Followed] = {}
        self._waiting: dict[str, None] = {}  # to be subscribed to
        self._leaving: dict[str, None] = {}
        self._subscribed: set[str] = set()
        self._asked: dict[str, tuple[str, ...]] = {}  # by message, until it is confirmed
        self._numbers = count(1)
        self._room = 0  # until the control plane has said how many it takes
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._client_id = f"py-{base32(random.getrandbits(60), 12)}"  # a name, not a secret

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator["Listening"]:
        """Let a listener follow jobs until the end of the block."""
        listening = Listening(self, listener)
        try:
            yield listening
        finally:
            listening.leave_all()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._fail_all(Unreachable("the client was closed while this waited"))

    def add(self, job_id: str, listener: Listener) -> None:
        followed = self._followed.get(job_id)
        if followed is None:
            followed = self._followed[job_id] = _Followed(job_id)
            self._leaving.pop(job_id, None)
            self._waiting[job_id] = None
            self._changed.set()
        elif followed.event_id is not None:
            listener.told(followed.job)
        followed.listeners.append(listener)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="muster-client-following")

    def drop(self, job_id: str, listener: Listener) -> None:
        followed = self._followed.get(job_id)
        if followed is None:
            return
        followed.listeners = [other for other in followed.listeners if other is not listener]
        if not followed.listeners:
            if job_id in self._subscribed:
                self._leaving[job_id] = None
            self._forget(job_id)

    def _forget(self, job_id: str) -> _Followed | None:
        self._waiting.pop(job_id, None)
        self._subscribed.discard(job_id)
        self._changed.set()
        return self._followed.pop(job_id, None)

    # --- the connection -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Stay connected while somebody waits, and a little longer."""
        heard_s = time.monotonic()
        pauses = Pauses()
        try:
            while self._followed:
                begun_s = time.monotonic()
                try:
                    async with await self._connection.socket(f"/ws/client/{self._client_id}") as socket:
                        await self._converse(socket)
                    heard_s = time.monotonic()
                    if heard_s - begun_s > _STEADY_S:
                        pauses = Pauses()
                except Unreachable as error:
                    if isinstance(error, NotTrusted) or time.monotonic() - heard_s > self._connection.give_up_after_s:
                        raise
                if self._followed:
                    self._connection.ask_another()
                    await asyncio.sleep(pauses.next_s())
        except MusterError as error:
            self._fail_all(error)
        except msgspec.DecodeError as error:
            self._fail_all(Refused(f"{self._connection.url} said what cannot be understood: {error}"))
        except Exception as error:
            self._fail_all(Refused(f"a fault of this client: {type(error).__name__}: {error}"))
            raise

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Return at the end of a connection on which something was heard; raise otherwise."""
        self._subscribed.clear()
        self._leaving.clear()
        self._asked.clear()
        self._room = 0
        self._waiting = dict.fromkeys(self._followed)
        heard = False
        asking = asyncio.create_task(self._ask(socket), name="muster-client-asking")
        try:
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                heard = True
                self._hear(message.data)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        if message.type is aiohttp.WSMsgType.CLOSE and message.data == aiohttp.WSCloseCode.POLICY_VIOLATION:
            raise Forbidden(message.extra or "the control plane does not let this token follow jobs")
        if not heard:
            raise Unreachable(
                f"{self._connection.url} closed the connection at once: {message.extra or message.type.name}"
            )

    async def _ask(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Subscribe to what is waited for, as far as there is room, and leave what is not any more."""
        while True:
            if self._leaving:
                leaving = tuple(islice(self._leaving, clients.JOBS_PER_MESSAGE_MAX))
                for job_id in leaving:
                    del self._leaving[job_id]
                await socket.send_bytes(encode(clients.UnsubscribeJob(job_ids=leaving)))
            elif job_ids := self._next():
                after = {
                    job_id: event_id for job_id in job_ids if (event_id := self._followed[job_id].event_id) is not None
                }
                message_id = f"{next(self._numbers)}"
                self._asked[message_id] = job_ids
                await socket.send_bytes(encode(clients.SubscribeJob(id=message_id, job_ids=job_ids, after=after)))
            else:
                self._changed.clear()
                try:
                    async with asyncio.timeout(None if self._followed else _IDLE_S):
                        await self._changed.wait()
                except TimeoutError:
                    await socket.close()
                    return

    def _next(self) -> tuple[str, ...]:
        room = min(self._room - len(self._subscribed), clients.JOBS_PER_MESSAGE_MAX)
        job_ids = tuple(islice(self._waiting, max(0, room)))
        for job_id in job_ids:
            del self._waiting[job_id]
        self._subscribed.update(job_ids)
        return job_ids

    # --- what is heard ------------------------------------------------------------------------------------------------

    def _hear(self, text: str) -> None:
        if _kind.decode(text).type not in _KNOWN:
            return  # of a newer control plane; what matters here has not changed its name
        message = _told.decode(text)
        match message:
            case clients.ConnectionEstablished():
                self._room = message.subscriptions_max
                self._changed.set()
            case clients.SubscriptionConfirmed(message_id=str(message_id)):
                self._asked.pop(message_id, None)
            case clients.JobUpdate() if (followed := self._followed.get(message.job_id)) is not None:
                followed.event_id = message.event_id
                self._tell(followed, job_of(message.job))
            case clients.UpdateJobProgress() if (followed := self._followed.get(message.job_id)) is not None:
                progress = Progress(
                    fraction=message.fraction, message=message.message, text=message.text, text_at=message.text_at
                )
                running = msgspec.structs.replace(followed.job, status=JobStatus.IN_PROGRESS.value, progress=progress)
                self._tell(followed, running)
            case clients.CompleteJob() if (followed := self._forget(message.job_id)) is not None:
                self._tell(followed, _ended(message))
            case clients.Error():
                self._refused(message)

    def _tell(self, followed: _Followed, job: Job) -> None:
        followed.job = job
        for listener in list(followed.listeners):
            listener.told(job)

    def _refused(self, message: clients.Error) -> None:
        error = error_of(msgspec.to_builtins(message))
        if message.job_id is not None:
            self._fail([message.job_id], error)
        elif message.message_id is not None:
            job_ids = self._asked.pop(message.message_id, ())
            if error.retriable:  # too often, or too many
                pause_s = error.retry_after_s or _ASK_AGAIN_S
                asyncio.get_running_loop().call_later(pause_s, self._ask_again, job_ids)
            else:
                self._fail(job_ids, error)

    def _ask_again(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            if job_id in self._subscribed:
                self._subscribed.discard(job_id)
                self._waiting[job_id] = None
        self._changed.set()

    def _fail(self, job_ids: Iterable[str], error: MusterError) -> None:
        for job_id in job_ids:
            if (followed := self._forget(job_id)) is not None:
                for listener in list(followed.listeners):
                    listener.failed(job_id, error)

    def _fail_all(self, error: MusterError) -> None:
        self._fail(list(self._followed), error)


class Listening:
    """The jobs that one listener follows."""

    def __init__(self, following: Following, listener: Listener) -> None:
        self._following = following
        self._listener = listener
        self._job_ids: set[str] = set()

    def follow(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            self._job_ids.add(job_id)
            self._following.add(job_id, self._listener)

    def leave(self, job_id: str) -> None:
        self._job_ids.discard(job_id)
        self._following.drop(job_id, self._listener)

    def leave_all(self) -> None:
        for job_id in list(self._job_ids):
            self.leave(job_id)


def _ended(message: clients.CompleteJob) -> Job:
    return msgspec.structs.replace(job_of(message.job), result=message.result)

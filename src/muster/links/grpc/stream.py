"""The control plane's end of one agent's stream: many calls at a time, each answered when it is done."""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from muster.errors import InvalidInput, MusterError, PayloadTooLarge, QueueFull
from muster.ids import NodeId
from muster.links.calls import HEARTBEAT, REGISTER, call_named
from muster.links.grpc.agent_control_pb2 import Call, Reply
from muster.links.grpc.service import CALLS_MAX
from muster.ports import JobLink, NodeLink
from muster.wire import decode, encode

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Call, Reply]

_LAST_ANSWERS_S = 0.5
_RETRY_AFTER_S = 1.0
_NO_REPLY = b"null"
_BROKEN = MusterError("something broke in the control plane; its log has the details")


class AgentStream:
    """`node_id` is the node that was heard on it last."""

    def __init__(self, context: Context, nodes: NodeLink, jobs: JobLink, *, body_bytes_max: int) -> None:
        self._context = context
        self._nodes = nodes
        self._jobs = jobs
        self._body_bytes_max = body_bytes_max
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._replies: asyncio.Queue[Reply | None] = asyncio.Queue(CALLS_MAX)
        self._garbled = False
        self.node_id: NodeId | None = None

    async def run(self, age_s: float, stopping: asyncio.Event) -> None:
        """Serve until the agent leaves, the stream is old or we stop; what is nearly answered is still answered."""
        await self._context.send_initial_metadata(())
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait((reader, writer, stop), timeout=age_s, return_when=asyncio.FIRST_COMPLETED)
            await _ended((reader,))
            if self._calls and not writer.done():
                await asyncio.wait(self._calls.values(), timeout=_LAST_ANSWERS_S)
            await _ended(self._calls.values())
            if not writer.done():
                await asyncio.wait_for(self._finish(writer), _LAST_ANSWERS_S)
            if self._garbled:
                await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this was no message muster.v1.Call")
        except TimeoutError:
            log.info("grpc_stream_not_read", node_id=self.node_id)  # by its agent, which will not miss the rest
        finally:
            await _ended((reader, writer, stop, *self._calls.values()))

    async def _finish(self, writer: asyncio.Task[None]) -> None:
        await self._replies.put(None)
        await asyncio.wait((writer,))

    async def _read(self) -> None:
        while (frame := await self._next()) is not None:
            if frame.cancel:
                if (task := self._calls.get(frame.id)) is not None:
                    task.cancel()
            elif frame.id in self._calls:
                await self._refuse(frame.id, InvalidInput(f"call {frame.id} has no reply yet", field="id"))
            elif len(self._calls) >= CALLS_MAX:
                error = QueueFull(f"{CALLS_MAX} calls of this stream have no reply yet", retry_after_s=_RETRY_AFTER_S)
                await self._refuse(frame.id, error)
            else:
                self._calls[frame.id] = task = asyncio.create_task(self._answer(frame))
                task.add_done_callback(partial(self._forget, frame.id))

    async def _next(self) -> Call | None:
        """Return None at the end of the stream, and where it makes no sense any more."""
        try:
            frame: object = await self._context.read()
        except DecodeError:
            self._garbled = True
            return None
        return frame if isinstance(frame, Call) else None

    async def _write(self) -> None:
        while (reply := await self._replies.get()) is not None:
            await self._context.write(reply)

    async def _answer(self, frame: Call) -> None:
        await self._replies.put(await self._reply(frame))

    def _forget(self, call_id: int, _: asyncio.Task[None]) -> None:
        del self._calls[call_id]

    async def _reply(self, frame: Call) -> Reply:
        try:
            return Reply(id=frame.id, body=await self._deliver(frame))
        except MusterError as error:
            return _refusal(frame.id, error)
        except Exception:
            log.exception("call_failed", call=frame.name, node_id=self.node_id)
            return _refusal(frame.id, _BROKEN)

    async def _deliver(self, frame: Call) -> bytes:
        if len(frame.body) > self._body_bytes_max:
            raise PayloadTooLarge(f"a message may have {self._body_bytes_max} bytes, this one has {len(frame.body)}")
        call = call_named(frame.name)
        message = decode(frame.body, call.message)
        reply = await call.deliver(self._nodes, self._jobs, message)
        if call is HEARTBEAT or call is REGISTER:
            self.node_id = message.facts.node_id
        return _NO_REPLY if reply is None else encode(reply)

    async def _refuse(self, call_id: int, error: MusterError) -> None:
        await self._replies.put(_refusal(call_id, error))


def _refusal(call_id: int, error: MusterError) -> Reply:
    return Reply(id=call_id, error=encode(error.to_dict()))


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

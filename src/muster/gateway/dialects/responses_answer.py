"""A chat's answer as the response that was asked for: whole, or as the events that its clients follow.

An answer becomes items one after the other: what the model thought, what it said, which functions it calls. Each is
told as it begins, grows and ends; the last event has the whole response, which is also all that a caller gets who does
not stream.
"""

from typing import Any

import msgspec
from msgspec import Raw

from muster.clock import Clock
from muster.errors import UpstreamFailed
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.chat_answer import Chunk, Count, Said, ToolCallDelta, chunk_in, decode_chunk
from muster.gateway.dialects.translate_answer import Translation
from muster.gateway.http.reply import JSON

_EVENTS = b"text/event-stream; charset=utf-8"
# Members of the request that a response repeats, and what they are when they were not sent.
_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}
_UNTOLD: dict[str, Any] = {
    "background": False,
    "error": None,
    "incomplete_details": None,
    "previous_response_id": None,
    "store": False,
    "truncation": "disabled",
    "usage": None,
}
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, Raw])


def response(call: Call, clock: Clock, answer_bytes_max: int) -> Translation:
    """Return what makes a response of a chat's answer; a longer one than so many bytes is none."""
    if call.stream:
        return _Streamed(_Response(call, clock), answer_bytes_max)
    return _Whole(_Response(call, clock), answer_bytes_max)


class _Bounded:
    def __init__(self, response: "_Response", bytes_max: int) -> None:
        self._response = response
        self._bytes_max = bytes_max
        self._bytes = 0

    def _count(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > self._bytes_max:
            raise UpstreamFailed(f"the engine's answer is longer than {self._bytes_max} bytes")


class _Whole(_Bounded):
    content_type = JSON

    def __init__(self, response: "_Response", bytes_max: int) -> None:
        super().__init__(response, bytes_max)
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        self._count(data)
        self._parts.append(data)
        return b""

    def finish(self) -> bytes:
        self._response.take(decode_chunk(b"".join(self._parts)))
        return _encode(self._response.end())


class _Streamed(_Bounded):
    content_type = _EVENTS

    def __init__(self, response: "_Response", bytes_max: int) -> None:
        super().__init__(response, bytes_max)
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        self._count(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        return self._response.fetch()

    def _line(self, line: bytes) -> None:
        chunk = chunk_in(line)
        if chunk is not None:
            self._response.take(chunk)

    def finish(self) -> bytes:
        self._line(self._rest)
        self._response.end()
        return self._response.fetch()


class _Response:
    """Gathers an answer, and tells it in events."""

    def __init__(self, call: Call, clock: Clock) -> None:
        asked = _members.decode(call.body)
        repeated = {name: asked.get(name, usual) for name, usual in _REPEATED.items()}
        self._base = {"object": "response", "created_at": clock.now_ms() // 1000, "model": call.model}
        self._base |= _UNTOLD | repeated
        self._id = f"{clock.now_ms():x}"
        self._began = False
        self._told: list[bytes] = []
        self._sequence = 0
        self._items: list[dict[str, Any]] = []
        self._text: _Text | None = None  # what is said or thought now
        self._calls: dict[int, _Call] = {}
        self._count = Count()
        self._finish_reason: str | None = None

    # --- what comes --------------------------------------------------------------------------------------------------

    def take(self, chunk: Chunk) -> None:
        self._begin(chunk)
        self._count = chunk.usage or self._count
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        self._finish_reason = choice.finish_reason or self._finish_reason
        self._hear(choice.said)

    def _hear(self, said: Said) -> None:
        for part, text in (("reasoning_text", said.thinking), ("output_text", said.content), ("refusal", said.refusal)):
            if text:
                self._part(part).grow(text)
        for place, call in enumerate(said.tool_calls or ()):
            self._call(place if call.index is None else call.index, call)

    def _begin(self, chunk: Chunk) -> None:
        if not self._began:
            self._began = True
            self._id = (chunk.id or "").removeprefix("chatcmpl-") or self._id
            for kind in ("response.created", "response.in_progress"):
                self.tell(kind, response=self._whole("in_progress"))

    def _part(self, part: str) -> "_Text":
        if self._text is None or self._text.part != part:
            self._end_text("completed")
            self._text = _Text(self, part)
        return self._text

    def _call(self, index: int, delta: ToolCallDelta) -> None:
        self._end_text("completed")
        if index not in self._calls:
            self._calls[index] = _Call(self, delta)
        self._calls[index].grow(delta.function.arguments or "")

    # --- what is told ------------------------------------------------------------------------------------------------

    def name(self, prefix: str) -> str:
        """Return the id of the item that is opened next."""
        return f"{prefix}_{self._id}_{len(self._items)}"

    def open(self, item: dict[str, Any]) -> int:
        place = len(self._items)
        self._items.append(item)
        self.tell("response.output_item.added", output_index=place, item=item)
        return place

    def close(self, place: int, item: dict[str, Any]) -> None:
        self._items[place] = item
        self.tell("response.output_item.done", output_index=place, item=item)

    def tell(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "sequence_number": self._sequence} | fields
        self._sequence += 1
        self._told.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(event)))

    def fetch(self) -> bytes:
        told = b"".join(self._told)
        self._told.clear()
        return told

    # --- the end -----------------------------------------------------------------------------------------------------

    def end(self) -> dict[str, Any]:
        """Return the whole response; raise UpstreamFailed when the answer never said that it had ended."""
        if self._finish_reason is None:
            raise UpstreamFailed("the engine ended its answer before it was complete")
        why = _CUT.get(self._finish_reason)
        status = "completed" if why is None else "incomplete"
        self._end_text(status)
        for _, call in sorted(self._calls.items()):
            call.end(status)
        whole = self._whole(status) | {"usage": self._usage()}
        if why is not None:
            whole["incomplete_details"] = {"reason": why}
        self.tell(f"response.{status}", response=whole)
        return whole

    def _end_text(self, status: str) -> None:
        text, self._text = self._text, None
        if text is not None:
            text.end(status)

    def _whole(self, status: str) -> dict[str, Any]:
        return {"id": f"resp_{self._id}", "status": status, "output": self._items} | self._base

    def _usage(self) -> dict[str, Any] | None:
        count = self._count
        if count.prompt_tokens is None or count.completion_tokens is None:
            return None
        cached = count.prompt_tokens_details.cached_tokens if count.prompt_tokens_details else None
        thought = count.completion_tokens_details.reasoning_tokens if count.completion_tokens_details else None
        return {
            "input_tokens": count.prompt_tokens,
            "input_tokens_details": {"cached_tokens": cached or 0, "cache_write_tokens": 0},
            "output_tokens": count.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": thought or 0},
            "total_tokens": count.prompt_tokens + count.completion_tokens,
        }


class _Text:
    """A message or a thought with its one part."""

    def __init__(self, response: _Response, part: str) -> None:
        self._response = response
        self.part = part
        self._said: list[str] = []
        self._item: dict[str, Any] = {"status": "in_progress", "content": []}
        if part == "reasoning_text":
            self._item |= {"id": response.name("rs"), "type": "reasoning", "summary": []}
        else:
            self._item |= {"id": response.name("msg"), "type": "message", "role": "assistant"}
        self._place = response.open(self._item)
        self._where = {"item_id": self._item["id"], "output_index": self._place, "content_index": 0}
        response.tell("response.content_part.added", **self._where, part=self._content(""))

    def _content(self, text: str) -> dict[str, Any]:
        match self.part:
            case "refusal":
                return {"type": "refusal", "refusal": text}
            case "output_text":
                return {"type": "output_text", "text": text, "annotations": []}
        return {"type": self.part, "text": text}

    @property
    def _more(self) -> dict[str, Any]:
        return {"logprobs": []} if self.part == "output_text" else {}

    def grow(self, text: str) -> None:
        self._said.append(text)
        self._response.tell(f"response.{self.part}.delta", **self._where, delta=text, **self._more)

    def end(self, status: str) -> None:
        text = "".join(self._said)
        named = {"refusal" if self.part == "refusal" else "text": text}
        self._response.tell(f"response.{self.part}.done", **self._where, **named, **self._more)
        self._response.tell("response.content_part.done", **self._where, part=self._content(text))
        self._response.close(self._place, self._item | {"status": status, "content": [self._content(text)]})


class _Call:
    """A function that the model calls. Its arguments come in pieces, also of several calls by turns."""

    def __init__(self, response: _Response, delta: ToolCallDelta) -> None:
        self._response = response
        self._arguments: list[str] = []
        self._item: dict[str, Any] = {
            "id": response.name("fc"),
            "type": "function_call",
            "call_id": delta.id or response.name("call"),
            "name": delta.function.name or "",
            "arguments": "",
            "status": "in_progress",
        }
        self._place = response.open(self._item)
        self._where = {"item_id": self._item["id"], "output_index": self._place}

    def grow(self, arguments: str) -> None:
        if arguments:
            self._arguments.append(arguments)
            self._response.tell("response.function_call_arguments.delta", **self._where, delta=arguments)

    def end(self, status: str) -> None:
        arguments = "".join(self._arguments)
        name = self._item["name"]
        self._response.tell("response.function_call_arguments.done", **self._where, name=name, arguments=arguments)
        self._response.close(self._place, self._item | {"status": status, "arguments": arguments})

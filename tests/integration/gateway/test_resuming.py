"""Callers who lose the connection and come back for the rest of their answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from muster.access.account import Account
from muster.domain.stream import StreamPart
from muster.errors import StoreUnavailable
from muster.gateway import GatewayLimits
from muster.gateway.figures.decisions import Keeping
from muster.metrics import GATEWAY_STREAMS, GATEWAY_STREAMS_RESUMED, GATEWAY_STREAMS_TAKEN_OVER
from muster.stores.memory import MemoryStore
from muster.stores.memory.streams import MemoryStreams
from tests.clocks import ManualClock
from tests.integration.gateway.door import Door, opened
from tests.integration.gateway.engine import TOKENS, Asked, Engine, llama, ollama
from tests.integration.gateway.fleet import BOTH, FleetTwin, worker
from tests.integration.gateway.telling import STORY, WORDS, Story
from tests.integration.gateway.wire import Wire, chat, get, post
from tests.waiting import eventually

OPENAI = "/v1/chat/completions"
RESUMABLE = "x-muster-resumable: 60"
LEASE_S = 4.0


class Scene:
    """A story, who tells it, and gateways on one store that are given more by `door`."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.doors = 0
        self.story = Story()
        self.engine = Engine(self.story.tell)

    @asynccontextmanager
    async def door(self, **more: Any) -> AsyncIterator[Door]:
        self.doors += 1  # each is somebody else
        settings: dict[str, Any] = {"streams": self.store.streams, "clock": self.clock, "seed": self.doors} | more
        async with opened(FleetTwin(worker(self.engine.url, slots=4)), **settings) as door:
            yield door


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    async with scene.engine:
        yield scene


async def begin(
    door: Door, content: object = None, path: str = OPENAI, wish: str = RESUMABLE
) -> tuple[Wire, dict[str, str]]:
    wire = await door.wire()
    wire.send(post(path, chat(stream=True) if content is None else content, wish))
    async with asyncio.timeout(10):
        status, headers = await wire.head()
    assert status == 200
    return wire, headers


async def rest_of(door: Door, stream_id: str, offset: int = 0) -> bytes:
    wire = await door.wire()
    wire.send(get(f"/v1/streams/{stream_id}?offset={offset}"))
    answer = await wire.answer()
    assert answer.status == 200, answer.body
    return answer.body


async def refusal(door: Door, stream_id: str, query: str = "", *headers: str, method: str = "GET") -> tuple[int, Any]:
    wire = await door.wire()
    wire.send(get(f"/v1/streams/{stream_id}{query}", *headers, method=method))
    answer = await wire.answer()
    return answer.status, answer.json["error"]


def text_of(body: bytes) -> str:
    pieces = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    assert body.endswith(b"data: [DONE]\n\n"), body[-200:]
    return "".join(choice["delta"].get("content") or "" for piece in pieces for choice in piece["choices"])


async def words_on(wire: Wire, words: int) -> bytes:
    """Read so many words; several may come in one piece."""
    had = b""
    while had.count(b'"content"') < words:
        had += await wire.chunk()
    return had


async def whole_story(scene: Scene) -> bytes:
    """Return the answer as it is without all this."""
    async with opened(FleetTwin(worker(scene.engine.url))) as door:
        wire = await door.wire()
        wire.send(post(OPENAI, chat(stream=True)))
        scene.story.allow()
        return (await wire.answer()).body


# --- what is kept ----------------------------------------------------------------------------------------------------


async def test_a_resumable_answer_is_the_same_and_says_how_to_come_back(scene: Scene) -> None:
    plain = await whole_story(scene)
    async with scene.door() as door:
        wire = await door.wire()
        for _ in range(2):  # on one connection
            scene.story.allow()
            wire.send(post(OPENAI, chat(stream=True), "x-muster-resumable: 99999"))
            answer = await wire.answer()
            assert answer.body == plain
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["x-muster-resumable"] == "600"
            assert answer.headers["x-muster-stream"].startswith("stream-")
            assert "x-muster-resumable" not in scene.engine.requests[-1].headers
        assert [record.path for record in door.finished] == [OPENAI] * 2
        assert door.reserved == {}


async def test_an_ended_answer_is_given_from_every_offset(scene: Scene) -> None:
    async with scene.door() as door:
        scene.story.allow()
        wire, headers = await begin(door)
        whole = await wire._body(headers)
        for offset in [*range(0, len(whole), 17), len(whole)]:
            wire.send(get(f"/v1/streams/{headers['x-muster-stream']}?offset={offset}"))
            answer = await wire.answer()
            assert answer.body == whole[offset:]
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["x-correlation-id"] == headers["x-correlation-id"]


@pytest.mark.parametrize("words", range(1, len(WORDS) + 1))
async def test_a_caller_who_was_cut_off_after_any_word_gets_the_rest(scene: Scene, words: int) -> None:
    async with scene.door() as door:
        scene.story.allow(words)
        wire, headers = await begin(door)
        had = await words_on(wire, words)
        wire.abort()
        await eventually(lambda: door.front.connections == 0)
        assert door.reserved == {"node-a/llama": 1}

        scene.story.allow()
        whole = had + await rest_of(door, headers["x-muster-stream"], len(had))

        assert text_of(whole) == STORY
        assert whole == await rest_of(door, headers["x-muster-stream"])
        assert len(scene.engine.requests) == 1
        await eventually(lambda: door.reserved == {})


async def test_two_readers_follow_it_each_from_where_they_are(scene: Scene) -> None:
    async with scene.door() as door:
        scene.story.allow(3)
        wire, headers = await begin(door)
        had = await words_on(wire, 3)
        wire.abort()
        readers = [
            asyncio.create_task(rest_of(door, headers["x-muster-stream"], offset)) for offset in (len(had), 5, 0)
        ]
        await eventually(lambda: door.front.connections == 3)
        scene.story.allow()
        rest, most, whole = await asyncio.gather(*readers)

        assert text_of(whole) == STORY
        assert had + rest == had[:5] + most == whole


async def test_json_lines_and_whole_answers_are_kept_as_well(scene: Scene) -> None:
    scene.engine.behaviour = ollama
    fleet = FleetTwin(worker(scene.engine.url, dialects=BOTH))
    async with opened(fleet, streams=scene.store.streams) as door:
        for path, content in (
            ("/api/chat", chat(stream=True)),
            ("/api/chat", chat()),
            (OPENAI, chat()),
            ("/v1/embeddings", {"model": "minilm", "input": "a"}),
        ):
            wire, headers = await begin(door, content, path)
            whole = await wire._body(headers)
            assert whole
            assert await rest_of(door, headers["x-muster-stream"], 10) == whole[10:]


async def test_an_error_is_passed_on_and_not_kept(scene: Scene) -> None:
    async def refuses(asked: Asked) -> None:
        asked.reply({"error": {"message": "no such parameter", "type": "invalid_request_error"}}, 400)

    async with scene.door() as door:
        wire = await door.wire()
        wire.send(post(OPENAI, chat(model="nobody-has-it"), RESUMABLE))
        answer = await wire.answer()
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
        assert answer.headers["x-muster-resumable"] == "no"
        assert "x-muster-stream" not in answer.headers
        scene.engine.behaviour = refuses
        wire.send(post(OPENAI, chat(), RESUMABLE))
        answer = await wire.answer()
        assert (answer.status, answer.json["error"]["message"]) == (400, "no such parameter")


@pytest.mark.parametrize("wish", ["no", "0", "yes"])
async def test_it_is_for_those_who_ask_and_where_it_is_allowed(scene: Scene, wish: str) -> None:
    limits = GatewayLimits(resume_max_s=0 if wish == "yes" else 600)
    async with scene.door(limits=limits) as door:
        scene.story.allow()
        wire = await door.wire()
        wire.send(post(OPENAI, chat(stream=True), f"x-muster-resumable: {wish}"))
        answer = await wire.answer()
        assert text_of(answer.body) == STORY
        assert "x-muster-stream" not in answer.headers


async def test_a_wish_that_says_nothing_is_refused_by_name(scene: Scene) -> None:
    async with scene.door() as door:
        wire = await door.wire()
        wire.send(post(OPENAI, chat(stream=True), "x-muster-resumable: for ever"))
        answer = await wire.answer()
        assert (answer.status, answer.json["error"]["param"]) == (400, "X-Muster-Resumable")


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_a_longer_answer_than_is_kept_still_goes_to_its_caller(scene: Scene) -> None:
    begun = asyncio.Event()

    async def tells_much(asked: Asked) -> None:
        asked.head()
        for _ in range(40):
            asked.chunk(b"x" * 100_000)
            await asked.written()
            await begun.wait()
        asked.last_chunk()

    scene.engine.behaviour = tells_much
    async with scene.door(limits=GatewayLimits(stream_bytes_max=250_000)) as door:
        wire, headers = await begin(door, chat())
        begun.set()
        assert len(await wire._body(headers)) == 4_000_000
        assert (await refusal(door, headers["x-muster-stream"]))[0] == 404
        await eventually(lambda: door.reserved == {})


async def test_while_the_store_is_full_answers_are_only_passed_on(scene: Scene) -> None:
    scene.engine.behaviour = llama
    async with scene.door(limits=GatewayLimits(streams_bytes_max=100)) as door:
        wire, headers = await begin(door)
        assert headers["x-muster-resumable"] == "no"
        assert text_of(await wire._body(headers)) == "".join(TOKENS)
        explained = door.gateway.explain(headers["x-correlation-id"])
        assert explained is not None
        assert explained.keeping is not None
        assert not explained.keeping.kept
        wire, headers = await begin(door)
        wire.abort()
        await eventually(lambda: door.reserved == {})


async def test_what_nobody_comes_back_for_in_time_is_ended(scene: Scene) -> None:
    async with scene.door() as door:
        scene.story.allow(2)
        wire, headers = await begin(door)
        wire.abort()
        await eventually(lambda: door.front.connections == 0)
        scene.clock.advance(59.0)
        door.gateway.sweep()
        assert door.reserved == {"node-a/llama": 1}
        scene.clock.advance(2.0)
        door.gateway.sweep()
        assert door.reserved == {}
        await eventually(lambda: scene.engine.answering == 0)
        status, error = await refusal(door, headers["x-muster-stream"])
        assert (status, error["code"]) == (404, "stream_not_found")


async def test_an_ended_answer_is_kept_for_its_time_and_not_longer(scene: Scene) -> None:
    async with scene.door() as door:
        scene.story.allow()
        wire, headers = await begin(door)
        await wire._body(headers)
        scene.clock.advance(59.0)
        assert text_of(await rest_of(door, headers["x-muster-stream"])) == STORY
        scene.clock.advance(2.0)
        assert (await refusal(door, headers["x-muster-stream"]))[0] == 404


async def test_who_leaves_before_the_answer_begins_ends_it(scene: Scene) -> None:
    async with scene.door() as door:
        wire = await door.wire()
        wire.send(post(OPENAI, chat(stream=True), RESUMABLE))
        await eventually(lambda: scene.engine.answering == 1)
        wire.abort()
        await eventually(lambda: scene.engine.answering == 0)
        assert door.reserved == {}


# --- who may, and what is refused ------------------------------------------------------------------------------------


async def test_another_s_answer_is_not_there(scene: Scene) -> None:
    accounts = {b"mine": Account("me"), b"other": Account("you")}
    async with scene.door(account_of=lambda shown: accounts[shown or b"other"]) as door:
        scene.story.allow(2)
        wire = await door.wire()
        wire.send(post(OPENAI, chat(stream=True), RESUMABLE, "authorization: Bearer mine"))
        _, headers = await wire.head()
        stream_id = headers["x-muster-stream"]
        for method in ("GET", "DELETE"):
            status, error = await refusal(door, stream_id, "", "authorization: Bearer other", method=method)
            assert (status, error["code"]) == ((404, "stream_not_found"))
        scene.story.allow()
        await wire._body(headers)
        assert (await refusal(door, stream_id, "", "authorization: Bearer other"))[0] == 404
        other = await door.wire()
        other.send(get(f"/v1/streams/{stream_id}", "authorization: Bearer mine"))
        assert text_of((await other.answer()).body) == STORY


async def test_bad_offsets_and_ids_are_refused_by_name(scene: Scene) -> None:
    async with scene.door() as door:
        scene.story.allow(1)
        _, headers = await begin(door)
        stream_id = headers["x-muster-stream"]
        for query in ("?offset=-1", "?offset=x", "?offset="):
            status, error = await refusal(door, stream_id, query)
            assert (status, error["param"]) == (400, "offset")
        status, error = await refusal(door, stream_id, "?offset=99999")
        assert (status, error["code"], error["param"]) == (416, "offset_beyond_end", "offset")
        for unknown in ("stream-0", "%00%ff", "x" * 500):
            status, error = await refusal(door, unknown)
            assert (status, error["code"]) == (404, "stream_not_found")


async def test_a_removed_answer_ends_and_is_gone(scene: Scene) -> None:
    async with scene.door() as door, scene.door() as other:
        for remover in (door, other):
            scene.story.allow(2)
            wire, headers = await begin(door)
            stream_id = headers["x-muster-stream"]
            away = await remover.wire()
            away.send(get(f"/v1/streams/{stream_id}", method="DELETE"))
            assert (await away.answer()).json == {"id": stream_id, "object": "stream", "deleted": True}
            scene.clock.advance(1.0)
            door.gateway.sweep()
            await eventually(lambda: scene.engine.answering == 0)
            with pytest.raises(asyncio.IncompleteReadError):
                await wire._body(headers)
            assert (await refusal(door, stream_id, method="DELETE"))[0] == 404
            assert door.reserved == {}


# --- several gateways, and those that die ----------------------------------------------------------------------------


async def test_another_gateway_shows_it_live(scene: Scene) -> None:
    async with scene.door() as door, scene.door() as other:
        scene.story.allow(1)
        wire, headers = await begin(door)
        had = await words_on(wire, 1)
        wire.abort()
        follower = await other.wire()
        follower.send(get(f"/v1/streams/{headers['x-muster-stream']}?offset={len(had)}"))
        scene.story.allow(1)
        await follower.head()
        rest = await words_on(follower, 1)
        scene.story.allow()
        while piece := await follower.chunk():
            rest += piece
        assert text_of(had + rest) == STORY
        assert len(scene.engine.requests) == 1


async def test_who_reads_at_another_gateway_keeps_it_going(scene: Scene) -> None:
    async with scene.door() as door, scene.door() as other:
        scene.story.allow(2)
        wire, headers = await begin(door, wish="x-muster-resumable: 6")
        wire.abort()
        await eventually(lambda: door.front.connections == 0)
        follower = await other.wire()
        follower.send(get(f"/v1/streams/{headers['x-muster-stream']}"))
        _, told = await follower.head()
        kept = scene.store.streams._kept[headers["x-muster-stream"]]
        for _ in range(4):
            scene.clock.advance(3.0)
            await eventually(lambda: kept.read_ms == scene.clock.now_ms())
            door.gateway.sweep()
            await eventually(lambda: kept.until_ms > scene.clock.now_ms() + 6000)
        assert door.reserved == {"node-a/llama": 1}
        scene.story.allow()
        assert text_of(await follower._body(told)) == STORY


class Severed:
    """A store as seen by a gateway that it does not hear any more."""

    def __init__(self, streams: MemoryStreams) -> None:
        self._streams = streams
        self.is_away = False

    async def write(self, parts: Sequence[StreamPart], bytes_max: int) -> list[int | None]:
        self._check()
        return await self._streams.write(parts, bytes_max)

    async def read(self, stream_id: str, offset: int, limit: int) -> Any:
        self._check()
        return await self._streams.read(stream_id, offset, limit)

    async def take(self, stream_id: str, runner: str, lease_s: float) -> bool:
        self._check()
        return await self._streams.take(stream_id, runner, lease_s)

    async def remove(self, stream_id: str) -> bool:
        self._check()
        return await self._streams.remove(stream_id)

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the store did not answer")


@pytest.mark.parametrize("words", [1, 4, len(WORDS)])
async def test_an_answer_whose_gateway_is_gone_is_gone_on_with(scene: Scene, words: int) -> None:
    link = Severed(scene.store.streams)
    async with scene.door(streams=link) as door, scene.door() as other:
        scene.story.allow(words)
        wire, headers = await begin(door)
        had = await words_on(wire, words)
        link.is_away = True
        scene.story.allow(1)
        with pytest.raises(asyncio.IncompleteReadError):  # nothing is shown that is not kept
            await wire.chunk()
        await eventually(lambda: scene.engine.answering == 0)

        readers = [asyncio.create_task(rest_of(other, headers["x-muster-stream"], len(had))) for _ in range(2)]
        await eventually(lambda: other.front.connections == 2)
        scene.clock.advance(LEASE_S)
        scene.story.allow()
        rests = await asyncio.gather(*readers)

        assert rests[0] == rests[1]
        assert text_of(had + rests[0]) == STORY
        assert b": continued by node-a/llama" in rests[0]
        assert len(scene.engine.requests) == 2  # one of the readers had it gone on with
        assert other.finished[0].correlation_id == headers["x-correlation-id"].encode()
        view = other.gateway.view().streams
        assert view is not None
        assert view.taken_over_total == 1
        explained = other.gateway.explain(headers["x-correlation-id"])
        assert explained is not None
        assert explained.keeping == Keeping(stream_id=headers["x-muster-stream"], keep_s=60.0, taken_over=True)


async def test_a_gateway_that_has_just_started_waits_for_its_workers(scene: Scene) -> None:
    fleet = FleetTwin()
    link = Severed(scene.store.streams)
    async with scene.door(streams=link) as door:
        scene.story.allow(3)
        wire, headers = await begin(door)
        had = await words_on(wire, 3)
        link.is_away = True
    async with opened(fleet, streams=scene.store.streams, clock=scene.clock, seed=99) as next_door:
        scene.clock.advance(LEASE_S)
        rest = asyncio.create_task(rest_of(next_door, headers["x-muster-stream"], len(had)))
        read_ms = scene.clock.now_ms()
        await eventually(lambda: scene.store.streams._kept[headers["x-muster-stream"]].read_ms == read_ms)
        fleet.become(worker(scene.engine.url))
        scene.story.allow()
        assert text_of(had + await rest) == STORY


async def test_what_cannot_be_gone_on_with_ends_with_an_error_in_its_own_words(scene: Scene) -> None:
    link = Severed(scene.store.streams)
    async with scene.door(streams=link) as door, scene.door() as other:
        scene.story.allow(2)
        wire, headers = await begin(door, chat(stream=True, logprobs=True))
        had = await wire.chunk()
        link.is_away = True
        scene.clock.advance(LEASE_S)
        rest = await rest_of(other, headers["x-muster-stream"], len(had))
        assert (had + rest).count(b'"delta"') == 2
        last = json.loads(rest.rstrip().rpartition(b"data: ")[2])
        assert last["error"]["code"] == "upstream_failed"
        assert "ask again" in last["error"]["message"]
        assert await rest_of(other, headers["x-muster-stream"], len(had)) == rest
        link.is_away = False


async def test_a_body_that_is_no_stream_and_cannot_be_gone_on_with_is_cut_where_it_is(scene: Scene) -> None:
    async def begins(asked: Asked) -> None:
        asked.head(length=1000)
        asked.raw(b"x" * 100)
        await asyncio.Event().wait()

    scene.engine.behaviour = begins
    link = Severed(scene.store.streams)
    async with scene.door(streams=link) as door, scene.door() as other:
        wire, headers = await begin(door, chat())
        await wire.reader.readexactly(100)
        link.is_away = True
        scene.clock.advance(LEASE_S)
        again = await other.wire()
        again.send(get(f"/v1/streams/{headers['x-muster-stream']}?offset=40"))
        _, told = await again.head()
        assert told["content-length"] == "960"
        assert await again.rest() == b"x" * 60


async def test_a_gateway_that_stops_leaves_its_answers_to_the_next_one_and_each_word_is_charged_once(
    scene: Scene,
) -> None:
    async with scene.door() as other:
        async with scene.door() as door:
            scene.story.allow(4)
            wire, headers = await begin(door)
            had = await words_on(wire, 4)
            await door.front.stop(0.0)
            with pytest.raises(asyncio.IncompleteReadError):
                await wire.chunk()
        scene.story.allow()
        whole = had + await rest_of(other, headers["x-muster-stream"], len(had))
        assert text_of(whole) == STORY
        uses = [record.use for record in (*door.finished, *other.finished) if record.use is not None]
        assert [use.completion_tokens for use in uses] == [4, len(WORDS) - 4]


async def test_what_a_gateway_that_died_had_told_is_charged_by_the_next_one(scene: Scene) -> None:
    link = Severed(scene.store.streams)
    async with scene.door(streams=link) as door, scene.door() as other:
        scene.story.allow(4)
        wire, headers = await begin(door)
        await words_on(wire, 4)
        link.is_away = True
        scene.story.allow(1)
        await eventually(lambda: scene.engine.answering == 0)
        scene.clock.advance(LEASE_S)
        scene.story.allow()
        await rest_of(other, headers["x-muster-stream"])
        (use,) = [record.use for record in other.finished if record.use is not None]
        assert use.completion_tokens == len(WORDS)


async def test_a_gateway_that_was_away_does_not_add_to_what_another_went_on_with(scene: Scene) -> None:
    async with scene.door() as door, scene.door() as other:
        scene.story.allow(3)
        wire, headers = await begin(door)
        had = await words_on(wire, 3)
        scene.clock.advance(LEASE_S)  # as if it had been stopped
        rest = asyncio.create_task(rest_of(other, headers["x-muster-stream"], len(had)))
        await eventually(lambda: len(scene.engine.requests) == 2)
        door.gateway.sweep()
        with pytest.raises(asyncio.IncompleteReadError):
            await wire.chunk()
        await eventually(lambda: scene.engine.answering == 1)
        scene.story.allow()
        assert text_of(had + await rest) == STORY


async def test_while_the_store_is_away_answers_that_begin_are_passed_on(scene: Scene) -> None:
    link = Severed(scene.store.streams)
    link.is_away = True
    async with scene.door(streams=link) as door:
        scene.story.allow()
        wire, headers = await begin(door)
        assert headers["x-muster-resumable"] == "no"
        assert text_of(await wire._body(headers)) == STORY
        status, error = await refusal(door, "stream-1")
        assert (status, error["code"]) == (503, "store_unavailable")


async def test_what_is_kept_is_counted(scene: Scene) -> None:
    async with scene.door() as door:
        scene.story.allow(2)
        wire, headers = await begin(door)
        wire.abort()
        await eventually(lambda: door.front.connections == 0)
        view = door.gateway.view().streams
        assert view is not None
        assert (view.running, view.unread, view.kept_total, view.resumed_total) == (1, 1, 1, 0)
        scene.story.allow()
        whole = await rest_of(door, headers["x-muster-stream"])
        view = door.gateway.view().streams
        assert view is not None
        assert (view.running, view.kept_bytes_total, view.resumed_total) == (0, len(whole), 1)
        explained = door.gateway.explain(headers["x-correlation-id"])
        assert explained is not None
        assert explained.keeping == Keeping(stream_id=headers["x-muster-stream"], keep_s=60.0)
        assert {metric.family.name for metric in door.gateway.metrics()} >= {
            family.name for family in (GATEWAY_STREAMS, GATEWAY_STREAMS_RESUMED, GATEWAY_STREAMS_TAKEN_OVER)
        }

"""Requests for models that are on disk: loaded where that costs least, by what has to make room, once for all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from muster.agent.agent import Agent
from muster.domain.residency import ModelPolicy, ModelRule
from tests.integration.models.engines import MadeOllama
from tests.integration.models.whole import Whole
from tests.waiting import eventually

MANAGED = ModelPolicy()


@asynccontextmanager
async def node(
    fleet: Whole, name: str, ollama: MadeOllama, policy: ModelPolicy | None = MANAGED
) -> AsyncIterator[Agent]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(ollama.running())
        agent = await fleet.add(
            name,
            attach=(("ollama", ollama.url),),
            model_policy=policy,
            used_mb=lambda: ollama.used_mb,
            total_mb=ollama.memory_mb,
        )
        stack.push_async_callback(agent.stop)
        await eventually(lambda: all(fleet.model(name, model) for model in ollama.models))
        yield agent


async def test_a_model_on_disk_is_loaded_when_it_is_asked_for(fleet: Whole) -> None:
    ollama = MadeOllama(4000, small=1000)
    async with node(fleet, "a", ollama):
        assert fleet.resident("a") == set()
        status, text = await fleet.chat("small")
        assert (status, "small says so" in text) == (200, True)
        assert ollama.loads == ["small"]
        assert [each["model"] for each in await fleet.heard("model_loaded")] == ["small"]


async def test_without_a_policy_the_engine_sees_to_it_itself(fleet: Whole) -> None:
    ollama = MadeOllama(4000, small=1000)
    async with node(fleet, "a", ollama, policy=None):
        assert (await fleet.chat("small"))[0] == 200
        assert await fleet.told("model_loaded") == []


async def test_many_who_ask_at_once_wait_for_one_load_and_hear_why(fleet: Whole) -> None:
    ollama = MadeOllama(4000, small=1000)
    async with node(fleet, "a", ollama):
        ollama.open.clear()
        asking = [asyncio.create_task(fleet.chat("small")) for _ in range(20)]
        await eventually(lambda: fleet.loader.why("small") == "ollama loads small")
        ollama.open.set()
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 20
        assert ollama.loads == ["small"]
        assert len(await fleet.heard("model_loaded")) == 1


async def test_the_longest_unused_one_makes_room_and_a_pinned_one_stays(fleet: Whole) -> None:
    ollama = MadeOllama(4000, pinned=1000, old=1200, new=1200, next=1500)
    policy = ModelPolicy(rules=(ModelRule(name="pinned", pinned=True),))
    async with node(fleet, "a", ollama, policy):
        await eventually(lambda: fleet.resident("a") == {"pinned"})
        assert ollama.loaded["pinned"] == -1, "Ollama would let go of it by itself"
        for model in ("old", "new", "next"):
            assert (await fleet.chat(model))[0] == 200
        await eventually(lambda: fleet.resident("a") == {"pinned", "new", "next"})
        loaded = await fleet.heard("model_loaded", 4)
        assert loaded[-1]["instead_of"] == ["ollama/old"]


async def test_the_node_with_room_is_chosen(fleet: Whole) -> None:
    full, free = MadeOllama(2000, other=1500, wanted=1000), MadeOllama(2000, wanted=1000)
    async with node(fleet, "a", full), node(fleet, "b", free):
        assert (await fleet.chat("other"))[0] == 200
        await eventually(lambda: fleet.resident("a") == {"other"})
        assert (await fleet.chat("wanted"))[0] == 200
        assert (full.loads, free.loads) == (["other"], ["wanted"])


async def test_where_loading_fails_the_next_node_is_tried(fleet: Whole) -> None:
    broken, good = MadeOllama(9000, wanted=1000), MadeOllama(4000, wanted=1000)
    broken.broken.add("wanted")
    async with node(fleet, "a", broken), node(fleet, "b", good):
        assert (await fleet.chat("wanted"))[0] == 200
        assert good.loads == ["wanted"]


async def test_what_fits_nowhere_is_refused_in_words(fleet: Whole) -> None:
    async with node(fleet, "a", MadeOllama(2000, huge=9000)):
        status, text = await fleet.chat("huge")
        assert status == 503
        assert "a/ollama needs 10.5 GB of memory, 2 GB free" in text


async def test_what_nobody_uses_is_unloaded(fleet: Whole) -> None:
    policy = ModelPolicy(idle_unload_s=0.3, rules=(ModelRule(name="kept", pinned=True),))
    ollama = MadeOllama(4000, kept=1000, small=1000)
    async with node(fleet, "a", ollama, policy):
        await eventually(lambda: fleet.resident("a") == {"kept"})
        assert (await fleet.chat("small"))[0] == 200
        await eventually(lambda: fleet.resident("a") == {"kept", "small"})

        async def unloaded() -> bool:
            await fleet.loader.tick()
            return fleet.resident("a") == {"kept"}

        await eventually(unloaded)
        assert [each["model"] for each in await fleet.heard("model_unloaded")] == ["small"]


async def test_a_pin_of_a_person_holds_after_a_restart_of_the_agent(fleet: Whole) -> None:
    ollama = MadeOllama(4000, small=1000)
    async with node(fleet, "a", ollama, policy=None) as agent:
        pinned = await agent._residency.pin({"model": "small"}, lambda _: None)
        assert pinned == {"model": "small", "pinned": True}
        await eventually(lambda: fleet.resident("a") == {"small"})
        again = agent._residency._pins.__class__(agent._data_dir / "pins.json")
        assert again.over(None) == ModelPolicy(rules=(ModelRule(name="small", pinned=True),))
        await agent._residency.unpin({"model": "small"}, lambda _: None)
        await eventually(lambda: fleet.node("a").facts.models == ModelPolicy(rules=(ModelRule(name="small"),)))

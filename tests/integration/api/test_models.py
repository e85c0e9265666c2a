"""Models by HTTP: which node has what, and how it gets there."""

from typing import Any
from urllib.parse import quote

import pytest
import yarl

from muster.domain.artifact import Artifact, ArtifactKind, ArtifactState, NodeArtifacts
from muster.domain.model import Model
from muster.domain.node import NodeFacts, Resources
from muster.domain.residency import ModelPolicy, ModelRule
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.domain.worker import Worker, WorkerStatus
from muster.ids import NodeId, WorkerId
from tests.integration.api.conftest import Served
from tests.integration.api.test_api import get, post
from tests.integration.api.test_commands import polled

HUB, WEB, BUNDLE = "hf:org/repo/m.gguf", "https://host/a%20b/m.gguf?v=1", "https://host/tools.tgz"
DIGEST = "ab" * 32


def service(name: str = "llama", status: ServiceStatus = ServiceStatus.RUNNING, **more: Any) -> Service:
    return Service(
        name=name, connector="llamacpp", status=status, url="http://127.0.0.1:1", dialects=(Dialect.OPENAI,), **more
    )


async def node(served: Served, name: str, *kept: Artifact, services: tuple[Service, ...] = (), pool: str = "p") -> None:
    worker = Worker(worker_id=WorkerId(f"{name}-worker-0"), index=0, status=WorkerStatus.IDLE, connectors=("llamacpp",))
    await served.plane.heartbeat(
        name,
        facts=NodeFacts(node_id=NodeId(name), pool=pool, version="1.2"),
        artifacts=NodeArtifacts(kept=kept, url="http://h:1", ticket_key="the-secret-key"),
        services=services,
        workers=(worker,),
    )


@pytest.fixture
async def fleet(served: Served) -> Served:
    used = Artifact(
        name=HUB, digest=DIGEST, size_bytes=7, last_used_at_ms=5, fetched_at_ms=4, services=("llama",), pinned=True
    )
    await node(served, "n1", used, services=(service(models=(Model(name="m", resident=True),)),))
    await node(
        served,
        "n2",
        Artifact(name=HUB, digest=DIGEST, size_bytes=7),
        Artifact(name=WEB, state=ArtifactState.FETCHING, fraction=0.45),
        Artifact(name=BUNDLE, kind=ArtifactKind.BUNDLE, digest="cd" * 32, size_bytes=3),
        pool="q",
    )
    await node(served, "n3", Artifact(name=WEB, state=ArtifactState.FAILED, error="404"))
    return served


async def test_models_are_listed_with_their_copies_and_states(fleet: Served) -> None:
    rows = {row["name"]: row for row in await get(fleet, "/api/v1/models")}
    assert set(rows) == {HUB, WEB, BUNDLE, "m"}
    hub = rows[HUB]
    assert (hub["kind"], hub["replicated"], hub["size_bytes"], hub["nodes"]) == ("model", True, 7, [])
    assert [(copy["node_id"], copy["state"]) for copy in hub["copies"]] == [("n1", "resident"), ("n2", "on_disk")]
    assert hub["copies"][0] | {} == {
        "node_id": "n1",
        "state": "resident",
        "digest": DIGEST,
        "size_bytes": 7,
        "fraction": None,
        "fetched_at": 4,
        "last_used_at": 5,
        "services": ["llama"],
        "pinned": True,
        "error": None,
    }
    assert [(copy["node_id"], copy["state"]) for copy in rows[WEB]["copies"]] == [("n2", "fetching"), ("n3", "failed")]
    assert (rows[WEB]["copies"][0]["fraction"], rows[WEB]["replicated"]) == (0.45, False)
    assert rows[BUNDLE]["kind"] == "bundle"
    assert rows["m"]["copies"][0]["state"] == "resident"
    assert rows["m"]["nodes"][0]["accepts_work"] is True


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("kind=bundle", [BUNDLE]),
        ("node=n1", [HUB, "m"]),
        ("q=TOOLS", [BUNDLE]),
        ("served=true", ["m"]),
        ("served=false&kind=bundle", [BUNDLE]),
        ("capability=completion", ["m"]),
        ("sort=-copies&limit=2", [HUB, WEB]),
        ("sort=name&limit=1&page=2", [WEB]),
    ],
)
async def test_the_list_is_filtered_sorted_and_paged(fleet: Served, query: str, names: list[str]) -> None:
    assert [row["name"] for row in await get(fleet, f"/api/v1/models?{query}")] == names


@pytest.mark.parametrize("name", [HUB, quote(WEB), "m", DIGEST, f"{HUB}@main"])
async def test_one_is_found_by_its_name_with_slashes_or_by_a_digest(fleet: Served, name: str) -> None:
    async with fleet.client.get(yarl.URL(f"{fleet.url}/api/v1/models/{name}", encoded=True)) as answer:
        found = await answer.json()
    assert found["name"] in {HUB, WEB, "m"}
    assert (await get(fleet, "/api/v1/models/none/such", 404))["code"] == "model_not_found"


async def test_no_view_tells_the_key_of_a_nodes_door(fleet: Served) -> None:
    for path in ("/api/v1/models", "/api/v1/nodes", "/api/v1/nodes/n1", "/api/monitor/state", "/api/v1/fleet"):
        async with fleet.client.get(path) as answer:
            assert "the-secret-key" not in await answer.text()
    assert all("the-secret-key" not in str(entry) for entry in await fleet.plane.store.log.read("0", 1000))


async def test_workers_say_what_their_services_run_on(fleet: Served) -> None:
    workers = {worker["node_id"]: worker for worker in await get(fleet, "/api/v1/workers")}
    assert (workers["n1"]["version"], workers["n1"]["artifacts"]) == ("1.2", {HUB: DIGEST})
    assert workers["n2"]["artifacts"] == {}


async def test_the_older_catalog_speaks_of_the_same(fleet: Served) -> None:
    told = await get(fleet, "/v2/catalog/availability")
    assert told["nodes"] == {"n1": [HUB, "m"], "n2": [HUB], "n3": []}
    assert (told["total_models"], told["replicated_models"], told["single_node_models"]) == (2, [HUB], ["m"])


async def test_a_dead_nodes_copies_are_not_there(fleet: Served) -> None:
    fleet.plane.clock.advance(1000)
    fleet.plane.fleet.tick()
    assert await get(fleet, "/api/v1/models?q=repo") == []


# --- orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aim", "nodes"),
    [
        ({"nodes": ["n1"]}, {"n1"}),
        ({"nodes": ["n1", "n2"]}, {"n1", "n2"}),
        ({"pool": "q"}, {"n2"}),
        ({"selector": "pool=p"}, {"n1", "n3"}),
        ({"all": True}, {"n1", "n2", "n3"}),
    ],
)
async def test_a_pull_is_a_command_to_each_node_that_is_meant(
    fleet: Served, aim: dict[str, Any], nodes: set[str]
) -> None:
    answer = await post(fleet, "/api/v1/models/pull", {"model": HUB} | aim, 202)
    assert {command["node_id"] for command in answer["commands"]} == nodes
    for name in nodes:
        (command,) = await polled(fleet, name)
        assert (command.command, command.args) == ("pull_model", {"model": HUB})


async def test_a_copy_comes_from_the_fleet_alone(fleet: Served) -> None:
    await post(fleet, "/api/v1/models/copy", {"model": f"{HUB}@main", "nodes": ["n3"]}, 202)
    (command,) = await polled(fleet, "n3")
    assert command.args == {"model": f"{HUB}@main", "from": "fleet"}
    missing = await post(fleet, "/api/v1/models/copy", {"model": "hf:a/b", "all": True}, 404)
    assert "pull fetches it" in missing["message"]
    refused = await post(fleet, "/api/v1/models/copy", {"model": "ollama:x", "all": True}, 400)
    assert refused["field"] == "model"


async def test_a_removal_names_what_goes(fleet: Served) -> None:
    await post(fleet, "/api/v1/models/remove", {"model": DIGEST, "nodes": ["n2"], "service": "x"}, 202)
    (command,) = await polled(fleet, "n2")
    assert (command.command, command.args) == ("remove_model", {"model": DIGEST, "service": "x"})


async def test_the_same_id_again_changes_nothing(fleet: Served) -> None:
    body = {"model": HUB, "nodes": ["n1"], "command_id": "mine", "timeout": 5}
    assert (await post(fleet, "/api/v1/models/pull", body, 202))["created"] is True
    assert (await post(fleet, "/api/v1/models/pull", body, 200))["created"] is False
    assert len(await polled(fleet)) == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"model": HUB}, 400, "nodes"),
        ({"model": HUB, "all": True, "nodes": ["n1"]}, 400, "nodes"),
        ({"model": HUB, "pool": "p", "selector": "a"}, 400, "pool"),
        ({"model": HUB, "pool": "nobody"}, 404, "selector"),
        ({"model": HUB, "nodes": ["n9"]}, 404, "node_id"),
        ({"model": HUB, "nodes": []}, 400, "nodes"),
        ({"model": "ftp://host/m", "all": True}, 400, "model"),
        ({"model": "https://user:pass@host/m", "all": True}, 400, "model"),
        ({"model": "hf:nothing", "all": True}, 400, "model"),
        ({"all": True}, 400, "model"),
        ({"model": "", "all": True}, 400, "model"),
        ({"model": HUB, "all": True, "timeout": -1}, 400, "timeout"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_issued(
    fleet: Served, body: dict[str, Any], status: int, field: str
) -> None:
    refused = await post(fleet, "/api/v1/models/pull", body, status)
    assert refused["field"] == field
    assert await polled(fleet) == ()


# --- in memory --------------------------------------------------------------------------------------------------------


def ollama(*models: Model) -> Service:
    return Service(
        name="ollama",
        connector="ollama",
        status=ServiceStatus.RUNNING,
        url="http://127.0.0.1:2",
        dialects=(Dialect.OLLAMA,),
        on_demand=True,
        models=models,
    )


async def managed(served: Served, name: str, *services: Service, free_mb: int = 4000) -> None:
    worker = Worker(worker_id=WorkerId(f"{name}-worker-0"), index=0, status=WorkerStatus.IDLE, connectors=("ollama",))
    policy = ModelPolicy(rules=(ModelRule(name="kept", pinned=True),))
    await served.plane.heartbeat(
        name,
        facts=NodeFacts(node_id=NodeId(name), models=policy),
        services=services,
        workers=(worker,),
        resources=Resources(memory_total_mb=8000, memory_used_mb=8000 - free_mb),
    )


MB = 1024 * 1024
WANTED = Model(name="wanted:latest", resident=False, size_bytes=2000 * MB)


async def test_what_is_in_memory_is_shown_with_who_asked_for_it(served: Served) -> None:
    kept = Model(name="kept", resident=True, memory_mb=900)
    resting = Service(
        name="llama",
        connector="llamacpp",
        status=ServiceStatus.STOPPED,
        managed=True,
        on_demand=True,
        models=(Model(name="tiny", resident=False),),
    )
    await managed(served, "n1", ollama(kept, WANTED), resting)
    served.plane.models.uses.answered([("n1/ollama", "kept")])
    served.plane.models.uses.asked("n1/ollama", "kept", "ann")
    rows = {row["name"]: row["nodes"][0] for row in await get(served, "/api/v1/models")}
    assert (rows["kept"]["pinned"], rows["kept"]["memory_mb"], rows["kept"]["asked_by"]) == (True, 900, "ann")
    assert rows["kept"]["used_at"] is not None
    assert (rows["wanted"]["resident"], rows["wanted"]["accepts_work"]) == (False, False)
    assert rows["wanted"]["reasons"] == ["has wanted on disk only"]
    assert (rows["tiny"]["on_demand"], rows["tiny"]["reasons"]) == (True, ["rests until somebody asks for it"])


async def test_a_load_without_a_place_goes_where_it_costs_least(served: Served) -> None:
    old = Model(name="old", resident=True, memory_mb=5000)
    await managed(served, "n1", ollama(old, WANTED), free_mb=1000)
    await post(served, "/api/v1/models/load", {"model": "wanted"}, 202)
    (command,) = await polled(served, "n1")
    assert (command.command, command.args) == (
        "load_model",
        {"model": "wanted", "service": "ollama", "unload": ["ollama/old"]},
    )
    assert served.plane.models.uses.of("n1/ollama", "wanted").asked_by is not None
    refused = await post(served, "/api/v1/models/load", {"model": "none"}, 503)
    assert "can be loaded nowhere now: no connected node has it on disk" in refused["message"]
    await served.plane.heartbeat("n1", services=(ollama(old),))
    refused = await post(served, "/api/v1/models/load", {"model": "old"}, 503)
    assert refused["message"] == "old can be loaded nowhere now: it is in memory on every node that can load it"


@pytest.mark.parametrize(
    ("action", "command"),
    [("load", "load_model"), ("unload", "unload_model"), ("pin", "pin_model"), ("unpin", "unpin_model")],
)
async def test_memory_is_spoken_of_by_what_services_call_a_model(served: Served, action: str, command: str) -> None:
    await managed(served, "n1", ollama(WANTED))
    await post(served, f"/api/v1/models/{action}", {"model": "wanted", "nodes": ["n1"]}, 202)
    (issued,) = await polled(served, "n1")
    assert (issued.command, issued.args) == (command, {"model": "wanted"})


@pytest.mark.parametrize("action", ["pin", "unpin"])
async def test_a_pin_is_for_the_whole_node(served: Served, action: str) -> None:
    await managed(served, "n1", ollama(WANTED))
    body = {"model": "wanted", "nodes": ["n1"], "service": "ollama"}
    refused = await post(served, f"/api/v1/models/{action}", body, 400)
    assert refused["field"] == "service"

"""What a node keeps, as its services, its heartbeats and commands see it."""

import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from muster.agent.artifacts.actions import ArtifactActions
from muster.agent.artifacts.door import DoorRules
from muster.agent.artifacts.fetcher import FetchRules
from muster.agent.artifacts.keeper import ArtifactMeans, Keeper
from muster.agent.artifacts.plan import Hub
from muster.agent.artifacts.room import DiskLimits
from muster.agent.artifacts.store import ArtifactStore
from muster.agent.board import Entry, ServiceBoard
from muster.agent.config import AgentConfig, ServiceTemplate
from muster.agent.outbox import Outbox
from muster.agent.services.actions import ServiceActions
from muster.agent.surroundings import Surroundings
from muster.domain.artifact import Artifact, ArtifactKind, ArtifactState, NodeArtifacts
from muster.domain.event import Event
from muster.domain.job import Progress
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.errors import (
    Conflict,
    InvalidInput,
    ModelNotFound,
    MusterError,
    NotFound,
    SetupError,
    UpstreamFailed,
)
from muster.ids import NodeId
from muster.ports import ReportProgress
from muster.system import SystemClock
from muster.wire import ArtifactQuery, ArtifactReply
from tests.file_server import Fault, FileServer
from tests.unit.agent.connectors import FakeConnector
from tests.unit.agent.nodes import FakePlane
from tests.unit.agent_artifacts.fetching import archive_of, quick_downloads, sha
from tests.waiting import eventually

CONTENT = b"GGUF" + bytes(1000)
NODE = NodeId("n1")


class Library(FakeConnector):
    """A connector whose services fetch and delete models themselves."""

    def __init__(self) -> None:
        super().__init__("ollama")
        self.pulled: list[str] = []
        self.removed: list[str] = []

    async def pull_model(self, service: Service, model: str, report: ReportProgress) -> Any:
        report(Progress(fraction=0.5))
        self.pulled.append(model)
        return {"model": model, "service": service.name}

    async def remove_model(self, service: Service, model: str) -> Any:
        self.removed.append(model)
        return {"model": model, "service": service.name}


async def built_in(name: str) -> Path:
    if name == "smol":
        return Path("/built-in/smol.gguf")
    raise SetupError(f"there is no model {name!r}", next_step="name another")


class KeeperBench:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        folder: Path,
        server: FileServer,
        *templates: ServiceTemplate,
        pins: tuple[str, ...] = (),
        means: bool = True,
        disk_bytes_max: int = 0,
        shares: bool = True,
    ) -> None:
        self.board = ServiceBoard()
        self.connectors = {"work": FakeConnector("work"), "ollama": Library()}
        self.outbox = Outbox(NODE, SystemClock())
        self.around = Surroundings(
            address="127.0.0.1",
            connectors=self.connectors,
            board=self.board,
            outbox=self.outbox,
            clock=SystemClock(),
            rng=random.Random(1),
            look_every_s=1.0,
        )
        self.store = ArtifactStore(folder, SystemClock())
        self.shown: list[tuple[str, float | None]] = []
        self.plane = FakePlane()
        self.keeper = Keeper(
            AgentConfig(node_id=NODE, services=templates, models=pins),
            ArtifactMeans(
                store=self.store,
                sources=quick_downloads(session),
                nodes=quick_downloads(session),
                rules=FetchRules(hub=Hub(url=server.url())),
                disk=DiskLimits(disk_bytes_max=disk_bytes_max),
                door=DoorRules() if shares else None,
                progress=lambda text, fraction: self.shown.append((text, fraction)),
            )
            if means
            else None,
            built_in,
            self.plane,
            self.around,
            self._note_late,
        )
        self.late: list[str] = []
        self.needs = self.keeper.needs
        services = ServiceActions(self.board, self.connectors, built_in, lambda: None)
        self.actions = ArtifactActions(self.keeper, services)
        self.progress: list[Progress] = []

    async def _note_late(self, service: str) -> None:
        self.late.append(service)

    def put(self, name: str, status: ServiceStatus, connector: str = "work", models: tuple[Model, ...] = ()) -> None:
        service = Service(name=name, connector=connector, status=status, url="http://x", models=models)
        self.board.put(Entry(service=service, public_url=None))

    def events(self) -> list[Event]:
        return list(self.outbox.batch(500))

    async def pull(self, model: str, **args: Any) -> Any:
        return await self.actions.pull_model({"model": model} | args, self.progress.append)

    async def remove(self, model: str, **args: Any) -> Any:
        return await self.actions.remove_model({"model": model} | args, self.progress.append)


def served(name: str = "llama", **more: Any) -> ServiceTemplate:
    return ServiceTemplate(**({"name": name, "connector": "work", "command": ("serve", "{model_path}")} | more))


def content_of(path: str) -> bytes:
    return Path(path).read_bytes()


async def test_what_services_name_is_fetched_before_they_start(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    model, bundle = server.put("/m.gguf", CONTENT), server.put("/b.tgz", archive_of(run=b"1"))
    template = served(model=model, bundle=bundle, command=("{bundle_path}/run", "{model_path}", "{model:smol}"))
    bench = KeeperBench(session, tmp_path, server, template, served("other", model=model, per="gpu"))
    bench.needs.plan([0, 1, 2, 3])
    await bench.keeper.start()
    assert await bench.keeper.fetch_needed() == {}
    assert content_of(bench.keeper.paths[model]) == CONTENT
    assert (Path(bench.keeper.paths[bundle]) / "run").read_bytes() == b"1"
    assert bench.keeper.paths["smol"] == "/built-in/smol.gguf"
    assert server.count("/m.gguf") == server.count("/b.tgz") == 1
    assert any(text == f"fetching {model}" and fraction == 1.0 for text, fraction in bench.shown)
    await bench.keeper.stop()


async def test_the_cache_is_cleaned_before_anything_is_fetched(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    bench = KeeperBench(session, tmp_path, server)
    with structlog.testing.capture_logs() as said:
        await bench.keeper.start()
    assert said[0]["event"] == "artifact_store_cleaned"
    await bench.keeper.stop()


async def test_bundles_are_compared_with_their_source_at_each_start_and_models_are_not(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    model, bundle = server.put("/m.gguf", CONTENT), server.put("/b.tgz", archive_of(run=b"1"))
    template = served(model=model, bundle=bundle)
    for run in (b"1", b"22"):
        server.put("/b.tgz", archive_of(run=run))
        bench = KeeperBench(session, tmp_path, server, template)
        bench.needs.plan([])
        await bench.keeper.fetch_needed()
        assert (Path(bench.keeper.paths[bundle]) / "run").read_bytes() == run
        await bench.keeper.stop()
    assert server.count("/m.gguf") == 1


async def test_how_far_it_is_stands_on_the_services_that_wait(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    model = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(hold_at=452))
    bench = KeeperBench(session, tmp_path, server, served(model=model, per="gpu"))
    bench.needs.plan([0, 1])
    waiting = asyncio.create_task(bench.keeper.fetch_needed())
    await eventually(lambda: len(bench.board.services()) == 2)
    assert [service.name for service in bench.board.services()] == ["llama-gpu0", "llama-gpu1"]
    assert all(service.status is ServiceStatus.STARTING for service in bench.board.services())
    assert all((service.error or "").startswith(f"fetching {model}: ") for service in bench.board.services())
    reported = await eventually(lambda: fetching(bench))
    assert reported[0].fraction
    server.go_on()
    await waiting
    await bench.keeper.stop()


async def fetching(bench: KeeperBench) -> list[Artifact]:
    return [
        each for each in (await bench.keeper.report()).kept if each.state is ArtifactState.FETCHING and each.fraction
    ]


async def test_what_cannot_be_had_is_missing_with_the_next_step_and_is_tried_again_with_the_service(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    model = server.url("/m.gguf")
    bench = KeeperBench(session, tmp_path, server, served(model=model), served("x", model="unknown"))
    bench.needs.plan([])
    missing = await bench.keeper.fetch_needed()
    assert "404" in missing[model]
    assert "check the name" in missing[model]
    assert missing["unknown"] == "there is no model 'unknown': name another"
    assert [event.kind for event in bench.events()] == ["artifact_failed"]
    report = await bench.keeper.report()
    assert (report.kept[0].state, report.kept[0].name) == (ArtifactState.FAILED, model)
    server.put("/m.gguf", CONTENT)
    with pytest.raises(Conflict):  # nobody supervises here; but first it was fetched
        await bench.actions.restart({"service": "llama"}, bench.progress.append)
    assert bench.keeper.missing.keys() == {"unknown"}
    assert (await bench.keeper.report()).kept[0].state is ArtifactState.ON_DISK
    await bench.keeper.stop()


async def test_a_pinned_model_is_fetched_though_no_service_names_it_and_nobody_waits_for_it(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.agent.artifacts.keeper._AGAIN_S", 0.01)
    model = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(status=404))
    bench = KeeperBench(session, tmp_path, server, pins=(f"{model}#sha256={sha(CONTENT)}",))
    bench.needs.plan([])
    await bench.keeper.start()
    assert await bench.keeper.fetch_needed() == {}
    kept = await eventually(lambda: on_disk(bench))
    assert (kept[0].name, kept[0].pinned, kept[0].digest) == (model, True, sha(CONTENT))
    assert server.count("/m.gguf") == 2
    await bench.remove(model)  # whoever says so may; it is not in use
    await bench.keeper.stop()


async def test_a_service_that_failed_for_want_of_a_model_is_started_once_that_can_be_had(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.agent.artifacts.keeper._AGAIN_S", 0.01)
    model, other = server.url("/m.gguf"), server.url("/other")
    server.always["/m.gguf"] = server.always["/other"] = Fault(status=404)
    lacks_both = served("both", model=other, command=("serve", "{model_path}", f"{{model:{model}}}"))
    bench = KeeperBench(session, tmp_path, server, served(model=model), served("fine", model="smol"), lacks_both)
    bench.needs.plan([])
    await bench.keeper.fetch_needed()
    for name, status in (
        ("llama", ServiceStatus.FAILED),
        ("both", ServiceStatus.FAILED),
        ("fine", ServiceStatus.RUNNING),
    ):
        bench.put(name, status)
    await bench.keeper.start()
    await eventually(lambda: server.count("/m.gguf") > 2)
    assert bench.late == []
    server.put("/m.gguf", CONTENT)
    del server.always["/m.gguf"]
    await eventually(lambda: bench.late)
    assert bench.late == ["llama"]
    assert bench.keeper.missing.keys() == {other}
    await bench.keeper.stop()


async def on_disk(bench: KeeperBench) -> list[Artifact]:
    return [artifact for artifact in (await bench.keeper.report()).kept if artifact.state is ArtifactState.ON_DISK]


async def test_what_a_service_uses_cannot_be_removed_and_afterwards_it_can(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    model = server.put("/m.gguf", CONTENT)
    bench = KeeperBench(session, tmp_path, server, served(model=model))
    bench.needs.plan([])
    await bench.keeper.fetch_needed()
    with pytest.raises(Conflict, match="in use"):
        await bench.remove(model)
    bench.put("llama", ServiceStatus.RUNNING)
    (kept,) = (await bench.keeper.report()).kept
    assert kept.services == ("llama",)
    bench.put("llama", ServiceStatus.STOPPED)
    assert not bench.store.is_in_use(sha(CONTENT))
    bench.put("llama", ServiceStatus.STARTING)
    assert bench.store.is_in_use(sha(CONTENT))
    bench.put("llama", ServiceStatus.FAILED)
    removed = await bench.remove(model)
    assert (removed["freed_bytes"], removed["digest"]) == (len(CONTENT), sha(CONTENT))
    assert (await bench.keeper.report()).kept == ()
    assert bench.events()[-1].kind == "artifact_removed"
    bench.put("llama", ServiceStatus.STARTING)  # nothing to hold any more
    await bench.keeper.stop()


async def test_a_newer_version_is_held_by_who_starts_with_it_and_the_older_one_until_then(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    model = server.put("/m.gguf", CONTENT)
    bench = KeeperBench(session, tmp_path, server, served(model=model))
    bench.needs.plan([])
    await bench.keeper.fetch_needed()
    bench.put("llama", ServiceStatus.RUNNING)
    server.put("/m.gguf", CONTENT + b"!")
    await bench.pull(model)
    bench.put("llama", ServiceStatus.UNHEALTHY)
    assert (bench.store.is_in_use(sha(CONTENT)), bench.store.is_in_use(sha(CONTENT + b"!"))) == (True, False)
    await bench.keeper.fetch_needed(["llama"])
    assert (bench.store.is_in_use(sha(CONTENT)), bench.store.is_in_use(sha(CONTENT + b"!"))) == (False, True)
    assert content_of(bench.keeper.paths[model]) == CONTENT + b"!"
    await bench.keeper.stop()


async def test_what_a_service_at_rest_needs_goes_last(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    model, other = server.put("/m.gguf", CONTENT), server.put("/other", b"o" * 1000)
    bench = KeeperBench(session, tmp_path, server, served(model=model), disk_bytes_max=2500)
    bench.needs.plan([])
    await bench.keeper.fetch_needed()
    bench.put("llama", ServiceStatus.STOPPED)
    await bench.pull(other)
    await bench.pull(server.put("/third", b"t" * 1000))
    assert {artifact.name for artifact in (await bench.keeper.report()).kept} == {model, server.url("/third")}
    await bench.keeper.stop()


async def test_others_are_told_where_to_get_it_while_the_door_is_open(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    bench = KeeperBench(session, tmp_path, server)
    await bench.keeper.start()
    report = await bench.keeper.report()
    assert report.url is not None
    assert report.url.startswith("http://127.0.0.1:")
    assert len(report.ticket_key or "") == 32
    await bench.keeper.stop()
    assert await bench.keeper.report() == NodeArtifacts()
    closed = KeeperBench(session, tmp_path, server, shares=False)
    await closed.keeper.start()
    assert (await closed.keeper.report()).url is None


async def test_without_means_only_what_is_here_is_there(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    bench = KeeperBench(session, tmp_path, server, served(model="smol"), means=False)
    bench.needs.plan([])
    await bench.keeper.start()
    assert await bench.keeper.fetch_needed() == {}
    assert await bench.keeper.report() == NodeArtifacts()
    with pytest.raises(SetupError):
        await bench.keeper.fetch(server.url("/m"), ArtifactKind.MODEL, lambda _, __: None)
    with pytest.raises(NotFound):
        await bench.keeper.remove(server.url("/m"))
    await bench.keeper.stop()


async def test_a_model_is_pulled_with_its_progress_and_pulled_again_only_when_it_has_changed(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    model = server.put("/m.gguf", CONTENT)
    bench = KeeperBench(session, tmp_path, server)
    first = await bench.pull(model)
    assert content_of(first["path"]) == CONTENT
    assert bench.progress[-1].fraction == 1.0
    assert await bench.pull(model) == first
    assert "if-none-match" in server.asked[-1].headers
    with pytest.raises(UpstreamFailed, match="; next: "):
        await bench.pull(server.url("/none"))
    with pytest.raises(UpstreamFailed, match="no other node"):
        await bench.pull(server.url("/none"), **{"from": "fleet"})
    with pytest.raises(InvalidInput, match="from must be"):
        await bench.pull(model, **{"from": "moon"})


async def test_models_of_a_library_are_left_to_it(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    bench = KeeperBench(session, tmp_path, server)
    with pytest.raises(Conflict, match="no ollama service runs here"):
        await bench.pull("ollama:qwen2.5:0.5b")
    bench.put("work", ServiceStatus.RUNNING)
    bench.put("ollama", ServiceStatus.RUNNING, "ollama", (Model(name="qwen2.5:0.5b"),))
    await bench.pull("ollama:qwen2.5:0.5b")
    await bench.pull("plain", service="ollama")
    library = bench.connectors["ollama"]
    assert isinstance(library, Library)
    assert library.pulled == ["qwen2.5:0.5b", "plain"]
    await bench.remove("ollama:qwen2.5:0.5b")
    await bench.remove("qwen2.5:0.5b")
    assert library.removed == ["qwen2.5:0.5b"] * 2
    with pytest.raises(ModelNotFound):
        await bench.remove("ollama:other")
    with pytest.raises(UpstreamFailed, match="it is no ollama service"):
        await bench.pull("ollama:x", service="work")
    bench.put("work", ServiceStatus.RUNNING, models=(Model(name="fixed"),))
    with pytest.raises(Conflict, match="cannot delete a model"):
        await bench.remove("fixed")
    for name in (server.url("/m"), "0" * 64):
        with pytest.raises(NotFound):
            await bench.remove(name)


async def test_the_control_plane_is_asked_in_this_nodes_name(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = KeeperBench(session, tmp_path, server, disk_bytes_max=1500)
    queries: list[ArtifactQuery] = []

    async def find(query: ArtifactQuery) -> ArtifactReply:
        queries.append(query)
        if query.kept:
            raise MusterError("away")
        return ArtifactReply()

    monkeypatch.setattr(bench.plane, "find_artifacts", find)
    model = server.put("/m.gguf", CONTENT)
    await bench.pull(model)
    assert queries == [ArtifactQuery(node_id=NODE, name=model, fetches=True)]
    await bench.pull(server.put("/o", b"o" * 1000))  # nobody says who else has it: the oldest goes
    assert queries[-1] == ArtifactQuery(node_id=NODE, kept=(sha(CONTENT),))

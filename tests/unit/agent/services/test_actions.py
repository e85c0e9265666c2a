"""What commands can do to services, and how what cannot be done is refused."""

from pathlib import Path
from typing import Any

import pytest

from muster.agent.board import Entry, ServiceBoard
from muster.agent.services.actions import ServiceActions
from muster.domain.job import Progress
from muster.domain.model import Model
from muster.domain.service import Service, ServiceStatus
from muster.errors import Conflict, ModelNotFound, MusterError, NotFound, SetupError, UpstreamFailed
from muster.ports import Connector, ReportProgress
from tests.unit.agent.connectors import FakeConnector


class Capable(FakeConnector):
    """A connector whose services fetch models and let go of them."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.did: list[tuple[str, str, str]] = []

    async def pull_model(self, service: Service, model: str, report: ReportProgress) -> str:
        report(Progress(fraction=0.5))
        self.did.append(("pull", service.name, model))
        return "pulled"

    async def unload_model(self, service: Service, model: str) -> str:
        self.did.append(("unload", service.name, model))
        return "unloaded"


class Bench:
    def __init__(self, **connectors: Connector) -> None:
        self.board = ServiceBoard()
        self.told: list[Progress] = []
        self.actions = ServiceActions(self.board, connectors, self.fetch, lambda: None)

    async def fetch(self, model: str) -> Path:
        if model == "built-in":
            return Path("/models/built-in.gguf")
        raise SetupError(f"there is no model {model!r}", next_step="use a built-in one")

    def put(self, name: str, connector: str, *models: str, status: ServiceStatus = ServiceStatus.RUNNING) -> None:
        held = tuple(Model(name=model) for model in models)
        service = Service(name=name, connector=connector, status=status, url="http://127.0.0.1:1", models=held)
        self.board.put(Entry(service=service, public_url=None))

    async def pull(self, model: str, **more: str) -> Any:
        return await self.actions.pull_model({"model": model} | more, self.told.append)

    async def unload(self, model: str, **more: str) -> Any:
        return await self.actions.unload_model({"model": model} | more, self.told.append)


async def test_a_built_in_model_is_fetched_once_for_the_node() -> None:
    assert await Bench().pull("built-in") == {"model": "built-in", "path": "/models/built-in.gguf"}


async def test_another_model_is_fetched_by_the_first_service_that_can() -> None:
    able = Capable("able")
    bench = Bench(dull=FakeConnector("dull"), able=able)
    bench.put("one", "dull")
    bench.put("down", "able", status=ServiceStatus.STOPPED)
    bench.put("two", "able")
    assert await bench.pull("llama3") == "pulled"
    assert able.did == [("pull", "two", "llama3")]
    assert bench.told == [Progress(fraction=0.5)]


async def test_a_service_that_is_named_is_the_only_one_asked() -> None:
    able = Capable("able")
    bench = Bench(dull=FakeConnector("dull"), able=able)
    bench.put("one", "dull")
    bench.put("two", "able")
    bench.put("three", "able")
    assert await bench.pull("built-in", service="three") == "pulled"
    assert able.did == [("pull", "three", "built-in")]
    with pytest.raises(Conflict, match=r"^one \(dull\) cannot fetch models$"):
        await bench.pull("built-in", service="one")


@pytest.mark.parametrize(
    ("service", "problem", "text"),
    [
        ("nothing", NotFound, "this node has no service 'nothing'; it has one, down"),
        ("down", UpstreamFailed, "down does not run: it is stopped"),
    ],
)
async def test_a_service_that_is_not_there_or_does_not_run_is_named(
    service: str, problem: type[MusterError], text: str
) -> None:
    bench = Bench(dull=FakeConnector("dull"))
    bench.put("one", "dull")
    bench.put("down", "dull", status=ServiceStatus.STOPPED)
    with pytest.raises(problem, match=text):
        await bench.pull("x", service=service)


async def test_where_nobody_can_fetch_a_model_all_are_named() -> None:
    bench = Bench(dull=FakeConnector("dull"))
    bench.put("one", "dull")
    with pytest.raises(Conflict, match=r"one \(dull\) cannot fetch models; there is no model 'x': use a built-in one"):
        await bench.pull("x")
    with pytest.raises(Conflict, match="no service runs here that could fetch models"):
        await Bench().pull("x")


async def test_a_model_is_unloaded_where_it_is() -> None:
    able = Capable("able")
    bench = Bench(able=able, dull=FakeConnector("dull"))
    bench.put("one", "able", "other")
    bench.put("two", "able", "llama3:latest")
    assert await bench.unload("llama3") == "unloaded"
    assert able.did == [("unload", "two", "llama3")]
    with pytest.raises(ModelNotFound, match="has the model 'llama4'"):
        await bench.unload("llama4")
    bench.put("three", "dull", "stuck")
    with pytest.raises(Conflict, match=r"three \(dull\) cannot let go of a model"):
        await bench.unload("stuck")


async def test_what_this_agent_does_not_manage_is_left_alone() -> None:
    bench = Bench(dull=FakeConnector("dull"))
    bench.put("one", "dull")
    with pytest.raises(
        Conflict, match="one was found running and is not managed by this agent: it cannot be restarted"
    ):
        await bench.actions.restart({"service": "one"}, bench.told.append)
    with pytest.raises(NotFound, match="this node has no service 'two'; it has one"):
        await bench.actions.logs({"service": "two"}, bench.told.append)
    with pytest.raises(NotFound, match="it has none"):
        await Bench().actions.logs({"service": "two"}, bench.told.append)

"""What cannot be loaded is refused in words, and what people have pinned is kept."""

from pathlib import Path
from typing import Any

import pytest

from muster.agent.board import Entry, ServiceBoard
from muster.agent.gpus.turns import GpuTurns
from muster.agent.outbox import Outbox
from muster.agent.services.actions import ServiceActions
from muster.agent.services.residency import Pins, Residency
from muster.domain.model import Model
from muster.domain.residency import ModelPolicy, ModelRule
from muster.domain.service import Service, ServiceStatus
from muster.errors import Conflict, ModelNotFound
from muster.ids import NodeId
from muster.ports import Connector
from tests.unit.agent.connectors import FakeConnector
from tests.unit.agent.nodes import no_model
from tests.unit.agent.virtual_time import LoopClock, in_virtual_time, time_passes

URL = "http://127.0.0.1:1"


class Loading(FakeConnector):
    """Has its models in memory as it is told; `alive` shows it."""

    def __init__(self, name: str = "ollama") -> None:
        super().__init__(name)
        self.did: list[str] = []

    def hold(self, *resident: str, on_disk: tuple[str, ...] = ()) -> None:
        models = [Model(name=name, resident=True) for name in resident]
        models += [Model(name=name, resident=False) for name in on_disk]
        self.alive[URL] = Service(
            name=self.name, connector=self.name, status=ServiceStatus.RUNNING, url=URL, models=tuple(models)
        )

    async def load_model(self, service: Service, model: str, *, stays: bool) -> None:
        self.did.append(f"load {service.name}/{model}{' to stay' if stays else ''}")

    async def unload_model(self, service: Service, model: str) -> None:
        self.did.append(f"unload {service.name}/{model}")
        self.hold(on_disk=(model,))


class Bench:
    def __init__(self, tmp_path: Path, policy: ModelPolicy | None = None, **connectors: Connector) -> None:
        self.board = ServiceBoard()
        self.outbox = Outbox(NodeId("n"), LoopClock())
        self.residency = Residency(
            policy,
            self.board,
            connectors,
            ServiceActions(self.board, connectors, no_model, lambda: None),
            lambda: None,
            GpuTurns((), self.board.services, LoopClock(), self.outbox),
            self.outbox,
            LoopClock(),
            tmp_path,
            look_every_s=1.0,
        )

    def put(self, connector: str, *models: Model, status: ServiceStatus = ServiceStatus.RUNNING) -> None:
        service = Service(name=connector, connector=connector, status=status, url=URL, models=models)
        self.board.put(Entry(service=service, public_url=URL))

    async def load(self, model: str, **more: Any) -> dict[str, Any]:
        return await self.residency.load({"model": model} | more, lambda _: None)

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.outbox.batch(500) if event.kind == kind]


COLD, WARM = Model(name="cold", resident=False), Model(name="warm:latest", resident=True)


@in_virtual_time
async def test_what_is_resident_is_not_loaded_again(tmp_path: Path) -> None:
    ollama = Loading()
    bench = Bench(tmp_path, ollama=ollama)
    bench.put("ollama", WARM)
    assert await bench.load("warm") == {"model": "warm", "service": "ollama", "resident": True}
    assert ollama.did == []


@in_virtual_time
async def test_who_makes_room_goes_first(tmp_path: Path) -> None:
    ollama = Loading()
    ollama.hold("warm:latest")
    bench = Bench(tmp_path, ollama=ollama)
    bench.put("ollama", WARM, COLD)
    await bench.load("cold", unload=["ollama/warm"])
    assert ollama.did == ["unload ollama/warm", "load ollama/cold"]
    assert bench.told("model_loaded")[0]["instead_of"] == ["ollama/warm"]


@in_virtual_time
async def test_what_cannot_be_loaded_is_refused_in_words(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ollama=Loading(), llamacpp=FakeConnector("llamacpp"))
    bench.put("llamacpp", WARM)
    bench.put("ollama", COLD, status=ServiceStatus.UNHEALTHY)
    with pytest.raises(ModelNotFound, match=r"no service of this node has the model 'none'. There are: cold, warm"):
        await bench.load("none")
    with pytest.raises(ModelNotFound, match="as llamacpp"):
        await bench.load("cold", service="llamacpp")
    with pytest.raises(Conflict, match=r"llamacpp .llamacpp, running. has warm in memory already"):
        await bench.load("warm")
    with pytest.raises(Conflict, match=r"ollama .ollama, unhealthy. does not run: start it as it was started before"):
        await bench.load("cold")
    bench.put("ollama", COLD, status=ServiceStatus.STARTING)
    with pytest.raises(Conflict, match="is not ready to load cold: wait until it runs"):
        await bench.load("cold")
    bench.put("llamacpp", COLD)
    with pytest.raises(Conflict, match=r"cannot load a model by command: it loads cold by itself when .*; ollama"):
        await bench.load("cold")


@in_virtual_time
async def test_nothing_is_loaded_while_the_owner_has_the_machine(tmp_path: Path) -> None:
    ollama = Loading()
    ollama.hold("warm:latest")
    bench = Bench(tmp_path, ollama=ollama)
    bench.put("ollama", WARM, COLD)
    await bench.residency.pause()
    assert ollama.did == ["unload ollama/warm:latest"]
    with pytest.raises(Conflict, match="owner"):
        await bench.load("cold")
    await bench.residency.resume()
    await bench.load("cold")


@in_virtual_time
async def test_a_pinned_model_that_went_is_loaded_again_and_failures_are_told_now_and_then(tmp_path: Path) -> None:
    ollama = Loading()
    bench = Bench(tmp_path, ModelPolicy(rules=(ModelRule(name="cold", pinned=True),)), ollama=ollama)
    await bench.residency.start()
    await time_passes(40.0)
    assert len(bench.told("pinned_model_not_loaded")) == 2, "nobody has it yet"
    bench.put("ollama", COLD)
    await time_passes(40.0)
    assert ollama.did[0] == "load ollama/cold to stay"
    bench.put("ollama", Model(name="cold", resident=True))
    loads = len(ollama.did)
    await time_passes(100.0)
    assert len(ollama.did) == loads
    await bench.residency.stop()


def test_pins_are_over_what_the_nodes_file_says_and_are_kept(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "pins.json")
    by_file = ModelPolicy(rules=(ModelRule(name="a", pinned=True, memory_mb=5), ModelRule(name="c")))
    assert pins.over(by_file) is by_file
    assert pins.over(None) is None
    pins.put("a:latest", pinned=False)
    pins.put("b", pinned=True)
    expected = (ModelRule(name="c"), ModelRule(name="a", memory_mb=5), ModelRule(name="b", pinned=True))
    assert Pins(tmp_path / "pins.json").over(by_file) == ModelPolicy(rules=expected)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_file_of_pins_that_cannot_be_read_pins_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "pins.json").write_text(text)
    assert Pins(tmp_path / "pins.json").over(None) is None

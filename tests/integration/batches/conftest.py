"""A fleet of one real llama.cpp: `muster server`, an agent that attaches the engine, and the official client."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.llama_server import LlamaServer, start_llama_server
from tests.muster_process import ControlPlane, MusterProcess
from tests.tiny_model import make_tiny_model
from tests.waiting import eventually_sync

SLOTS = 2


class SmallFleet:
    def __init__(self, folder: Path, engine: LlamaServer) -> None:
        self.engine = engine
        self.plane = ControlPlane(
            folder / "plane", env={"MUSTER_STOP_TIMEOUT_S": "1", "MUSTER_JOB_SWEEP_S": "0.1", "MUSTER_MODEL": "none"}
        )
        self.agent = MusterProcess(
            folder / "agent",
            "agent",
            env={
                "MUSTER_CONTROL_PLANE": self.plane.url,
                "MUSTER_NODE_ID": "gpu-1",
                "MUSTER_ATTACH": f"llamacpp={engine.url}",
                "MUSTER_DISCOVER": "false",
                "MUSTER_MODEL": "none",
                "MUSTER_HEARTBEAT_INTERVAL_S": "1",
                "MUSTER_DATA_DIR": str(folder / "agent" / "data"),
            },
        )
        self.client = openai.OpenAI(base_url=f"{self.plane.url}/v1", api_key="none", max_retries=0, timeout=30)

    def start(self) -> "SmallFleet":
        self.plane.start()
        self.agent.start()
        self.wait_until_served()
        return self

    def wait_until_served(self) -> None:
        eventually_sync(lambda: self.engine.alias in {model.id for model in self.client.models.list()}, 60)
        eventually_sync(lambda: self.plane.get("/api/v1/stats")["connected"] == 1, 60)

    def stop(self) -> None:
        self.client.close()
        self.agent.kill()
        self.plane.kill()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    model = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")
    with start_llama_server(model, slots=SLOTS) as server:
        yield server


@pytest.fixture(scope="module")
def fleet(engine: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFleet]:
    made = SmallFleet(tmp_path_factory.mktemp("fleet"), engine)
    try:
        yield made.start()
    finally:
        made.stop()

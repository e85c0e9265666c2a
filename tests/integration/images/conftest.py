"""A control plane whose gateway has image models, a worker for them, and OpenAI's client."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import openai
import pytest

from muster.control.images.desk import ImageDesk
from muster.control.images.models import ImageModels
from muster.stores.files.directory import DirectoryFiles
from muster.system import SystemClock, system_rng
from tests.artist import Artist, workflow, write_model
from tests.integration.api.conftest import Served, serving
from tests.planes import PlaneUnderTest

Open = Callable[[str], AbstractAsyncContextManager["Studio"]]


class Studio:
    def __init__(self, served: Served, desk: ImageDesk) -> None:
        self.served = served
        self.plane = served.plane
        self.desk = desk
        self.artist = Artist(served.plane)
        self._clients: dict[str, openai.AsyncOpenAI] = {}

    def client(self, token: str = "none") -> openai.AsyncOpenAI:
        if token not in self._clients:
            self._clients[token] = openai.AsyncOpenAI(
                base_url=f"{self.served.url}/v1", api_key=token, max_retries=0, timeout=20.0
            )
        return self._clients[token]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()


def pictures(answer: openai.types.ImagesResponse) -> list[openai.types.Image]:
    return list(answer.data or [])


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    models, files = tmp_path / "models", tmp_path / "files"
    write_model(models, "one", workflow(sizes=["512x512", "640x320"], n_max=4))
    write_model(models, "batch", workflow(batch=True))
    write_model(models, "broken", workflow(n_max="many"))

    @asynccontextmanager
    async def open_it(token: str = "") -> AsyncIterator[Studio]:
        desks = []

        def desk_of(plane: PlaneUnderTest) -> ImageDesk:
            desk = ImageDesk(
                ImageModels(models),
                plane.jobs,
                lambda: DirectoryFiles(files),
                SystemClock(),
                system_rng(),
                waiting_max=10,
                wait_s=20.0,
                timeout_s=30.0,
            )
            desks.append(desk)
            return desk

        async with serving(token, images=desk_of, files=files) as served:
            (desk,) = desks
            await desk.start()
            studio = Studio(served, desk)
            try:
                yield studio
            finally:
                await studio.close()
                await desk.stop()

    return open_it


@pytest.fixture
async def studio(opened: Open) -> AsyncIterator[Studio]:
    async with opened("") as studio:
        yield studio

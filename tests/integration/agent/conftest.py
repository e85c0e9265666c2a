from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from muster.agent.backoff import Backoff
from muster.agent.config import ServiceTemplate
from muster.agent.services import supervisor as supervisors
from tests.integration.agent.services import Site

Open = Callable[..., Site]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have services started again without delay."""
    monkeypatch.setattr(supervisors, "_RESTART_BACKOFF", Backoff(base_s=0.05, max_s=0.1))


@pytest.fixture
async def site(tmp_path: Path, soon: None) -> AsyncIterator[Open]:
    sites = []
    async with aiohttp.ClientSession() as session:

        def open_site(*templates: ServiceTemplate, **more: Any) -> Site:
            sites.append(Site(session, more.pop("data_dir", tmp_path), *templates, **more))
            return sites[-1]

        yield open_site
        for opened in sites:
            await opened.supervisor.stop()

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.devices.nvml import NvmlProbe
from tests.clocks import ManualClock
from tests.integration.devices.made_nvml import MadeNvml


@pytest.fixture
def driver(tmp_path: Path) -> MadeNvml:
    return MadeNvml(tmp_path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def probe(driver: MadeNvml, clock: ManualClock) -> AsyncIterator[NvmlProbe]:
    nvidia = NvmlProbe(command=driver.command, clock=clock, is_there=lambda: True)
    yield nvidia
    await nvidia.close()

"""A supervisor in a process of its own, to be killed: `python -m … DATA_DIR OPTIONS`, which are JSON."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from muster.agent.config import ServiceTemplate
from muster.agent.services.cgroups import Cgroups
from tests.integration.agent.services import Site

_ROOT = Path(__file__).parents[3]


class SupervisorProcess:
    """Its services, and the pids that they had when they were up."""

    def __init__(self, data_dir: Path, *templates: ServiceTemplate, **options: Any) -> None:
        words = [sys.executable, "-m", __name__, str(data_dir), msgspec.json.encode([templates, options]).decode()]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=_ROOT)
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, b"")
        pids = next((line for line in lines if line.startswith(b"{")), None)
        assert pids is not None, "it ended before its services were up"
        self.pids: dict[str, int] = json.loads(pids)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


async def main(data_dir: str, text: str) -> None:
    templates, options = msgspec.json.decode(text, type=tuple[list[ServiceTemplate], dict[str, Any]])
    if "cgroup_root" in options:
        options["cgroups"] = Cgroups(Path(options.pop("cgroup_root")))
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with aiohttp.ClientSession() as session:
        site = Site(session, Path(data_dir), *templates, **options)
        await site.supervisor.start()
        sys.stdout.write(json.dumps({service.name: service.pid for service in site.board.services()}) + "\n")
        sys.stdout.flush()
        await stopping.wait()
        await site.supervisor.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

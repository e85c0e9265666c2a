"""Many machines in one process: each a whole agent with its own links, so that a large fleet starts in seconds.

python -m tests.conformance.queue.machines FOLDER NAME=GPUS... with the settings of all in the environment.
"""

import asyncio
import os
import sys
from pathlib import Path

from muster.app.logs import configure_logs
from muster.app.node import LocalNode
from muster.settings import load_settings

_STARTED_AT_ONCE = 10


async def run(folder: Path, gpus_of: dict[str, str]) -> None:
    configure_logs("warning")
    few = asyncio.Semaphore(_STARTED_AT_ONCE)

    async def start(name: str, gpus: str) -> None:
        env = os.environ | {"MACHINE_ID": name, "NUM_GPUS": gpus, "MUSTER_DATA_DIR": str(folder / name)}
        async with few:
            await LocalNode(load_settings({}, env=env), lambda *_: None).start()

    await asyncio.gather(*(start(name, gpus) for name, gpus in gpus_of.items()))
    await asyncio.Event().wait()  # until this process is killed, as machines that crash are


def main() -> None:
    asyncio.run(run(Path(sys.argv[1]), dict(machine.split("=") for machine in sys.argv[2:])))


if __name__ == "__main__":
    main()

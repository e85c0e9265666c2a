"""Muster's gateway alone, on a fleet that does not change: what the gateway benchmark measures.

python -m bench.gateway_server PORT UPSTREAM_URL... ; prints READY when it listens.
"""

import asyncio
import random
import sys
from collections.abc import Sequence
from typing import Any

import uvloop

from muster.access.roles import Right
from muster.domain.model import Model
from muster.domain.service import Dialect
from muster.errors import MusterError, Unauthorized
from muster.gateway import Front, Gateway
from muster.ids import NodeId
from muster.placement.candidate import Candidate
from muster.system import SystemClock, search_for_cycles_seldom

# The pace that the upstream is to keep is in the model's name: chunks x microseconds.
MODELS = ("mock", "mock-200x10000", "mock-40x50000", "mock-200x0")


class StillFleet:
    version = 1

    def __init__(self, urls: Sequence[str]) -> None:
        self._candidates = tuple(
            Candidate(
                key=f"node-{number}/engine",
                node_id=NodeId(f"node-{number}"),
                service="engine",
                connector="openai",
                url=url,
                dialects=(Dialect.OPENAI, Dialect.OLLAMA),
                models={name: Model(name=name) for name in MODELS},
            )
            for number, url in enumerate(urls)
        )

    def candidates(self) -> Sequence[Candidate]:
        return self._candidates


async def web(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything that is not the gateway's: the part that uvicorn serves."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def _with_token(shown: bytes | None, _: Right) -> MusterError | None:
    return None if shown else Unauthorized("a token is needed")


async def main(port: int, urls: Sequence[str]) -> None:
    gateway = Gateway(StillFleet(urls), clock=SystemClock(), rng=random.Random(), authenticate=_with_token)
    front = Front(gateway, web, [("127.0.0.1", port)])
    await front.start()
    print("READY", front.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    search_for_cycles_seldom()  # as where the gateway runs in earnest
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:]))

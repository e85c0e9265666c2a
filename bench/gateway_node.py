"""A node that tells of engines which it does not run: the fleet of `muster server` when it is measured.

python -m bench.gateway_node SERVER_URL TOKEN ENGINE_URL... ; it beats until it is ended.
"""

import asyncio
import sys
from collections.abc import Sequence

import aiohttp
import uvloop
from bench.gateway_peers import MODELS

from muster.domain.model import Model
from muster.domain.node import NodeFacts
from muster.domain.service import Dialect, Service, ServiceStatus
from muster.ids import NodeId
from muster.links.http.agent_side import HttpLink
from muster.wire import Heartbeat

_INTERVAL_S = 5.0


def _heartbeat(seq: int, engines: Sequence[str]) -> Heartbeat:
    return Heartbeat(
        facts=NodeFacts(node_id=NodeId("engines"), node_type="gpu-worker", hostname="localhost"),
        boot_id="engines-boot",
        seq=seq,
        heartbeat_interval_s=_INTERVAL_S,
        services=tuple(
            Service(
                name=f"engine-{number}",
                connector="vllm",
                status=ServiceStatus.RUNNING,
                url=url,
                dialects=(Dialect.OPENAI,),
                models=tuple(Model(name=name, resident=True) for name in MODELS),
            )
            for number, url in enumerate(engines)
        ),
    )


async def main(server: str, token: str, engines: Sequence[str]) -> None:
    async with aiohttp.ClientSession() as session:
        link = HttpLink(server, session, token)
        seq = 0
        while True:
            seq += 1
            await link.heartbeat(_heartbeat(seq, engines))
            await asyncio.sleep(_INTERVAL_S)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))

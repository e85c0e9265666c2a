"""The gateway that is soaked, in a process of its own: few slots, short deadlines, and a page of what it holds.

python -m bench.gateway_soaked PORT ENGINE_URL... ; GET /held answers a Held as JSON.
"""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import uvloop
from bench.gateway_server import StillFleet
from msgspec import Struct

from muster.gateway import Finished, Front, Gateway, GatewayLimits
from muster.gateway.trust.quarantine import Change
from muster.system import SystemClock

SLOTS = 6  # of each engine
WAITING_MAX = 8
_LIMITS = GatewayLimits(
    first_byte_timeout_s=1.0,
    idle_timeout_s=0.5,
    first_byte_floor_s=0.3,
    idle_floor_s=0.3,
    head_timeout_s=2.0,
    body_idle_timeout_s=2.0,
    upstream_idle_s=1.0,
    quarantine_s=0.2,
    quarantine_max_s=1.0,
    probe_timeout_s=1.0,
    waiting_max=WAITING_MAX,
    wait_s=2.0,
)


class Held(Struct, kw_only=True):
    """What is there now, and then what has been since the start."""

    exchanges: int = 0
    slots: int = 0
    waiting: int = 0
    callers: int = 0  # connections of theirs
    engines: int = 0  # connections to them
    tasks: int = 0
    finished: int = 0  # requests that have a record
    quarantined: int = 0  # how often
    trusted_again: int = 0


class Soaked:
    def __init__(self, address: tuple[str, int], urls: Sequence[str]) -> None:
        self._counts: Counter[str] = Counter()
        self._gateway = Gateway(
            StillFleet(urls, slots=SLOTS),
            clock=SystemClock(),
            rng=random.Random(),
            authenticate=lambda _token, _right: None,
            limits=_LIMITS,
            on_finished=self._finished,
            on_conduct=self._conduct,
        )
        self._front = Front(self._gateway, self._web, [address])

    async def start(self) -> None:
        await self._front.start()

    def _finished(self, finished: Sequence[Finished]) -> None:
        self._counts["finished"] += len(finished)

    def _conduct(self, change: Change) -> None:
        self._counts["quarantined" if change.reason is not None else "trusted_again"] += 1

    async def _web(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = msgspec.json.encode(self._held())
        headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _held(self) -> Held:
        gateway = self._gateway
        return Held(
            exchanges=gateway.in_flight,
            slots=sum(gateway.stats().in_flight_by_worker.values()),
            waiting=sum(line.waiting for line in gateway.view().lines),
            callers=self._front.connections,
            engines=gateway.upstream_connections,
            tasks=len(asyncio.all_tasks()),
            **self._counts,
        )


async def main(port: int, urls: Sequence[str]) -> None:
    await Soaked(("127.0.0.1", port), urls).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:]))

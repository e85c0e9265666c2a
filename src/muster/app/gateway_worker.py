"""A process that has the gateway alone: `python -m muster.app.gateway_worker HOST:PORT PLANE_ID DESCRIPTOR`.

It listens where the first process does, and the kernel deals connections out. It knows the fleet, the tokens and what
is used as another control plane on the same store would, never leads, and brings whoever asks for anything but the
gateway to the first process. When that one has gone it ends at once.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

import psutil
import structlog

from muster.app.door import Draining
from muster.app.gateway_channel import Ask, Channel, Word
from muster.app.groundwork import Base, Groundwork, Work
from muster.app.logs import configure_logs, plane_log
from muster.app.plane_logs import PlaneLogs
from muster.app.process import run
from muster.control.fleet.fleet import Fleet
from muster.control.metering import Metering
from muster.gateway.figures.usage import Finished, models_used
from muster.gateway.front import Front
from muster.gateway.gateway import Gateway
from muster.gateway.tunnel import Tunnels
from muster.logs.own import speak_as
from muster.rounds import Rounds
from muster.settings import Settings, load_settings

_TELL_EVERY_S = 0.5

log = structlog.get_logger()


class GatewayWorker(Groundwork):
    """A Lifecycle: of a control plane as much as a gateway needs."""

    def __init__(self, settings: Settings, first: tuple[str, int], gateway_of: str, channel: Channel) -> None:
        super().__init__(settings, gateway_of=gateway_of)
        self._first = first
        self._channel = channel
        self._used: set[tuple[str, str]] = set()

    async def _store_url(self) -> str:
        return self._settings.valkey_url

    async def _start(self) -> None:
        settings = self._settings
        base = await self._base()
        work = await self._work(base)
        logs = PlaneLogs(settings, base.fleet, base.peers, base.store.bus, self._clock, self._rng, self._plane_id)
        access = self._access(base.store)
        metering = self._metering(base, work, access)
        cloud, models = self._cloud(base, work.load), self._models(base, work)
        self._gateway = gateway = self._open_gateway(base, work, access, cloud, models, logs, metering, self._note_used)
        certificate = await self._certificate()
        self._front = Front(
            gateway,
            Tunnels(self._first),
            settings.listen_addresses,
            tls=certificate.context if certificate else None,
            shared=True,
        )
        services = (base.recorder, base.peers, access, metering, logs.gateway, work.commands, models, work.load)
        await self._start_each(
            *(*services, work.images),
            *([cloud] if cloud is not None else []),
            _Looks(base.fleet, settings.job_sweep_s),
            _Reports(self._channel, gateway, metering, self._front, self._used),
            Draining(self._front, settings.stop_timeout_s),
        )

    async def _work(self, base: Base) -> Work:
        jobs = self._jobs(base.store)
        commands = await self._commands(base.store, base.fleet, base.recorder, jobs)
        return Work(jobs=jobs, commands=commands, load=self._load(base), images=self._images(jobs))

    def _note_used(self, finished: Sequence[Finished]) -> None:
        self._used |= models_used(finished)


class _Looks:
    """A Lifecycle: sees which nodes are late. Who is stale or dead the control plane says that leads."""

    def __init__(self, fleet: Fleet, every_s: float) -> None:
        self._fleet = fleet
        self._every_s = every_s
        self._rounds = Rounds()

    async def start(self) -> None:
        self._rounds.go("fleet_look", self._look, self._every_s)

    async def stop(self) -> None:
        await self._rounds.stop()

    async def _look(self) -> None:
        self._fleet.tick(judging=False)


class _Reports:
    """A Lifecycle: tells the first process what this one has, and answers what it asks."""

    def __init__(
        self, channel: Channel, gateway: Gateway, metering: Metering, front: Front, used: set[tuple[str, str]]
    ) -> None:
        self._channel = channel
        self._gateway = gateway
        self._metering = metering
        self._front = front
        self._used = used
        self._process = psutil.Process()
        self._rounds = Rounds()

    async def start(self) -> None:
        self._rounds.go("gateway_report", self._tell, _TELL_EVERY_S)
        self._rounds.go("gateway_asks", self._answer, _TELL_EVERY_S)

    async def stop(self) -> None:
        await self._rounds.stop()
        with suppress(OSError):
            await self._tell()  # what was counted last

    async def _tell(self) -> None:
        used = list(self._used)
        self._used.clear()
        await self._channel.send(
            Word(
                told=self._gateway.tell(self._metering.metrics()),
                used=used,
                memory_bytes=self._process.memory_info().rss,
                connections=self._front.connections,
            )
        )

    async def _answer(self) -> None:
        while (ask := await self._channel.receive(Ask)) is not None:
            await self._channel.send(Word(answered=ask.ask_id, request=self._gateway.explain(ask.request_id)))
        log.error("first_process_gone")
        os._exit(1)  # its port may be wanted again, and nobody counts what is done here


def main(first: str, gateway_of: str, descriptor: str) -> int:
    settings = load_settings()
    configure_logs(settings.log_level)
    host, _, port = first.rpartition(":")

    async def serve(stopping: asyncio.Event) -> None:
        speak_as(plane_log(settings))
        channel = await Channel.over(socket.socket(fileno=int(descriptor)))
        worker = GatewayWorker(settings, (host, int(port)), gateway_of, channel)
        await worker.start()
        log.info("gateway_process_started", urls=worker.urls)
        await stopping.wait()
        await worker.stop()
        channel.close()

    return run(serve)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

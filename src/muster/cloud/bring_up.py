"""The one way to have machines: those that are there are kept, those at rest are started, the others are made.

Two who do this at the same time end with the same machines: a machine's launch token follows from its name alone, and
the cloud makes one machine for a token.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from muster.clock import Clock
from muster.domain.machine import GONE, PAID, Launch, Machine, MachineState
from muster.errors import CloudFailed, Conflict
from muster.ports import CloudProvider

# The cloud remembers a token for a day or more after its machine is gone; so many machines of one name a day.
_GENERATIONS_MAX = 100
_STOPPING_S = 300.0
_LOOK_EVERY_S = 2.0


class Check(Protocol):
    """Raise OverBudget when one more machine of that type may not run beside these."""

    def __call__(self, running: Sequence[Machine], machine_type: str, /, *, spot: bool) -> None: ...


class BringUp:
    def __init__(
        self, provider: CloudProvider, clock: Clock, check: Check, *, look_every_s: float = _LOOK_EVERY_S
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._check = check
        self._look_every_s = look_every_s

    async def run(self, launch: Launch, count: int) -> list[Machine]:
        """Return `count` machines that run or begin to, named for the launch; its token is made here."""
        return [await self._one(replace(launch, name=f"{launch.name}-{index}")) for index in range(count)]

    async def _one(self, launch: Launch) -> Machine:
        machines = await self._provider.list(launch.fleet)
        known = _named(machines, launch.name)
        if known is not None and known.state in PAID:
            return known
        running = [one for one in machines if one.state in PAID]
        if known is None:
            self._check(running, launch.machine_type, spot=launch.spot)
            return await self._make(launch)
        self._check(running, known.machine_type, spot=known.spot)
        return await self._provider.start((await self._at_rest(known)).machine_id)

    async def _make(self, launch: Launch) -> Machine:
        for generation in range(_GENERATIONS_MAX):
            token = launch_token(launch.fleet, launch.name, generation)
            try:
                return await self._provider.create(replace(launch, token=token))
            except Conflict as error:
                if not error.data.get("spent"):  # somebody has asked for another kind of machine by this name
                    made = _named(await self._provider.list(launch.fleet), launch.name)
                    if made is not None:
                        return made
        raise CloudFailed(f"{launch.name} could not be made: {_GENERATIONS_MAX} machines of that name came and went")

    async def _at_rest(self, machine: Machine) -> Machine:
        """Wait for the end of a stop: until then a machine cannot be started."""
        until_s = self._clock.monotonic_s() + _STOPPING_S
        while machine.state is MachineState.STOPPING:
            if self._clock.monotonic_s() > until_s:
                raise CloudFailed(f"{machine.machine_id} has been stopping for {_STOPPING_S:g} s")
            await asyncio.sleep(self._look_every_s)
            machines = await self._provider.list(machine.fleet)
            machine = next((one for one in machines if one.machine_id == machine.machine_id), machine)
        return machine


def _named(machines: Sequence[Machine], name: str) -> Machine | None:
    return next((one for one in machines if one.name == name and one.state not in GONE), None)


def launch_token(fleet: str, name: str, generation: int) -> str:
    return hashlib.sha256(f"{fleet}\n{name}\n{generation}".encode()).hexdigest()[:48]

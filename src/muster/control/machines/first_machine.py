"""The rented machine, for those who have one and speak of it without a name; of several the first that fits."""

from collections.abc import Mapping
from typing import Any

from muster.control.machines.service import CloudService
from muster.domain.machine import GONE, PAID, Machine
from muster.errors import MachineNotFound


class FirstMachine:
    """A RentedMachine."""

    def __init__(self, cloud: CloudService) -> None:
        self._cloud = cloud

    async def start(self) -> Mapping[str, Any]:
        machine = next((one for one in self._present() if one.state not in PAID), self._present()[0])
        return self._told(await self._cloud.start_machine(machine.machine_id))

    async def stop(self) -> Mapping[str, Any]:
        """Begin its rest; what runs on it may end first."""
        machine = next((one for one in self._present() if one.state in PAID), self._present()[0])
        self._cloud.begin_rest(machine, "asked for")
        return self._told(machine)

    async def set_idle_time(self, ttl_s: float) -> Mapping[str, Any]:
        machines = self._present()
        for machine in machines:
            await self._cloud.set_idle_stop(machine.machine_id, ttl_s)
        return self._told(machines[0])

    def _present(self) -> list[Machine]:
        present = [machine for machine in self._cloud.machines.all() if machine.state not in GONE]
        if not present:
            raise MachineNotFound("this fleet has no machine yet: rent one with `muster cloud up`")
        return present

    def _told(self, machine: Machine) -> Mapping[str, Any]:
        node = self._cloud.machines.node_of(machine)
        return {
            "machine_id": machine.machine_id,
            "name": machine.name,
            "state": machine.state.value,
            "models": list(machine.models),
            "node_id": None if node is None else node.node_id,
            "idle_stop_s": self._cloud.idle_stop_s(machine),
        }

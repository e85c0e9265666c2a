"""Getting one instance to run: taken over as it is where an agent before us left it, else started within its limits."""

import asyncio
import hashlib
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from muster.agent.services.cgroups import Cgroups
from muster.agent.services.keeping import KeeperClient, Kept, Order
from muster.agent.services.log_file import LogFile
from muster.agent.services.process import ServiceProcess, command_problem
from muster.agent.services.sockets import free_port, holder_of
from muster.agent.services.template import Instance, fill, paths_of
from muster.agent.surroundings import Surroundings
from muster.errors import UpstreamFailed
from muster.system import own_environment

HealthCheck = Callable[[str], Awaitable[None]]  # raises UpstreamFailed unless a URL answers 200

_PORT = "{port}"


class Provisions(Struct, frozen=True, kw_only=True):
    """What services are started with."""

    data_dir: Path
    models: Mapping[str, str]  # paths of those that were fetched, by name
    missing_models: Mapping[str, str]  # why the others were not
    check_health: HealthCheck
    gpu_names: Mapping[int, str] = {}  # what CUDA calls those that it does not know by their number
    cgroups: Cgroups | None = None
    limits_required: bool = False  # rather do not start than without them
    adopt_within_s: float = 0.0  # how long services outlive an agent that was killed


class Note(Struct, frozen=True, kw_only=True):
    """What the next agent must know of a service to take it over. `made_of` is a digest of what it was started with."""

    made_of: str
    port: int
    started_at_ms: int


class Launched(Struct, frozen=True, kw_only=True):
    process: ServiceProcess
    host: str
    port: int
    started_at_ms: int
    adopted: bool

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Launcher:
    """Starts one instance, as often as it is asked to. `tell` is told what is not as the node file wants it."""

    def __init__(
        self,
        instance: Instance,
        provisions: Provisions,
        around: Surroundings,
        keeper: KeeperClient,
        log_file: LogFile,
        tell: Callable[..., None],
    ) -> None:
        self._instance = instance
        self._template = instance.template
        self._provisions = provisions
        self._around = around
        self._keeper = keeper
        self._log_file = log_file
        self._tell = tell

    async def adopt(self, kept: Kept) -> Launched | None:
        """Take over what runs, if it is what would be started now; else it is ended."""
        try:
            note = msgspec.convert(kept.note, Note)
        except msgspec.ValidationError:
            note = None
        if note is not None and note.made_of == self._digest() and self._keeper.runs(kept):
            return Launched(
                process=ServiceProcess(self._keeper, kept),
                host=self._around.address,
                port=note.port,
                started_at_ms=note.started_at_ms,
                adopted=True,
            )
        await self.end(kept, "it was started with other settings")
        return None

    async def end(self, kept: Kept, reason: str) -> None:
        """End what was left for us, instead of taking it over."""
        self._tell("service_not_adopted", pid=kept.pid, reason=reason)
        await self._keeper.stop(kept.name, self._template.stop_timeout_s)

    async def start(self) -> Launched:
        """Raise UpstreamFailed, with the reason, when it cannot be started."""
        host, port = self._around.address, self._instance.port
        if port is None:
            port = free_port(host)
        elif (holder := await asyncio.to_thread(holder_of, host, port)) is not None:
            raise UpstreamFailed(f"port {port} is held by {holder}")
        with self._log_file.open():
            pass  # made with the rights that it is to have
        command, env = self._filled(str(port))
        note = Note(made_of=self._digest(), port=port, started_at_ms=self._around.clock.now_ms())
        cgroup, problems = self._make_cgroup()
        self._mind_limits(cgroup, problems)
        order = Order(
            name=self._instance.name,
            command=command,
            env=own_environment() | env,
            directory=str(self._provisions.data_dir),
            output=str(self._log_file.path),
            cgroup=None if cgroup is None else str(cgroup),
            keep_s=0.0 if self._template.adopt == "never" else self._provisions.adopt_within_s,
            stop_s=self._template.stop_timeout_s,
            note=note,
        )
        try:
            process = await ServiceProcess.spawn(self._keeper, order)
        except OSError as error:
            raise UpstreamFailed(command_problem(error, command)) from None
        if process.cgroup_problem is not None:
            await self._not_within(cgroup, process)
        return Launched(process=process, host=host, port=port, started_at_ms=note.started_at_ms, adopted=False)

    # --- limits ------------------------------------------------------------------------------------------------------

    def _make_cgroup(self) -> tuple[Path | None, list[str]]:
        cgroups, template = self._provisions.cgroups, self._template
        if cgroups is not None:
            return cgroups.make(template.name, self._instance.name, template.limits)
        wanted = ", ".join(template.limits.cgroup_files())
        return None, [f"no cgroup was given to this agent, so {wanted} cannot be set"] if wanted else []

    def _mind_limits(self, cgroup: Path | None, problems: list[str]) -> None:
        """Refuse to start without limits where that is wanted, else say what is not enforced."""
        if not problems:
            return
        if not self._template.limits.cgroup_files():  # then a cgroup is for order and figures only
            self._tell("cgroup_missing", reason="; ".join(problems))
            return
        reason = "; ".join(problems)
        if self._provisions.limits_required:
            raise UpstreamFailed(f"its limits cannot be enforced: {reason}")
        self._tell("limits_not_enforced", reason=reason, cgroup=None if cgroup is None else str(cgroup))

    async def _not_within(self, cgroup: Path | None, process: ServiceProcess) -> None:
        """Judge one that was started, but could not enter its cgroup."""
        try:
            self._mind_limits(cgroup, [f"cgroup {cgroup} cannot be entered: {process.cgroup_problem}"])
        except UpstreamFailed:
            await process.stop(0.0)
            raise

    # --- what it is started with -------------------------------------------------------------------------------------

    def _filled(self, port: str) -> tuple[list[str], dict[str, str]]:
        instance, models = self._instance, self._provisions.models
        values = {
            "python": sys.executable,
            "host": self._around.address,
            "port": port,
            "index": str(instance.index),
            "gpu": str(instance.gpu_index),
        } | paths_of(self._template, models)
        env = {name: fill(text, values, models) for name, text in self._template.env.items()}
        if instance.gpu_index is not None:  # in the order of the driver's own numbers
            device = self._provisions.gpu_names.get(instance.gpu_index, str(instance.gpu_index))
            env = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": device} | env
        return [fill(text, values, models) for text in self._template.command], env

    def _digest(self) -> str:
        """Return the same for the same command, whatever port was free, and another one for another."""
        parts: list[Any] = [*self._filled(_PORT), self._instance.port, self._around.address, self._template.limits]
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]

"""The workers of a node: one for each GPU, or one when there is none."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from muster.agent.config import AgentConfig
from muster.agent.gpus.gpus import Gpus
from muster.agent.jobs.attempt import TakeTurn, no_turn
from muster.agent.jobs.offer import Means, make_offer
from muster.agent.jobs.worker import Worker
from muster.agent.surroundings import Surroundings
from muster.domain.worker import Worker as WorkerRecord
from muster.logs.own import OwnLog
from muster.ports import HostProbe, JobLink


class Crew:
    """A Lifecycle; the GPUs must be known when it starts."""

    def __init__(
        self,
        config: AgentConfig,
        jobs: JobLink,
        gpus: Gpus,
        host: HostProbe,
        cpu_cores: int,
        around: Surroundings,
        on_change: Callable[[], None],
        take_turn: TakeTurn = no_turn,
    ) -> None:
        self._config = config
        self._jobs = jobs
        self._gpus = gpus
        self._host = host
        self._cpu_cores = cpu_cores
        self._around = around
        self._on_change = on_change
        self._take_turn = take_turn
        self._crew: list[tuple[Worker, Means]] = []
        self._holds: set[str] = set()
        self._gpus_out: frozenset[int] = frozenset()
        around.board.on_change(self._offer)

    async def start(self) -> None:
        memory_total_mb = self._host.read().memory_total_mb
        for index, gpu in enumerate(self._gpus.inventory or (None,)):
            worker = Worker(
                self._config.node_id,
                index,
                self._jobs,
                self._around.clock,
                self._around.rng,
                slots=self._config.worker_slots,
                gpu_index=None if gpu is None else gpu.index,
                stop_timeout_s=self._config.stop_timeout_s,
                files=self._around.files,
                tracer=self._around.tracer,
                on_doubt=self._around.board.doubt,
                on_change=self._on_change,
                own_log=_own_log(self._around.logs_dir, index),
                take_turn=self._take_turn,
            )
            means = Means(
                gpu=gpu,
                cpu_cores=self._cpu_cores,
                memory_total_mb=memory_total_mb,
                labels=self._config.labels,
                custom={"pool": self._config.pool} if self._config.pool else {},
                customers=self._config.customers,
            )
            self._crew.append((worker, means))
        self._apply_holds()
        self._offer()
        await asyncio.gather(*(worker.start() for worker, _ in self._crew))

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker, _ in self._crew))

    def hold(self, reason: str, *, held: bool) -> None:
        """Take no new jobs as long as any reason holds."""
        if held:
            self._holds.add(reason)
        else:
            self._holds.discard(reason)
        self._apply_holds()

    def hold_gpus(self, out_of_service: frozenset[int]) -> None:
        """Let the workers of these GPUs take no new jobs, and those of all others go on."""
        if out_of_service != self._gpus_out:
            self._gpus_out = out_of_service
            self._apply_holds()

    def drop_job(self, job_id: str) -> bool:
        """Stop a job that no longer counts; tell whether one of ours ran it."""
        return any(worker.drop_job(job_id) for worker, _ in self._crew)

    def give_back(self) -> None:
        """Return all that runs to the queue."""
        for worker, _ in self._crew:
            worker.give_back()

    def records(self) -> list[WorkerRecord]:
        return [worker.record() for worker, _ in self._crew]

    def refusal(self) -> str | None:
        return next((worker.refusal for worker, _ in self._crew if worker.refusal), None)

    def _apply_holds(self) -> None:
        for worker, _ in self._crew:
            worker.hold(held=bool(self._holds) or worker.gpu_index in self._gpus_out)

    def _offer(self) -> None:
        services = self._around.board.services()
        for worker, means in self._crew:
            worker.offer(make_offer(self._around.connectors, services, means))


def _own_log(folder: Path | None, index: int) -> OwnLog | None:
    return None if folder is None else OwnLog(folder / f"worker-{index}.log")

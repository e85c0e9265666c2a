"""What hives say becomes a node's heartbeat, and what a node is becomes the words of a hive."""

from typing import Any

import pytest
from msgspec.structs import replace

from muster.domain.gpu import Gpu
from muster.domain.model import Model
from muster.domain.node import Health, Node, NodeFacts, Phase
from muster.domain.process import ProcessFigures
from muster.domain.service import Service, ServiceStatus
from muster.domain.worker import WorkerStatus
from muster.errors import InvalidInput
from muster.ids import NodeId
from muster.wire.agent import Heartbeat
from muster.wire.codec import decode, encode
from muster.wire.hives import (
    HiveHeartbeat,
    HiveInfo,
    HiveWorker,
    heartbeat_of,
    operational_status,
    workers_told,
)

MB = 1024 * 1024
HIVE = HiveInfo(id="hive-1", hostname="10.0.0.7", version="1.2")
WORKER = HiveWorker(pid=12, group="llm", instance="8080")
MEASURED = HiveWorker(
    pid=12,
    group="llm",
    instance="8080",
    cpu_pct=150.0,
    rss_mb=512.5,
    io_r_mb_s=1.5,
    io_w_mb_s=0.25,
    uptime_s=59.9,
    gpu_util_pct=85.0,
    vram_mb=8_192,
    total_vram_mb=24_564,
    model="llama",
)
SERVICE = Service(name="llama", connector="llamacpp", status=ServiceStatus.RUNNING, pid=7, gpu_index=0)
GPU = Gpu(index=0, memory_total_mb=24_564, owners=())


def beat(*workers: HiveWorker, hive: HiveInfo = HIVE, known: Node | None = None) -> Heartbeat:
    return heartbeat_of(HiveHeartbeat(hive=hive, workers=workers), known, "boot-a", 3.0)


def record(told: Heartbeat, **more: Any) -> Node:
    """Return what is known of a hive after it said so."""
    fields: dict[str, Any] = {"seq": told.seq, "workers": told.workers} | more
    return Node(facts=told.facts, health=Health.HEALTHY, **fields)


def numbers(told: Heartbeat) -> dict[str | None, str]:
    return {worker.service: worker.worker_id for worker in told.workers}


def named(*instances: str) -> tuple[HiveWorker, ...]:
    return tuple(replace(WORKER, instance=instance) for instance in instances)


def told_of(service: Service = SERVICE, process: ProcessFigures | None = None, *gpus: Gpu) -> HiveWorker:
    (worker,) = workers_told([service], [process] if process else [], gpus)
    return worker


# --- as it is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "hive"),
        (b'{"hive": {}}', "hive.id"),
        (b'{"hive": {"id": 7}}', "hive.id"),
        (b'{"hive": {"id": "h", "port": 65536}}', "hive.port"),
        (b'{"hive": {"id": "h"}, "timestamp": "yesterday"}', "timestamp"),
        (b'{"hive": {"id": "h"}, "workers": {}}', "workers"),
    ],
)
def test_a_message_that_does_not_fit_is_refused_by_the_name_of_its_field(body: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode(body, HiveHeartbeat)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("worker", "field"),
    [
        ({"group": "g"}, "instance"),
        ({"group": "", "instance": "i"}, "group"),
        ({"group": "g", "instance": "i" * 61}, "instance"),
        ({"group": "g", "instance": "i", "pid": 0}, "pid"),
        ({"group": "g", "instance": "i", "rss_mb": -1}, "rss_mb"),
        ({"group": "g", "instance": "i", "io_r_mb_s": 1e308}, "io_r_mb_s"),
        ({"group": "g", "instance": "i", "vram_mb": 0.5}, "vram_mb"),
        ({"group": "g", "instance": "i", "gpu_known": None}, "gpu_known"),
    ],
)
def test_a_worker_that_does_not_fit_is_refused_by_its_place_and_field(worker: dict[str, Any], field: str) -> None:
    good = {"group": "g", "instance": "0"}
    with pytest.raises(InvalidInput) as refused:
        decode(encode({"hive": {"id": "h"}, "workers": [good, worker]}), HiveHeartbeat)
    assert refused.value.field == f"workers[1].{field}"


def test_more_workers_than_a_machine_can_have_are_refused() -> None:
    most = HiveHeartbeat(hive=HIVE, workers=named(*(f"{port}" for port in range(1024))))
    assert decode(encode(most), HiveHeartbeat) == most
    with pytest.raises(InvalidInput) as refused:
        decode(encode(HiveHeartbeat(hive=HIVE, workers=(*most.workers, WORKER))), HiveHeartbeat)
    assert refused.value.field == "workers"


def test_who_says_only_its_id_is_a_hive_that_is_ready_and_has_no_workers() -> None:
    told = heartbeat_of(decode(b'{"hive": {"id": "hive-1"}}', HiveHeartbeat), None, "boot-a", 3.0)
    assert told.facts == NodeFacts(node_id=NodeId("hive-1"))
    assert (told.status, told.phase) == (Health.HEALTHY, Phase.READY)
    assert (told.workers, told.services, told.processes) == ((), (), ())


# --- from a hive -----------------------------------------------------------------------------------------------------


def test_a_hive_is_a_node_that_others_reach_by_its_hostname() -> None:
    told = beat()
    assert (told.facts.node_id, told.facts.version) == ("hive-1", "1.2")
    assert told.facts.hostname == told.facts.address == "10.0.0.7"
    assert (told.boot_id, told.heartbeat_interval_s) == ("boot-a", 3.0)


def test_the_messages_of_a_hive_are_counted_for_it() -> None:
    first = beat()
    assert first.seq == 0
    assert beat(known=record(first)).seq == 1
    assert beat(known=record(first, seq=41)).seq == 42
    assert beat(known=record(first, seq=-5)).seq == 0, "one that was made from no heartbeat begins with 0"


def test_that_people_drain_a_hive_is_not_undone_by_its_heartbeat() -> None:
    first = beat()
    assert not first.draining
    assert not beat(known=record(first)).draining
    assert beat(known=record(first, draining=True)).draining


@pytest.mark.parametrize("figure", [{"vram_mb": 1}, {"total_vram_mb": 24_564}, {"gpu_util_pct": 0.5}])
def test_one_figure_of_a_gpu_makes_it_a_node_with_one(figure: dict[str, Any]) -> None:
    assert beat(WORKER, replace(WORKER, instance="8081", **figure)).facts.node_type == "gpu-worker"


def test_without_such_a_figure_it_stays_what_it_was() -> None:
    zeros = replace(WORKER, vram_mb=0, total_vram_mb=0, gpu_util_pct=0.0)
    assert beat(WORKER, replace(zeros, instance="0")).facts.node_type == "cpu-worker"
    assert beat().facts.node_type == "cpu-worker"
    on_gpu = record(beat(MEASURED))
    assert beat(known=on_gpu).facts.node_type == "gpu-worker", "its workers ended, and its GPU is still there"


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        ("starting", Phase.STARTING),
        ("ready", Phase.READY),
        ("Busy", Phase.READY),
        ("STOPPING", Phase.STOPPING),
        ("stopped", Phase.OFFLINE),
    ],
)
def test_its_operational_status_is_its_phase_in_upper_or_lower_case(said: str, phase: Phase) -> None:
    assert beat(hive=replace(HIVE, operational_status=said)).phase is phase


@pytest.mark.parametrize("health", [Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY])
def test_its_health_is_taken_at_its_word_in_upper_or_lower_case(health: Health) -> None:
    assert beat(hive=replace(HIVE, health_status=health.value.title())).status is health


@pytest.mark.parametrize(
    ("field", "said", "choice"),
    [
        ("operational_status", "asleep", "starting, ready, busy, stopping, stopped"),
        ("operational_status", "", "starting, ready, busy, stopping, stopped"),
        ("health_status", "fine", "healthy, degraded, unhealthy"),
        ("health_status", "dead", "healthy, degraded, unhealthy"),  # that is for others to say
    ],
)
def test_a_word_that_means_nothing_is_refused_with_those_that_do(field: str, said: str, choice: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        beat(hive=replace(HIVE, **{field: said}))
    assert refused.value.field == f"hive.{field}"
    assert refused.value.message == f"hive.{field} must be {choice}, got {said!r}"


@pytest.mark.parametrize("field", ["group", "instance"])
@pytest.mark.parametrize("name", ["a/b", "-a", "a b", "ä"])
def test_a_name_that_is_not_safe_in_keys_is_refused_by_its_place(field: str, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        beat(WORKER, replace(WORKER, **{field: name}))
    assert refused.value.field == f"workers[1].{field}"
    assert repr(name) in refused.value.message


def test_a_worker_that_is_told_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"workers\[2\] is a second llm/8080") as refused:
        beat(WORKER, replace(WORKER, group="tts"), replace(WORKER, pid=99))
    assert refused.value.field == "workers[2].instance"


def test_a_worker_is_a_service_and_the_one_that_drives_it() -> None:
    told = beat(MEASURED)
    (service,), (worker,) = told.services, told.workers
    assert (service.name, service.connector, service.status) == ("llm:8080", "llm", ServiceStatus.RUNNING)
    assert (service.pid, service.models) == (12, (Model(name="llama", resident=True),))
    assert (worker.worker_id, worker.index, worker.service) == ("hive-1-worker-0", 0, "llm:8080")
    assert (worker.connectors, worker.connector_statuses) == (("llm",), {"llm": "running"})
    assert worker.status is WorkerStatus.IDLE, "that its GPU works is a figure, and no job of ours"


def test_figures_arrive_in_the_units_of_the_fleet() -> None:
    assert beat(MEASURED).processes == (
        ProcessFigures(
            name="llm:8080",
            group="llm",
            pid=12,
            cpu_percent=150.0,
            rss_mb=512.5,
            read_bytes_s=1_572_864,
            write_bytes_s=262_144,
            uptime_s=59,
            model="llama",
            gpu_utilization_percent=85.0,
            gpu_memory_mb=8_192,
        ),
    )


def test_a_figure_that_is_not_told_is_unknown_and_one_of_zero_is_zero() -> None:
    silent, zero = replace(WORKER, instance="0"), replace(WORKER, cpu_pct=0.0, io_r_mb_s=0.0, uptime_s=0.0)
    unknown, known = beat(silent, zero).processes
    assert unknown == ProcessFigures(name="llm:0", group="llm", pid=12)
    assert (known.cpu_percent, known.read_bytes_s, known.write_bytes_s, known.uptime_s) == (0.0, 0, None, 0)


def test_a_worker_without_a_process_has_no_figures_and_one_without_a_model_offers_none() -> None:
    told = beat(replace(MEASURED, pid=None, model=None), replace(MEASURED, instance="8081"))
    assert [(service.pid, len(service.models)) for service in told.services] == [(None, 0), (12, 1)]
    assert [process.name for process in told.processes] == ["llm:8081"]


@pytest.mark.parametrize(
    ("figures", "total_mb", "free_mb", "gpu"),
    [
        ({"total_vram_mb": 100, "vram_mb": 30, "gpu_util_pct": 5.0}, 100, 70, (5.0, 30)),
        ({"total_vram_mb": 100, "vram_mb": 0, "gpu_util_pct": 0.0}, 100, 100, (0.0, 0)),
        ({"total_vram_mb": 100, "vram_mb": 130}, 100, 0, (None, 130)),
        ({"total_vram_mb": 100}, 100, None, (None, None)),
        ({"vram_mb": 30, "gpu_util_pct": 5.0}, None, None, (5.0, 30)),
        ({"total_vram_mb": 0, "vram_mb": 0, "gpu_util_pct": 0.0}, None, None, (None, None)),
        ({"total_vram_mb": 100, "vram_mb": 0, "gpu_util_pct": 0.0, "gpu_known": False}, 100, None, (None, None)),
    ],
    ids=["used", "empty", "more than there is", "only its size", "all but its size", "no gpu", "unknown"],
)
def test_what_is_free_of_a_gpu_is_known_when_its_size_and_its_use_are(
    figures: dict[str, Any], total_mb: int | None, free_mb: int | None, gpu: tuple[float | None, int | None]
) -> None:
    told = beat(replace(WORKER, **figures))
    (service,), (process,) = told.services, told.processes
    assert service.memory_total_bytes == (None if total_mb is None else total_mb * MB)
    assert service.memory_free_bytes == (None if free_mb is None else free_mb * MB)
    assert (process.gpu_utilization_percent, process.gpu_memory_mb) == gpu


def test_a_worker_keeps_its_id_when_others_end_and_a_new_one_takes_what_is_free() -> None:
    first = beat(*named("a", "b", "c"))
    assert numbers(first) == {"llm:a": "hive-1-worker-0", "llm:b": "hive-1-worker-1", "llm:c": "hive-1-worker-2"}
    fewer = beat(*named("c", "b"), known=record(first))
    assert numbers(fewer) == {"llm:c": "hive-1-worker-2", "llm:b": "hive-1-worker-1"}
    more = beat(*named("e", "d", "b", "c"), known=record(fewer))
    assert numbers(more) == {
        "llm:e": "hive-1-worker-0",
        "llm:d": "hive-1-worker-3",
        "llm:b": "hive-1-worker-1",
        "llm:c": "hive-1-worker-2",
    }


# --- as a hive would say it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "idle", "busy"),
    [
        (Phase.STARTING, "starting", "starting"),
        (Phase.CONFIGURING, "starting", "starting"),
        (Phase.READY, "ready", "busy"),
        (Phase.STOPPING, "stopping", "stopping"),
        (Phase.OFFLINE, "stopped", "stopped"),
        (Phase.ERROR, "stopped", "stopped"),
    ],
)
def test_only_a_node_that_is_ready_is_busy(phase: Phase, idle: str, busy: str) -> None:
    assert (operational_status(phase, busy=False), operational_status(phase, busy=True)) == (idle, busy)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY, Phase.STOPPING, Phase.OFFLINE])
@pytest.mark.parametrize("busy", [False, True])
def test_the_word_for_a_phase_means_that_phase(phase: Phase, *, busy: bool) -> None:
    assert beat(hive=replace(HIVE, operational_status=operational_status(phase, busy=busy))).phase is phase


def test_what_a_hive_told_is_told_of_it() -> None:
    other = replace(MEASURED, instance="8081", pid=13, uptime_s=7.0, gpu_util_pct=0.0, vram_mb=0)
    told = beat(MEASURED, other)
    assert workers_told(told.services, told.processes, told.gpus) == (replace(MEASURED, uptime_s=59), other)


def test_a_service_is_told_as_long_as_it_has_a_process_or_answers() -> None:
    services = [
        replace(SERVICE, name="starting", status=ServiceStatus.STARTING),
        replace(SERVICE, name="found", pid=None),
        replace(SERVICE, name="failed", pid=None, status=ServiceStatus.FAILED),
    ]
    assert [(worker.instance, worker.pid) for worker in workers_told(services, (), ())] == [
        ("starting", 7),
        ("found", None),
    ]


def test_the_group_of_a_service_is_its_template_else_its_connector() -> None:
    process = ProcessFigures(name="llama", group="big-llama", pid=7)
    assert (told_of().group, told_of().instance) == ("llamacpp", "llama")
    assert (told_of(SERVICE, process).group, told_of(SERVICE, process).instance) == ("big-llama", "llama")


def test_figures_are_told_in_the_units_of_a_hive_and_unknown_ones_as_null() -> None:
    process = ProcessFigures(
        name="llama", group="g", pid=7, cpu_percent=12.5, rss_mb=64.0, read_bytes_s=1_572_864, uptime_s=60
    )
    told = told_of(SERVICE, process)
    assert (told.cpu_pct, told.rss_mb, told.io_r_mb_s, told.io_w_mb_s, told.uptime_s) == (12.5, 64.0, 1.5, None, 60)
    assert told_of(SERVICE, replace(process, read_bytes_s=0, write_bytes_s=1_000)).io_r_mb_s == 0.0
    assert told_of(SERVICE, replace(process, write_bytes_s=1_000)).io_w_mb_s == 0.001
    nothing = told_of(SERVICE, replace(process, name="another"))
    assert (nothing.cpu_pct, nothing.rss_mb, nothing.io_r_mb_s, nothing.uptime_s) == (None, None, None, None)


def test_the_model_is_the_first_that_may_be_loaded_else_that_of_the_command_line() -> None:
    process = ProcessFigures(name="llama", group="g", pid=7, model="by-command")
    cold, warm, any_ = Model(name="cold", resident=False), Model(name="warm", resident=True), Model(name="any")
    assert told_of(replace(SERVICE, models=(cold, warm, any_)), process).model == "warm"
    assert told_of(replace(SERVICE, models=(any_, warm)), process).model == "any"
    assert told_of(replace(SERVICE, models=(cold,)), process).model == "by-command"
    assert told_of(replace(SERVICE, models=(cold,))).model is None


def test_where_a_gpu_is_unknown_zeros_are_told_as_worth_nothing() -> None:
    unknown = told_of(SERVICE, None, replace(GPU, owners=None))
    assert (unknown.gpu_util_pct, unknown.vram_mb, unknown.total_vram_mb) == (0.0, 0, 24_564)
    assert not unknown.gpu_known
    assert told_of(SERVICE, None, GPU).gpu_known, "its GPU says who uses it, and it is not among them"

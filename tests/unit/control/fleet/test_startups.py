"""What is told of how a node came up, from the facts of the log."""

from typing import Any

import pytest

from muster.control.fleet.startups import last_startup
from muster.domain.event import Event
from muster.domain.node import Health, Node, NodeFacts
from muster.ids import NodeId
from muster.stores.memory import MemoryStore
from tests.clocks import ManualClock

NODE = Node(
    facts=NodeFacts(node_id=NodeId("n1")), health=Health.HEALTHY, last_seen_ms=1_000_000, booted_at_ms=1_000_000
)


def fact(kind: str, at_ms: int = 1_000_000, key: str = "n1", **data: Any) -> Event:
    return Event(kind=kind, key=key, at_ms=at_ms, data=data)


def boot(boot_id: str, *facts: Event) -> tuple[Event, ...]:
    return (fact("machine_startup", phase="starting", boot_id=boot_id), *facts)


UP = boot(
    "b1",
    fact("startup_step", step="join_fleet"),
    fact("step_done", step="join_fleet", took_ms=120),
    fact("startup_step", step="start_services"),
    fact("service_started", service="llama", took_s=1.5),
    fact("service_failed", service="comfy", reason="no such file"),
    fact("step_failed", step="start_services", took_ms=1600, error="comfy: no such file"),
    fact("machine_startup", phase="ready", boot_id="b1"),
    fact("startup_complete", worker_count=2, took_s=1.8),
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(ManualClock(), event_log_entries_max=3_000)


async def test_steps_and_services_are_told_with_what_they_took_and_why_they_failed(store: MemoryStore) -> None:
    await store.log.append(UP)
    found = await last_startup(store.log, NODE)
    assert (found.state, found.boot_id, found.took_s, found.workers, found.reason) == ("complete", "b1", 1.8, 2, None)
    assert [(step.name, step.state, step.took_ms, step.error) for step in found.steps] == [
        ("join_fleet", "done", 120, None),
        ("start_services", "failed", 1600, "comfy: no such file"),
    ]
    assert [(each.name, each.started, each.error) for each in found.services] == [
        ("llama", True, None),
        ("comfy", False, "no such file"),
    ]


async def test_while_it_comes_up_the_last_step_runs(store: MemoryStore) -> None:
    await store.log.append(UP[:4])
    found = await last_startup(store.log, NODE)
    assert (found.state, found.took_s, found.workers) == ("starting", None, None)
    assert [step.state for step in found.steps] == ["done", "running"]


async def test_one_that_did_not_come_up_says_why(store: MemoryStore) -> None:
    failed = fact("startup_failed", step="start_workers", reason="no GPU")
    await store.log.append([*UP[:2], failed])
    found = await last_startup(store.log, NODE)
    assert (found.state, found.reason) == ("failed", "no GPU")


async def test_only_the_last_boot_counts_and_nothing_after_its_end(store: MemoryStore) -> None:
    later = boot("b2", fact("startup_step", step="identify"), fact("startup_complete", worker_count=1))
    await store.log.append([*UP, *later, fact("service_failed", service="llama", reason="killed")])
    await store.log.append([fact("startup_step", step="identify", key="n2")])
    found = await last_startup(store.log, NODE)
    assert (found.boot_id, found.state, found.services) == ("b2", "complete", ())


async def test_facts_are_found_behind_many_others(store: MemoryStore) -> None:
    await store.log.append([fact("job_submitted", key=f"job-{number}") for number in range(1_500)])
    await store.log.append(UP)
    assert (await last_startup(store.log, NODE)).state == "complete"


async def test_what_is_not_told_or_too_long_ago_is_unknown(store: MemoryStore) -> None:
    assert (await last_startup(store.log, NODE)).state == "unknown"
    hours_later = [fact("job_submitted", at_ms=1_000_000 + 3 * 3_600_000, key="job-1") for _ in range(1_000)]
    await store.log.append([*hours_later, *UP])
    found = await last_startup(store.log, NODE)
    assert (found.state, found.boot_id, found.steps) == ("unknown", None, ())

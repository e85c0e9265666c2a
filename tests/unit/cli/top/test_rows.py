import pytest

from muster.cli.top import rows
from muster.cli.top.rows import JOB_SORTS, NODE_SORTS
from muster.domain.job import JobStatus
from muster.domain.node import Health
from tests.unit.cli.top.fleets import gpu, job_update, machine_update, picture_of

SORTS = {sort.name: sort for sort in NODE_SORTS}
PICTURE = picture_of(
    machine_update("a", gpu(utilization_percent=None, memory_used_mb=None, power_w=None, temperature_c=None)),
    machine_update("b", gpu(utilization_percent=0.0), workers=2, jobs=("j1",), facts={"pool": "llm"}),
    machine_update("c", gpu(utilization_percent=90.0), gpu(1, utilization_percent=None), health=Health.DEAD),
    machine_update("d", facts={"labels": {"zone": "west"}}, draining=True),
)


def names(words: str = "", sort: str = "node", *, turned: bool = False) -> str:
    return "".join(row["machine_id"] for row in rows.nodes(PICTURE, words, SORTS[sort], turned=turned))


@pytest.mark.parametrize(
    ("sort", "turned", "expected"),
    [
        ("node", False, "abcd"),
        ("node", True, "dcba"),
        ("health", False, "cabd"),
        ("util", False, "cbad"),
        ("util", True, "bcad"),
        ("busy", False, "bacd"),
    ],
)
def test_what_is_unknown_comes_last_whichever_way_it_is_sorted(sort: str, turned, expected: str) -> None:
    assert names(sort=sort, turned=turned) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [("", "abcd"), ("LLM", "b"), ("zone=west drain", "d"), ("dead", "c"), ("l4 healthy", "ab"), ("nothing", "")],
)
def test_every_word_of_a_filter_must_be_somewhere_in_a_node(words: str, expected: str) -> None:
    assert names(words) == expected


def test_a_node_without_a_figure_has_none_and_not_zero() -> None:
    assert rows.load_of(PICTURE.machines["a"]) == rows.Load(None, None, None, None)
    assert rows.load_of(PICTURE.machines["b"]).utilization == 0.0
    assert rows.load_of(PICTURE.machines["c"]) == rows.Load(0.9, 0.25, 61.0, 140.0)
    assert rows.load_of(PICTURE.machines["d"]) == rows.Load(None, None, None, None)


def test_jobs_that_run_come_first() -> None:
    picture = picture_of(
        job_update("done", JobStatus.COMPLETED),
        job_update("waits"),
        job_update("runs", JobStatus.IN_PROGRESS, worker_id="b-worker-0"),
        job_update("cannot", JobStatus.UNWORKABLE, service_required="upscale"),
    )

    def found(words: str) -> list[str]:
        return [job["job_id"] for job in rows.jobs(picture, words, JOB_SORTS[0], turned=False)]

    assert found("") == ["runs", "cannot", "waits", "done"]
    assert found("upscale") == ["cannot"]
    assert found("b-worker") == ["runs"]

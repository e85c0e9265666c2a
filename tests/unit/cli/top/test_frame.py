import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from muster.cli.top.cells import PLAIN, PRETTY, bar, clean, cut, degrees, gigabytes, share_of, span, watts
from muster.cli.top.frame import Drawing, Link, Size
from muster.cli.top.picture import Picture
from muster.cli.top.screen import Screen
from muster.domain.gpu import Gpu
from muster.domain.job import JobError, JobStatus
from muster.domain.node import Health
from tests.unit.cli.top.fleets import NOW_MS, gpu, job_update, machine_update, picture_of

LIVE = Link(live=True, words="LIVE")
FLEET = picture_of(
    machine_update("gpu-1", gpu(), gpu(1, utilization_percent=None, memory_used_mb=None), jobs=("j1",), workers=2),
    machine_update("gpu-2", gpu(out_of_service="it is too hot"), health=Health.DEGRADED, reason="a GPU is out"),
    machine_update("cpu-1", draining=True),
    job_update("j1", JobStatus.IN_PROGRESS, worker_id="gpu-1-worker-0", started_at=NOW_MS - 30_000),
    job_update("j2", JobStatus.FAILED, error=JobError(code="boom", message="it broke"), completed_at=NOW_MS),
    in_progress=1,
    failed=1,
)


def drawn(
    picture: Picture = FLEET, screen: Screen | None = None, link: Link = LIVE, width: int = 120, height: int = 30
) -> list[str]:
    drawing = Drawing(picture, screen or Screen(), PRETTY, "http://127.0.0.1:8090", NOW_MS)
    return [line.plain for line in drawing.frame(link, Size(width, height))]


def text(*keys: str, picture: Picture = FLEET, link: Link = LIVE, width: int = 120, height: int = 30) -> str:
    screen = Screen()
    for key in keys:
        screen.press(key, picture)
    return "\n".join(drawn(picture, screen, link, width, height))


def test_a_frame_says_how_the_fleet_is() -> None:
    shown = text()

    assert "nodes 3: 2 healthy, 1 degraded · gpus 3 · workers 4: 3 idle, 1 busy" in shown
    assert "jobs: 1 running, 0 waiting, 0 unworkable, 1 failed · gateway: ? req/s, 2 in flight, 1 errors" in shown
    assert "queues: ?" in shown
    (row,) = [line for line in shown.splitlines() if line.startswith(" gpu-1")]
    assert row.split()[1:4] == ["healthy", "ready", "2"]
    assert "███░░░  50%" in row
    assert "██░░░░  25%" in row
    assert "61°C   140W     1/2    2s simulation 1" in row
    assert "draining" in shown


def test_details_show_each_gpu_and_what_each_worker_does_and_unknown_is_not_zero() -> None:
    shown = text("j").splitlines()

    (unread,) = [line for line in shown if line.startswith(" gpu 1")]
    assert "util ?" in unread
    assert "?/24.0 GB" in unread
    (busy,) = [line for line in shown if line.startswith(" worker 0")]
    assert "simulation j1" in busy
    assert any(line.startswith(" worker 1") and "nothing now" in line for line in shown)
    assert "OUT OF SERVICE: it is too hot" in text("end")


def test_jobs_have_their_own_list_with_reasons() -> None:
    shown = text("tab", "down", width=160)

    assert ">j2" in shown
    assert "boom: it broke" in shown
    assert "c cancel" in shown


def test_the_state_of_the_connection_is_seen_on_any_screen() -> None:
    lost = Link(live=False, words="NOT CONNECTED for 12s, again in 2s: no control plane answers")
    assert text(link=lost).splitlines()[0].endswith("no control plane answers")
    assert text(link=lost, width=20, height=4).splitlines()[0].startswith("NOT CONNECTED for")
    assert text("?", link=lost).splitlines()[0].endswith("no control plane answers")
    assert "Waiting for the first word" in text(picture=Picture(), link=lost)


def test_empty_lists_say_what_to_do() -> None:
    assert "muster agent --control-plane" in text(picture=picture_of())
    assert "Nothing fits 'zzz'. Esc" in text("/", *"zzz", "enter")


def test_questions_filters_and_help_stand_where_one_looks() -> None:
    assert text("d").splitlines()[-1].startswith("Drain cpu-1: it takes no new work, what runs there goes on?  [y")
    assert "[y: do it, any other key: leave it]" in text("d", width=60)
    assert text("/", *"gp").splitlines()[-1].startswith("filter: gp_")
    assert "filter: gp" in text("/", *"gp", "enter")
    assert "drain the selected node" in text("?")


@pytest.mark.parametrize("count", [1, 40, 1000])
def test_of_many_nodes_a_window_is_shown(count: int) -> None:
    picture = picture_of(*(machine_update(f"node-{number:04}", gpu()) for number in range(count)))
    screen = Screen()
    screen.press("end", picture)
    lines = drawn(picture, screen, height=24)

    assert len(lines) == 24
    assert any(line.startswith(f">node-{count - 1:04}") for line in lines)
    assert any(f"of {count}, by node" in line for line in lines)


@settings(max_examples=60)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 60),
    keys=st.lists(st.sampled_from(["tab", "down", "end", "enter", "?", "/", "d", "s", "c", "x"]), max_size=5),
)
def test_a_frame_is_never_larger_than_the_screen(width: int, height: int, keys: list[str]) -> None:
    lines = text(*keys, width=width, height=height).split("\n")

    assert len(lines) == height
    assert max(cell_len(line) for line in lines) <= width


def test_on_narrow_screens_the_dearest_columns_stay() -> None:
    head = text(width=60, height=14)
    assert "health" in head
    assert "util" in head
    assert "power" not in head
    tiny = text(width=30, height=10)
    assert "cpu-1" in tiny
    assert "health" in tiny


def test_names_from_other_machines_cannot_steer_the_terminal() -> None:
    picture = picture_of(machine_update("gpu-1", Gpu(index=0, name="evil\x1b[2Jcard\n"), reason="a\x1b]0;b\x07"))

    shown = text(picture=picture)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "evil?[2Jcard?" in shown


def test_a_plain_frame_has_every_node_and_what_is_not_over() -> None:
    picture = picture_of(*(machine_update(f"n{number}") for number in range(100)), job_update("waits"))
    picture.queues = [{"name": "simulation", "running": 0, "waiting": 1, "paused": True}]
    drawing = Drawing(picture, Screen(), PLAIN, "http://x", NOW_MS)
    lines = [line.plain for line in drawing.plain(LIVE, 100)]

    assert sum(line.startswith(" n") for line in lines) == 101  # with the head
    assert any("waits" in line for line in lines)
    assert "queues: simulation 0 running 1 waiting (paused)" in lines
    assert all(char.isascii() for line in lines for char in line)


def test_queues_that_do_not_fit_are_counted() -> None:
    picture = picture_of()
    picture.queues = [{"name": f"queue-{n}", "running": 0, "waiting": n, "paused": False} for n in range(9)]

    (line,) = [line for line in drawn(picture, width=60) if line.startswith("queues:")]
    assert line.rstrip() == "queues: queue-8 0 running 8 waiting, 8 more"
    picture.queues = []
    assert any(line.startswith("queues: none") for line in drawn(picture))


@pytest.mark.parametrize(
    ("share", "expected"),
    [(None, "      ?"), (0.0, "..   0%"), (0.01, "#.   1%"), (0.5, "#.  50%"), (1.0, "## 100%"), (7.0, "## 100%")],
)
def test_bars(share: float | None, expected: str) -> None:
    assert bar(share, 7, PLAIN) == expected


def test_figures() -> None:
    assert (share_of(1, 4), share_of(None, 4), share_of(1, None), share_of(1, 0)) == (0.25, None, None, None)
    assert (gigabytes(512, 1024), gigabytes(None, None)) == ("0.5/1.0 GB", "?/? GB")
    assert (degrees(60.6, PRETTY), degrees(None, PRETTY)) == ("61°C", "?")
    assert (watts(70), watts(1234), watts(None)) == ("70W", "1.2kW", "?")
    assert [span(seconds) for seconds in (-1, 5, 130, 7300, 200_000)] == ["0s", "5s", "2m", "2h", "2d"]
    assert (cut("abcdef", 4, PLAIN), cut("ab", 4, PLAIN), cut("北京北京", 5, PLAIN), cut("a", 0, PLAIN)) == (
        "abc~",
        "ab  ",
        "北京~",
        "",
    )
    assert clean("a\nb\x1b") == "a?b?"

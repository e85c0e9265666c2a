"""What reaches the log: never a token, wherever it was."""

import contextvars
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from muster.app.logs import configure_logs
from muster.logs.own import OwnLog, speak_about, speak_as

SECRET = "5f0sz3cretz3cret"
TOKEN = f"mst_abc123_{SECRET}"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


@contextmanager
def noted(**facts: str) -> Iterator[None]:
    try:
        yield
    except ValueError:
        structlog.get_logger().exception("broke", **facts)


def test_a_token_in_an_event_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    structlog.get_logger().info("asked", url=f"http://h/ws?token={TOKEN}", headers={"authorization": f"Bearer {TOKEN}"})

    line = capsys.readouterr().err
    assert SECRET not in line
    assert json.loads(line)["url"] == "http://h/ws?token=mst_abc123_***"


def test_a_token_in_a_traceback_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    with noted():
        int(f"cannot use {TOKEN}")

    line = capsys.readouterr().err
    assert "cannot use mst_abc123_***" in line
    assert "Traceback" in line
    assert SECRET not in line


def test_a_token_on_a_terminal_is_masked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    configure_logs("info")
    with noted(about=TOKEN):
        int(f"cannot use {TOKEN}")

    shown = capsys.readouterr().err
    assert "mst_abc123_***" in shown
    assert SECRET not in shown


def test_a_token_in_a_librarys_log_is_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of the test runner
    configure_logs("info")
    logging.getLogger("somebody").warning("GET /ws/monitor/1?token=%s", TOKEN)

    assert "?token=mst_abc123_***" in capsys.readouterr().err


def test_what_is_said_is_kept_with_its_ids_also_where_the_terminal_does_not_show_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    configure_logs("info", shown="warning")

    def speak() -> None:
        speak_as(OwnLog(tmp_path / "agent.log"))
        speak_about(job_id="job-1")
        structlog.get_logger().info("asked", token=TOKEN)
        structlog.get_logger().debug("too much")
        with noted():
            int("x")

    contextvars.copy_context().run(speak)
    kept = [json.loads(line) for line in (tmp_path / "agent.log").read_text().splitlines()]
    assert [(line["event"], line["level"], line["job_id"]) for line in kept[:2]] == [
        ("asked", "info", "job-1"),
        ("broke", "error", "job-1"),
    ]
    assert "Traceback" in kept[1]["exception"]
    assert SECRET not in (tmp_path / "agent.log").read_text()
    shown = capsys.readouterr().err
    assert "asked" not in shown
    assert "broke" in shown


def test_a_librarys_lines_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of the test runner
    configure_logs("info")

    def speak() -> None:
        speak_as(OwnLog(tmp_path / "agent.log"))
        logging.getLogger("somebody").warning("with Bearer %s", SECRET)

    contextvars.copy_context().run(speak)
    (line,) = [json.loads(line) for line in (tmp_path / "agent.log").read_text().splitlines()]
    assert (line["event"], line["level"], line["logger"]) == ("with Bearer ***", "warning", "somebody")

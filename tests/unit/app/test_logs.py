"""What reaches the log: never a token, wherever it was."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog

from muster.app.logs import configure_logs

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

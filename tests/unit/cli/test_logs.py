"""How lines are shown, and what there is without a control plane."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from muster.cli import logs as module
from muster.cli.client import Client
from muster.cli.logs import logs
from muster.errors import InvalidInput, NotFound


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a data directory whose control plane does not run; return the folder of its logs."""
    folder = tmp_path / "data" / "logs"
    (folder / "control-plane").mkdir(parents=True)
    monkeypatch.setenv("MUSTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MUSTER_LISTEN", "127.0.0.1:9")
    return folder


def test_without_a_control_plane_this_machines_logs_are_shown(
    nobody: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    (nobody / "llama.log").write_text("2026-01-31T12:30:15Z up\n")
    said = {"timestamp": "2026-01-31T12:30:10Z", "level": "info", "event": "started", "port": 8090}
    (nobody / "control-plane" / "server.log").write_text(json.dumps(said) + "\n")
    logs(["control-plane", "local/ll*"])
    shown, told = capsys.readouterr()
    first, second = shown.splitlines()
    assert first.startswith("control-plane/server |")
    assert first.endswith("started  port=8090")
    assert second.startswith("local/llama")
    assert second.endswith("2026-01-31T12:30:15Z up")
    assert "these are the logs on this machine" in told
    assert not (nobody / ".seen").exists()  # whoever tends them has the last word on that


def test_a_log_that_is_not_on_this_machine_is_said_so(nobody: Path) -> None:
    with pytest.raises(NotFound, match="it has `local` and `control-plane`"):
        logs(["gpu-1/llama"])


def test_what_does_not_go_together_is_refused(nobody: Path) -> None:
    for wrong in ({"job_id": "j", "follow": True}, {"job_id": "j", "correlation_id": "c"}):
        with pytest.raises(InvalidInput, match="stand alone"):
            logs(**wrong)
    with pytest.raises(InvalidInput, match="say which log"):
        logs(["clear", "gpu-1"])


def shown(monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any], **asked: Any) -> None:
    monkeypatch.setattr(Client, "find", lambda *_: None)
    monkeypatch.setattr(module, "_read", lambda *_, **__: iter(rows))
    logs(**asked)


LINE = {"node_id": "n1", "log": "llama", "at": "2026-01-31T12:30:15.250Z", "seen": True, "level": "error", "text": "x"}


def test_one_log_has_no_prefix_and_a_time_that_was_only_seen_is_marked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = datetime(2026, 1, 31, 12, 30, 15, tzinfo=UTC).astimezone()
    shown(monkeypatch, LINE, LINE | {"seen": False}, LINE | {"at": None, "seen": False}, sources=["n1/llama"])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"~{at:%H:%M:%S}.250 x"
    assert second == f" {at:%H:%M:%S}.250 x"
    assert third.split() == ["-", "x"]


def test_a_level_has_its_colour_and_a_source_always_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown(monkeypatch, LINE, LINE, sources=[])
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("\x1b[")
    assert first.endswith("\x1b[31mx\x1b[0m")


def test_only_notes_are_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        shown(monkeypatch, {"node_id": "n1", "note": "it is away"})
    assert "-- n1: it is away" in capsys.readouterr().err
    shown(monkeypatch, LINE, {"node_id": "n1", "note": "3 lines left out"}, as_json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == LINE

"""The event log follows a control plane that comes and goes."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from muster.app import event_log as module
from muster.app.event_log import EventLog, Way
from tests.monitor_server import MonitorServer
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)


@pytest.fixture
async def server() -> AsyncIterator[MonitorServer]:
    server = MonitorServer(token="secret")
    await server.start()
    yield server
    await server.stop()


class Written:
    def __init__(self, path: Path, server: MonitorServer, token: str = "secret") -> None:
        self.heard: list[dict[str, Any]] = []
        self.path = path
        self.log = EventLog(Way(url=server.url, token=token), path, self.heard.append)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def types(self) -> list[str]:
        return [line.get("state") or line["type"] for line in self.lines()]


@pytest.fixture
async def written(tmp_path: Path, server: MonitorServer) -> AsyncIterator[Written]:
    written = Written(tmp_path / "logs" / "events.log", server)
    yield written
    await written.log.stop()


async def test_all_that_is_told_is_written_one_a_line(server: MonitorServer, written: Written) -> None:
    await written.log.start()
    await eventually(lambda: server.readers == 1)
    server.tell({"type": "long", "text": "x" * 300_000})
    server.tell({"type": "short"})
    await eventually(lambda: len(written.heard) == 4)
    assert written.types() == ["connected", "connected", "full_state_snapshot", "long", "short"]
    assert written.lines()[1:] == written.heard
    assert written.lines()[0]["type"] == "event_log"


async def test_it_takes_up_where_it_was_cut_off_and_says_that_it_was(server: MonitorServer, written: Written) -> None:
    await written.log.start()
    await eventually(lambda: server.readers == 1)
    server.tell({"type": "before"})
    await eventually(lambda: "before" in written.types())
    server.cut()
    server.tell({"type": "missed"})
    await eventually(lambda: "missed" in written.types())
    types = written.types()
    assert types[types.index("before") + 1 :] == ["disconnected", "connected", "connected", "missed"]
    assert types.count("full_state_snapshot") == 1


async def test_a_control_plane_that_is_away_is_waited_for(server: MonitorServer, written: Written) -> None:
    await server.stop()
    await written.log.start()
    await eventually(lambda: written.types().count("disconnected") > 2)
    await server.start()
    await eventually(lambda: "full_state_snapshot" in written.types())


async def test_a_refusal_is_written_with_its_reason(server: MonitorServer, tmp_path: Path) -> None:
    refused = Written(tmp_path / "events.log", server, token="wrong")
    await refused.log.start()
    await eventually(lambda: "401" in str(refused.lines()[0].get("about")))
    await refused.log.stop()


async def test_an_event_without_an_end_is_given_up(
    server: MonitorServer, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SNAPSHOT_BYTES_MAX", 1000)
    await written.log.start()
    await eventually(lambda: server.readers == 1)
    server.tell({"type": "long", "text": "x" * 100_000})
    await eventually(lambda: any("more than 1000 bytes" in str(line.get("about")) for line in written.lines()))


async def test_a_file_that_grows_makes_room(
    server: MonitorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOG_BYTES_MAX", 100)
    monkeypatch.setattr(module, "_LINES_PER_LOOK", 2)
    written = Written(tmp_path / "events.log", server)
    await written.log.start()
    await eventually(lambda: server.readers == 1)
    server.tell({"type": "last"})
    server.tell({"type": "last"})
    await eventually((tmp_path / "events.log.1").exists)
    await written.log.stop()

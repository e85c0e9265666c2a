"""What Muster says itself, and in which file it is kept."""

import asyncio
import json
from pathlib import Path
from typing import Any

from muster.logs import own
from muster.logs.own import Notes, OwnLog, keep, speak_about, speak_as, speaker, speaking_as, spoken_about
from tests.clocks import ManualClock


def said(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_each_part_has_its_own_log_and_so_have_the_tasks_it_starts(tmp_path: Path) -> None:
    async def speak(name: str) -> None:
        speak_as(OwnLog(tmp_path / f"{name}.log"))
        keep({"event": "here"})
        await asyncio.create_task(speak_on())

    async def speak_on() -> None:
        keep({"event": "there"})

    await asyncio.gather(speak("agent"), speak("server"))
    for name in ("agent", "server"):
        assert said(tmp_path / f"{name}.log") == [{"event": "here"}, {"event": "there"}]
    assert speaker() is None
    keep({"event": "nobody keeps this"})


async def test_what_one_part_does_within_anothers_task_it_says_under_its_own_name(tmp_path: Path) -> None:
    server, agent = OwnLog(tmp_path / "server.log"), OwnLog(tmp_path / "agent.log")
    speak_as(agent)
    with speaking_as(server):
        keep({"event": "asked"})
    keep({"event": "answered"})
    assert (said(server.path), said(agent.path)) == ([{"event": "asked"}], [{"event": "answered"}])
    server.close()
    agent.close()
    agent.close()


async def test_no_secret_is_kept(tmp_path: Path) -> None:
    speak_as(OwnLog(tmp_path / "a.log"))
    keep({"event": "asked", "url": "http://h/x?token=hunter2", "at": Path("/x")})
    assert said(tmp_path / "a.log") == [{"event": "asked", "url": "http://h/x?token=***", "at": "/x"}]


async def test_a_log_that_somebody_has_removed_begins_anew(tmp_path: Path) -> None:
    log = OwnLog(tmp_path / "a.log")
    speak_as(log)
    keep({"event": "one"})
    log.path.unlink()
    keep({"event": "two"})
    assert said(log.path) == [{"event": "two"}]


async def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.log").mkdir()
    speak_as(OwnLog(tmp_path / "a.log"))
    keep({"event": "lost"})


async def test_ids_are_those_of_the_task_and_of_what_it_starts() -> None:
    async def about(job_id: str) -> dict[str, str]:
        speak_about(job_id=job_id)
        return dict(await asyncio.create_task(told()))

    async def told() -> dict[str, str]:
        return dict(spoken_about())

    first, second = await asyncio.gather(about("a"), about("b"))
    assert (first, second) == ({"job_id": "a"}, {"job_id": "b"})
    assert spoken_about() == {}


async def test_notes_are_written_together_and_of_too_many_only_their_number(tmp_path: Path) -> None:
    clock = ManualClock(1_769_862_615_042)
    notes = Notes(OwnLog(tmp_path / "gateway.log"), clock)
    asked = 0

    def facts() -> dict[str, int]:
        nonlocal asked
        asked += 1
        return {"status": 200}

    for _ in range(own._WAITING_MAX + 7):
        notes.add("info", "request", facts)
    assert asked == 0
    notes.flush(clock.now_ms())
    lines = said(tmp_path / "gateway.log")
    assert len(lines) == own._WAITING_MAX + 1 == asked + 1
    assert lines[0] == {"timestamp": "2026-01-31T12:30:15.042Z", "level": "info", "event": "request", "status": 200}
    assert (lines[-1]["event"], lines[-1]["count"]) == ("lines_left_out", 7)
    notes.flush(clock.now_ms())
    assert len(said(tmp_path / "gateway.log")) == len(lines)


async def test_a_stop_writes_what_is_left(tmp_path: Path) -> None:
    notes = Notes(OwnLog(tmp_path / "gateway.log"), ManualClock())
    await notes.start()
    notes.add("info", "request", dict)
    await notes.stop()
    assert len(said(tmp_path / "gateway.log")) == 1

"""What a person is told of a machine that comes up, and what its process is given."""

from pathlib import Path
from typing import Any

import pytest

from muster.app.event_log import Way
from muster.app.full_stack import MachineTold, way_to
from muster.app.machine import environment
from muster.app.node import check_machine
from muster.app.startup_channel import StartupChannel
from muster.domain.event import Event
from muster.errors import SetupError, StoreUnavailable
from muster.settings import Settings, load_settings

STACK = {"profile": "basic-machine-local"}


def messages(*told: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": kind, "machine_id": "m"} | data for kind, data in told]


class Person:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ready = 0
        self.told = MachineTold("m", self._tell, self._be_ready)

    def _tell(self, line: str, _: float | None) -> None:
        self.lines.append(line)

    def _be_ready(self) -> None:
        self.ready += 1


def test_a_person_follows_the_steps_and_is_told_once_that_all_is_ready() -> None:
    person = Person()
    complete = ("machine_startup_complete", {"worker_count": 2})
    step, started = ("machine_startup_step", {"step": "one"}), ("service_started", {"service": "comfyui-gpu0"})
    for message in messages(("machine_update", {}), step, started, complete, complete):
        person.told.hear(message)
    person.told.hear({"type": "machine_startup_step", "machine_id": "another", "step": "x"})
    person.told.hear({"type": "system_stats"})
    assert person.lines == ["m: one", "m: comfyui-gpu0 runs", "m: ready, 2 workers", "m: ready, 2 workers"]
    assert person.ready == 1


def test_a_failure_is_told_with_a_next_step() -> None:
    person = Person()
    failed = ("service_failed", {"service": "comfyui-gpu0", "reason": "no room"})
    ended = ("machine_startup_failed", {"step": "workers_starting", "reason": "no room"})
    for message in messages(failed, ended):
        person.told.hear(message)
    assert person.lines[:2] == ["m: comfyui-gpu0 failed: no room", "m: did not come up (workers_starting): no room"]
    assert "same command once more" in person.lines[2]
    assert person.ready == 0


def test_the_machine_gets_our_settings_and_reaches_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTHER", "kept")
    given = {"token": "secret", "num_gpus": "3", "discover": False, "data_dir": str(tmp_path), "tls_cert_file": "c"}
    settings = load_settings(STACK | given | {"tls_key_file": "k"}, env={})
    env = environment(settings, "https://127.0.0.1:1")
    assert env["OTHER"] == "kept"
    own = {name: value for name, value in env.items() if name.startswith("MUSTER_")}
    again = load_settings({}, env=own)
    assert (again.num_gpus, again.token, again.discover, again.profile) == ("3", "secret", False, STACK["profile"])
    assert (again.control_plane, again.data_dir, again.ca_file) == ("https://127.0.0.1:1", str(tmp_path), "c")


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("http://127.0.0.1:8090", "http://127.0.0.1:8090"),
        ("http://0.0.0.0:1", "http://127.0.0.1:1"),
        ("http://[::]:1", "http://[::1]:1"),
    ],
)
def test_a_control_plane_that_listens_everywhere_is_reached_on_loopback(url: str, reached: str) -> None:
    assert way_to(Settings(token="t"), [url]) == Way(url=reached, token="t")


def test_the_machine_of_a_profile_has_its_name_unless_it_is_given_one() -> None:
    assert check_machine(load_settings(STACK, env={})) == "basic-machine-local"
    assert check_machine(load_settings(STACK, env={"MACHINE_ID": "mine"})) == "mine"


def test_f3_p_a_number_of_gpus_that_cannot_be_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="1 to 8 GPUs"):
        check_machine(load_settings(STACK, env={"NUM_GPUS": "0"}))
    file = tmp_path / "node.toml"
    file.write_text("[node]\ngpus = 9\n")
    with pytest.raises(SetupError, match="1 to 8 GPUs"):
        check_machine(load_settings(STACK | {"node_file": str(file)}, env={}))


def test_an_unknown_profile_is_refused_with_the_known_one() -> None:
    with pytest.raises(SetupError, match="unknown profile 'basic'") as refused:
        load_settings({"profile": "basic"}, env={})
    assert "basic-machine-local" in (refused.value.next_step or "")


def test_events_are_written_where_they_are_asked_for_and_always_with_a_profile(tmp_path: Path) -> None:
    assert Settings().event_log_path is None
    assert Settings(event_log=str(tmp_path / "x")).event_log_path == tmp_path / "x"
    path = Settings(data_dir=str(tmp_path), profile="basic-machine-local").event_log_path
    assert path == tmp_path / "logs" / "monitorEventStream.log"


async def test_only_what_is_of_a_startup_is_announced_and_a_store_that_is_away_keeps_nobody() -> None:
    announced: list[tuple[str, bytes]] = []
    away = False

    async def publish(channel: str, data: bytes) -> None:
        if away:
            raise StoreUnavailable("away")
        announced.append((channel, data))

    channel = StartupChannel(publish)
    events = [Event(kind=kind, key="m", at_ms=5) for kind in ("startup_complete", "step_done")]
    await channel.tell(events)
    assert [name for name, _ in announced] == ["machine:startup:events"]
    assert b'"event":"startup_complete"' in announced[0][1]
    away = True
    await channel.tell(events)
    assert len(announced) == 1

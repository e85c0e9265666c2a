import json
import os
import shutil
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from muster.cli import checks
from muster.cli.checks import Finding, Level
from muster.connectors import catalog
from muster.devices.machine_gpus import MachineGpus
from muster.domain.gpu import Gpu
from muster.settings import Settings, load_settings
from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def one(found: Iterable[Finding]) -> Finding:
    (finding,) = found
    return finding


def settings(**values: object) -> Settings:
    return load_settings(values)


def test_a_free_port_is_fine_and_a_taken_one_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        finding = one(checks.ports(settings(listen=address)))

    assert finding.level is Level.MISSING
    assert f"{address} is taken by" in finding.found
    assert "--listen" in str(finding.next_step)
    assert one(checks.ports(settings(listen=address))).level is Level.OK


def test_an_outside_store_that_does_not_answer_is_missing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as store:
        url = f"redis://127.0.0.1:{store.getsockname()[1]}"
        assert one(checks.store(settings(valkey_url=url))).level is Level.OK

    assert one(checks.store(settings(valkey_url=url))).level is Level.MISSING


def test_the_embedded_store_says_its_version() -> None:
    finding = one(checks.store(settings()))

    assert finding.level is Level.OK
    assert "v=" in finding.found


@pytest.mark.parametrize(
    ("free", "level"),
    [(10**6, Level.MISSING), (10**9, Level.WARN), (10**11, Level.OK)],
    ids=["full", "little", "enough"],
)
def test_the_disk_needs_room(monkeypatch: pytest.MonkeyPatch, free: int, level: Level) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free))

    assert {finding.level for finding in checks.folders(settings())} == {level}


def test_a_directory_that_cannot_be_written_to_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    assert {finding.level for finding in checks.folders(settings())} == {Level.MISSING}


def test_models_in_the_cache_are_named(tmp_path: Path) -> None:
    where = settings(artifact_dir=f"{tmp_path}/models")
    assert "none yet" in one(checks.cached_models(where)).found

    folder = Path(where.artifact_dir)
    folder.mkdir()
    (folder / "small.gguf").write_bytes(b"x" * 2000)
    assert one(checks.cached_models(where)).found == "small.gguf (2.0 kB)"


def test_a_model_server_that_runs_is_named_with_its_models(plane: StubPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.on("GET", "/v1/models", Reply({"object": "list", "data": [{"id": "smollm2", "object": "model"}]}))
    monkeypatch.setattr(catalog, "USUAL_PORTS", {"openai": int(plane.url.rpartition(":")[2])})

    assert f"openai at {plane.url} (smollm2)" in one(checks.model_servers(settings())).found


def test_a_machine_without_model_servers_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "USUAL_PORTS", {})

    finding = one(checks.model_servers(settings()))
    assert (finding.level, finding.found) == (Level.OK, "none (not needed)")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            (Gpu(index=0, name="L4", memory_total_mb=23_034), Gpu(index=1, name="T4")),
            "L4 (24.2 GB), T4 (memory unknown)",
        ),
        ((), "none (not needed)"),
    ],
)
def test_gpus_are_named_as_the_agent_sees_them(
    monkeypatch: pytest.MonkeyPatch, found: tuple[Gpu, ...], text: str
) -> None:
    async def read(_: MachineGpus) -> tuple[Gpu, ...]:
        return found

    monkeypatch.setattr(MachineGpus, "read", read)

    assert one(checks.gpus(settings())).found == text


@pytest.mark.parametrize(
    "command",
    [["/nowhere/to/be/found"], [sys.executable, "-c", "raise SystemExit(1)"]],
    ids=["absent", "fails"],
)
def test_a_program_that_does_not_work_says_nothing(command: list[str]) -> None:
    assert checks._run(command) is None


@pytest.mark.parametrize(
    ("spec", "next_step"), [(object(), "apt-get install libgomp1"), (None, "pip install 'muster[llamacpp]'")]
)
def test_a_model_server_that_does_not_run_is_a_warning_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, spec: object, next_step: str
) -> None:
    monkeypatch.setattr(checks, "_run", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)

    finding = one(checks.model_server(settings()))
    assert finding.level is Level.WARN
    assert next_step in str(finding.next_step)


def test_a_missing_program_of_the_tests_is_only_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)

    assert {finding.level for finding in checks.programs_of_tests(settings())} == {Level.WARN}


def test_the_doctor_tells_a_program_the_same(cli: Cli) -> None:
    outcome = cli("doctor", "--json")

    findings = json.loads(outcome.out)
    assert {"settings", "Python", "embedded Valkey", "llama.cpp", "port"} <= {finding["what"] for finding in findings}
    assert outcome.code == int(any(finding["level"] == "missing" for finding in findings))


def test_the_doctor_survives_settings_that_do_not_fit(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_HARTBEAT_INTERVAL_S", "5")

    outcome = cli("doctor")

    assert outcome.code == 1
    assert "MUSTER_HEARTBEAT_INTERVAL_S" in outcome.out

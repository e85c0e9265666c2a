"""The units: sections and directives that systemd knows, commands and settings that Muster knows."""

import configparser
import re

import pytest

from muster.settings import load_settings
from tests.deploy.programs import DEPLOY
from tests.deploy.words import check_command, environment_file, unknown_settings

FOLDER = DEPLOY / "systemd"
UNITS = {"worker-agent.service": "env.example", "muster.service": "muster.env.example"}
# From systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5) and systemd.resource-control(5): those of
# them that services like these have use for. One that is not here is a typing mistake, or is to be added with care.
DIRECTIVES = {
    "Unit": "Description Documentation After Wants Requires StartLimitIntervalSec StartLimitBurst ConditionPathExists",
    "Service": "Type ExecStart ExecStartPre EnvironmentFile Environment User Group StateDirectory StateDirectoryMode "
    "CacheDirectory CacheDirectoryMode Restart RestartSec RestartPreventExitStatus KillMode TimeoutStopSec Delegate "
    "LimitNOFILE UMask NoNewPrivileges CapabilityBoundingSet AmbientCapabilities ProtectSystem ProtectHome PrivateTmp "
    "PrivateDevices ProtectHostname ProtectClock ProtectKernelTunables ProtectKernelModules ProtectKernelLogs "
    "ProtectControlGroups RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID LockPersonality "
    "SystemCallArchitectures",
    "Install": "WantedBy",
}
MAY_REPEAT = {"Environment", "ExecStartPre", "Documentation"}
EXAMPLE_SECRETS = {"TOKEN", "PASSWORD"}


def parsed(name: str) -> dict[str, dict[str, list[str]]]:
    """Read a unit as systemd does: sections of `Name=value` lines, comments, nothing else."""
    sections: dict[str, dict[str, list[str]]] = {}
    section = ""
    for number, line in enumerate((FOLDER / name).read_text().splitlines(), start=1):
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if (head := re.fullmatch(r"\[(\w+)\]", line)) is not None:
            section = head[1]
            assert section in DIRECTIVES, f"{name}:{number}: no section {section}"
            assert section not in sections, f"{name}:{number}: {section} again"
            sections[section] = {}
            continue
        found = re.fullmatch(r"([A-Za-z]+)=(.*?)", line)
        assert found is not None, f"{name}:{number}: no directive: {line!r}"
        key, value = found[1], found[2]
        assert key in DIRECTIVES[section].split(), f"{name}:{number}: {key} is not known in [{section}]"
        assert key not in sections[section] or key in MAY_REPEAT, f"{name}:{number}: {key} again"
        assert not value.endswith("\\"), f"{name}:{number}: goes on in the next line"
        sections[section].setdefault(key, []).append(value)
    return sections


def one(name: str, directive: str) -> str:
    return parsed(name)["Service"][directive][0]


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_one_that_systemd_reads(name: str) -> None:
    assert list(parsed(name)) == ["Unit", "Service", "Install"]
    configparser.RawConfigParser(strict=False).read_string((FOLDER / name).read_text())


@pytest.mark.parametrize(("name", "home"), [("worker-agent.service", "worker-agent"), ("muster.service", "muster")])
def test_it_runs_a_command_that_exists(name: str, home: str) -> None:
    program, *words = one(name, "ExecStart").split()

    assert program == f"/opt/{home}/bin/muster"
    check_command(words)


@pytest.mark.parametrize("name", UNITS)
def test_its_settings_are_known(name: str) -> None:
    inline = dict(text.partition("=")[::2] for text in parsed(name)["Service"]["Environment"])
    example = environment_file((FOLDER / UNITS[name]).read_text())

    assert unknown_settings(inline) == []
    assert unknown_settings(example) == []
    load_settings(env=inline | example | {"MUSTER_TLS_CERT_FILE": "c", "MUSTER_TLS_KEY_FILE": "k"})


@pytest.mark.parametrize("name", UNITS)
def test_its_data_is_where_it_may_write(name: str) -> None:
    inline = dict(text.partition("=")[::2] for text in parsed(name)["Service"]["Environment"])

    assert one(name, "ProtectSystem") == "strict"
    assert inline["MUSTER_DATA_DIR"] == f"/var/lib/{one(name, 'StateDirectory')}"
    if "MUSTER_ARTIFACT_DIR" in inline:
        assert inline["MUSTER_ARTIFACT_DIR"] == f"/var/cache/{one(name, 'CacheDirectory')}"


@pytest.mark.parametrize("name", UNITS)
def test_every_line_of_its_example_is_explained(name: str) -> None:
    text = (FOLDER / UNITS[name]).read_text()
    paragraphs = [paragraph.splitlines() for paragraph in text.split("\n\n")]

    assert UNITS[name] in text
    assert [lines for lines in paragraphs if not re.match(r"# \S", lines[0])] == []


def test_the_settings_of_the_agent_are_where_the_checklist_looks_for_them() -> None:
    example = environment_file((FOLDER / "env.example").read_text())

    assert one("worker-agent.service", "EnvironmentFile") == "/etc/worker-agent/env"
    assert {"RABBITMQ_URL", "CONTROL_PLANE_ADDR", "NODE_TYPE", "NUM_GPUS", "NEBULA_IP", "INSTANCE_ID"} <= set(example)


def test_the_agent_is_started_again_after_a_crash_but_not_after_a_shutdown() -> None:
    assert one("worker-agent.service", "Restart") == "always"
    assert one("worker-agent.service", "RestartPreventExitStatus") == "0"


def test_the_agent_may_stop_its_model_servers_itself_and_see_the_gpus() -> None:
    service = parsed("worker-agent.service")["Service"]
    stop_s = load_settings(env={}).stop_timeout_s

    assert service["KillMode"] == ["mixed"]
    assert service["Delegate"] == ["yes"]
    assert int(service["TimeoutStopSec"][0]) > 2 * stop_s
    assert not {"PrivateDevices", "ProtectControlGroups", "MemoryDenyWriteExecute"} & set(service)


@pytest.mark.parametrize("name", UNITS)
def test_a_wrong_setting_is_not_tried_for_ever(name: str) -> None:
    unit = parsed(name)["Unit"]

    assert int(unit["StartLimitBurst"][0]) * int(one(name, "RestartSec")) < int(unit["StartLimitIntervalSec"][0])


def test_the_user_of_the_units_is_the_one_that_is_made() -> None:
    made = [line.split()[1] for line in (FOLDER / "sysusers.conf").read_text().splitlines() if line.startswith("u ")]

    assert {one(name, "User") for name in UNITS} == set(made)

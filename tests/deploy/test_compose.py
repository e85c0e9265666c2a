"""deploy/compose.yaml: valid, and it says what Muster understands."""

import json
import re
from functools import cache
from typing import Any

import pytest
import yaml

from muster.settings import load_settings
from tests.deploy.programs import CHART, DEPLOY, installed, output_of
from tests.deploy.words import check_command, environment_file, unknown_settings

SECRETS = {"MUSTER_TOKEN": "tok3n", "VALKEY_PASSWORD": "st0re", "RABBITMQ_PASSWORD": "br0ker"}
FILES = ("-f", "compose.yaml", "-f", "compose.gpu.yaml")


@cache
def composed() -> Any:
    text = output_of(installed("docker-compose"), *FILES, "config", cwd=DEPLOY, env=SECRETS)
    return yaml.safe_load(text)


MACHINE = (*FILES[:2], "-f", "compose.machine.yaml")


@pytest.mark.parametrize("files", [FILES[:2], FILES, MACHINE])
def test_compose_takes_it(files: tuple[str, ...]) -> None:
    output_of(installed("docker-compose"), *files, "config", "-q", cwd=DEPLOY, env=SECRETS)


def test_it_keeps_to_the_specification() -> None:
    files = [DEPLOY / name for name in dict.fromkeys((*FILES, *MACHINE)) if name.endswith(".yaml")]

    output_of(installed("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files)


@pytest.mark.parametrize("service", ["control-plane", "agent"])
def test_commands_and_settings_are_known(service: str) -> None:
    spec = composed()["services"][service]

    check_command(spec["command"])
    assert unknown_settings(spec["environment"]) == []
    load_settings(env=spec["environment"])


def test_the_development_machine_has_a_name_a_profile_and_a_check() -> None:
    text = output_of(installed("docker-compose"), *MACHINE, "config", cwd=DEPLOY, env=SECRETS)
    agent = yaml.safe_load(text)["services"]["agent"]

    check_command(agent["command"])
    own = {name: value for name, value in agent["environment"].items() if name.startswith("MUSTER_")}
    assert unknown_settings(own) == []
    assert load_settings(env=agent["environment"]).num_gpus == "2"
    assert agent["container_name"] == "basic-machine-local"
    assert not agent["healthcheck"].get("disable")
    assert "8299/health" in agent["healthcheck"]["test"][-1]


def test_both_sides_speak_over_the_same_broker_with_the_secrets_that_were_given() -> None:
    services = composed()["services"]
    url = "amqp://muster:br0ker@rabbitmq:5672/agents"

    assert services["control-plane"]["environment"]["MUSTER_RABBITMQ_URL"] == url
    assert services["agent"]["environment"]["MUSTER_RABBITMQ_URL"] == url
    assert services["control-plane"]["environment"]["MUSTER_VALKEY_URL"] == "valkey://:st0re@valkey:6379/0"


def test_ports_are_open_to_this_machine_only_unless_asked() -> None:
    ports = [port for service in composed()["services"].values() for port in service.get("ports", ())]

    assert {port["target"] for port in ports} == {8090, 50051, 5672, 15672}
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_definitions_are_mounted_where_the_broker_loads_them_from() -> None:
    configs = composed()["configs"]
    mounted = {config["source"]: config["target"] for config in composed()["services"]["rabbitmq"]["configs"]}
    loaded = re.search(r"^load_definitions = (.+)$", (CHART / "files" / "rabbitmq.conf").read_text(), re.MULTILINE)

    assert loaded is not None
    assert mounted["definitions.json"] == loaded[1]
    assert mounted["rabbitmq.conf"].startswith("/etc/rabbitmq/conf.d/")
    template = (CHART / "files" / "definitions.json").read_text()
    filled = template.replace("${RABBITMQ_USER}", "muster").replace("${RABBITMQ_PASSWORD}", "br0ker")
    assert json.loads(configs["definitions.json"]["content"]) == json.loads(filled)


def test_the_example_names_every_secret_and_has_none() -> None:
    example = environment_file((DEPLOY / ".env.example").read_text())
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))

    assert used == set(example)
    assert {name: example[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")


def test_a_secret_that_is_missing_is_named() -> None:
    text = (DEPLOY / "compose.yaml").read_text()

    for name in SECRETS:
        assert f"${{{name}:?set it in deploy/.env" in text

"""deploy/Dockerfile makes one image for both sides."""

import json
import re

import pytest

from muster.settings import Settings
from tests.architecture.tree import ROOT
from tests.deploy.programs import DEPLOY, installed, output_of
from tests.deploy.words import check_command, unknown_settings

TEXT = (DEPLOY / "Dockerfile").read_text()
LINES = re.sub(r"\\\n\s*", "", TEXT).splitlines()


def said(instruction: str) -> list[str]:
    return [line.removeprefix(instruction).strip() for line in LINES if line.startswith(instruction + " ")]


def test_the_dockerfile_is_clean() -> None:
    output_of(installed("hadolint"), DEPLOY / "Dockerfile")


def test_it_is_made_in_two_stages_and_runs_as_nobody_in_particular() -> None:
    assert len(said("FROM")) == 2
    user, _, group = said("USER")[-1].partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_it_starts_the_server_unless_told_otherwise() -> None:
    assert json.loads(said("ENTRYPOINT")[0])[-1] == "muster"
    check_command(json.loads(said("CMD")[0]))
    check_command(["agent"])


def test_its_ports_are_the_default_ones() -> None:
    defaults = Settings()

    assert said("EXPOSE")[0].split() == [defaults.listen.rpartition(":")[2], defaults.grpc_listen.rpartition(":")[2]]
    assert any("/health" in line for line in LINES if line.strip().startswith("CMD") or "HEALTHCHECK" in line)


def test_its_environment_has_known_settings_only() -> None:
    names = re.findall(r"\b(MUSTER_\w+)=", TEXT)

    assert set(names) == {"MUSTER_DATA_DIR", "MUSTER_ARTIFACT_DIR"}
    assert unknown_settings(names) == []


def test_its_extras_are_those_of_the_package() -> None:
    default = said("ARG")[0].removeprefix("EXTRAS=").split(",")
    known = re.findall(
        r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1], re.MULTILINE
    )

    assert {"amqp", "grpc", "cloud"} <= set(default) <= set(known)


@pytest.mark.parametrize("source", ["pyproject.toml", "README.md", "LICENSE", "requirements/constraints.txt", "src"])
def test_what_it_copies_is_there_and_not_ignored(source: str) -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()

    assert (ROOT / source).exists()
    assert any(source in line for line in said("COPY"))
    assert f"!{source}" in ignored
    assert "*" in ignored

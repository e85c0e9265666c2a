"""Machines that come up as workers: cloud-init's user data and Packer's image."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.programs import DEPLOY, complaint_of, fetched, installed, output_of
from tests.deploy.words import environment_file, unknown_settings

WORKER = DEPLOY / "cloud-init" / "worker.yaml"
PACKER = DEPLOY / "packer"


def written() -> Mapping[str, Mapping[str, Any]]:
    """Return what the user data writes, by path."""
    return {entry["path"]: entry for entry in yaml.safe_load(WORKER.read_text())["write_files"]}


def test_cloud_init_takes_the_user_data() -> None:
    assert "Valid cloud-config" in output_of(fetched("cloud-init"), "schema", "--config-file", WORKER)


def test_cloud_init_would_say_what_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(WORKER.read_text().replace("write_files:", "write_files: 3\nother:", 1))

    assert "write_files" in complaint_of(fetched("cloud-init"), "schema", "--config-file", broken)


def test_the_user_data_fits_into_what_a_cloud_takes() -> None:
    assert len(base64.b64encode(WORKER.read_bytes())) < 16_384


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/etc/systemd/system/worker-agent.service", "worker-agent.service"),
        ("/etc/sysusers.d/muster.conf", "sysusers.conf"),
    ],
)
def test_it_writes_the_files_of_systemd_as_they_are(path: str, source: str) -> None:
    assert written()[path]["content"] == (DEPLOY / "systemd" / source).read_text(), f"copy deploy/systemd/{source} anew"


def test_its_settings_are_known_and_closed_to_others() -> None:
    given = written()["/etc/worker-agent/env.given"]
    settings = environment_file(given["content"])

    assert given["permissions"] == "0600"
    assert unknown_settings(settings) == []
    assert {"RABBITMQ_URL", "CONTROL_PLANE_ADDR", "MUSTER_TOKEN"} <= set(settings)


def test_what_it_runs_is_a_clean_script_that_it_wrote(tmp_path: Path) -> None:
    (command,) = yaml.safe_load(WORKER.read_text())["runcmd"]
    script = tmp_path / "setup.sh"
    script.write_text(written()[command[0]]["content"])

    assert written()[command[0]]["permissions"] == "0755"
    output_of(installed("shellcheck"), script)
    assert unknown_settings(re.findall(r"about (\w+)", script.read_text())) == []


def test_what_happens_is_in_the_log_that_the_checklist_names() -> None:
    assert "/var/log/userdata.log" in yaml.safe_load(WORKER.read_text())["output"]["all"]


def test_packer_takes_the_image_and_its_only_build() -> None:
    output_of(fetched("packer"), "validate", "-only=gpu-worker.*", ".", cwd=PACKER)
    output_of(fetched("packer"), "fmt", "-check", ".", cwd=PACKER)
    described = output_of(fetched("packer"), "inspect", ".", cwd=PACKER)

    # `-only=gpu-worker.*` goes by the build's name.
    assert re.search(r"> builds:\s+> gpu-worker:\s+sources:\s+amazon-ebs\.gpu-worker", described)


def test_what_packer_copies_is_what_its_script_installs() -> None:
    template, script = (PACKER / "gpu-worker.pkr.hcl").read_text(), (PACKER / "install.sh").read_text()
    copied = re.findall(r'"\$\{path\.root\}/(\.\./[^"$]+)",$', template, re.MULTILINE)

    assert len(copied) == 3
    for source in copied:
        assert (PACKER / source).exists()
        assert f"/tmp/muster/{Path(source).name}" in script


def test_newer_packers_find_the_builder_in_a_file_of_its_own() -> None:
    newer = (PACKER / "newer" / "plugins.pkr.hcl").read_text()

    assert "required_plugins" in newer
    assert "required_plugins" not in (PACKER / "gpu-worker.pkr.hcl").read_text()

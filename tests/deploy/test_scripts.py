"""Every shell script and every YAML file of the repository is clean."""

from tests.architecture.tree import ROOT, shown, tracked_files
from tests.deploy.programs import installed, output_of


def test_every_shell_script_is_clean() -> None:
    scripts = [shown(path) for path in tracked_files() if path.suffix == ".sh"]

    assert scripts
    output_of(installed("shellcheck"), "--shell", "sh", *scripts)
    output_of(installed("shellcheck"), ROOT / ".ci" / "run")


def test_every_yaml_file_is_clean() -> None:
    output_of(installed("yamllint"), "--strict", "deploy", ".yamllint.yaml")

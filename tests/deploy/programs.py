"""The programs that check deploy/, and what they are asked."""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.architecture.tree import ROOT

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "muster"
KUBERNETES = ("1.25", "1.30", "1.37")  # the oldest that the chart takes, one in between, the newest known
# By CRDs, which no released schema has.
OTHER_KINDS = ("IngressRoute", "PrometheusRule", "ServiceMonitor")

Object = Mapping[str, Any]


def fetched(name: str) -> str:
    """Return the path of helm, kubectl, packer or cloud-init; what is on this machine by itself may be another one."""
    path = ROOT / ".cache" / "validators" / "bin" / name
    assert path.exists(), f"{name} is missing: sh tools/fetch_validators.sh"
    return str(path)


def installed(name: str) -> str:
    """Return the path of a program that came with a Python package."""
    path = Path(sys.executable).parent / name
    assert path.exists(), f"{name} is missing: make install"
    return str(path)


def output_of(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Run and return what it printed; what it complains about is the failure."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"NO_COLOR": "1"} | dict(env or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{Path(command[0]).name} says:\n{done.stdout}{done.stderr}"
    return done.stdout


def complaint_of(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run what must fail, and return what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0, f"{Path(command[0]).name} has nothing against it"
    return done.stdout + done.stderr


@functools.cache
def chart(*arguments: str) -> tuple[Object, ...]:
    """Return the objects that the chart makes."""
    text = output_of(fetched("helm"), "template", "muster", CHART, "--namespace", "ec2-agents", *arguments)
    return objects(text)


def objects(text: str) -> tuple[Object, ...]:
    return tuple(document for document in yaml.safe_load_all(text) if document)


def find(found: Sequence[Object], kind: str, name: str) -> Object:
    return next(thing for thing in found if thing["kind"] == kind and thing["metadata"]["name"] == name)


def pods(found: Sequence[Object]) -> dict[str, Object]:
    """Return the pod of each workload by its name."""
    return {
        thing["metadata"]["name"]: thing["spec"]["template"]["spec"]
        for thing in found
        if thing["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}
    }


def check_against_kubernetes(text: str, folder: Path) -> None:
    """Hold every object against the schemas of several versions, strictly."""
    known = [thing for thing in objects(text) if thing["kind"] not in OTHER_KINDS]
    assert known
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(known))
    for version in KUBERNETES:
        output_of(installed("kubernetes-validate"), "--strict", "--quiet", "-k", version, file)

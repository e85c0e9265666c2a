"""The plain manifests of deploy/kubernetes are what the chart makes, and kustomize puts them together."""

import shutil
from pathlib import Path

import pytest
from tools.render_manifests import rendered

from tests.architecture.tree import ROOT, shown
from tests.deploy.programs import DEPLOY, check_against_kubernetes, fetched, objects, output_of

FOLDER = DEPLOY / "kubernetes"
COMPONENTS = ("ingress", "traefik", "monitoring")


@pytest.fixture
def with_components(tmp_path: Path) -> Path:
    """Copy them and switch on everything that is optional."""
    copy = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, copy)
    file = copy / "kustomization.yaml"
    text = file.read_text()
    for name in COMPONENTS:
        assert f"  # - {name}\n" in text
        text = text.replace(f"  # - {name}\n", f"  - {name}\n")
    file.write_text(text)
    return copy


def test_they_are_what_the_chart_makes() -> None:
    fetched("helm")
    made = rendered()

    assert [shown(path) for path, text in made.items() if path.read_text() != text] == [], (
        "run: .venv/bin/python tools/render_manifests.py"
    )
    others = {path for path in FOLDER.rglob("*.yaml") if path.name not in {"kustomization.yaml", "namespace.yaml"}}
    assert others == set(made)


def test_they_all_go_into_the_one_namespace() -> None:
    text = output_of(fetched("kubectl"), "kustomize", FOLDER)

    assert {thing["metadata"].get("namespace") for thing in objects(text)} == {"ec2-agents", None}
    assert [thing["kind"] for thing in objects(text) if "namespace" not in thing["metadata"]] == ["Namespace"]


def test_kubernetes_takes_them_with_everything_switched_on(with_components: Path, tmp_path: Path) -> None:
    text = output_of(fetched("kubectl"), "kustomize", with_components)

    check_against_kubernetes(text, tmp_path)
    assert {"Ingress", "IngressRoute", "PrometheusRule", "ServiceMonitor"} <= {thing["kind"] for thing in objects(text)}


def test_the_secret_is_made_by_hand() -> None:
    text = output_of(fetched("kubectl"), "kustomize", FOLDER)

    assert [thing for thing in objects(text) if thing["kind"] == "Secret"] == []
    guide = (ROOT / "docs" / "guides" / "kubernetes.md").read_text()
    for key in ("token", "valkey-password", "valkey-url", "rabbitmq-user", "rabbitmq-password", "rabbitmq-url"):
        assert f"--from-literal={key}=" in guide

"""Write the manifests of deploy/kubernetes from the chart: one truth, two ways to apply it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
HELM = ROOT / ".cache" / "validators" / "bin" / "helm"
CHART = ROOT / "deploy" / "helm" / "muster"
TARGET = ROOT / "deploy" / "kubernetes"
HEADER = "# Made from deploy/helm/muster by tools/render_manifests.py; change it there.\n"
# Which template goes into which file. The Secret is made by hand: what is generated here would be known to everybody.
FILES = {
    "control-plane": "control-plane.yaml",
    "valkey": "valkey.yaml",
    "rabbitmq": "rabbitmq.yaml",
    "worker-agent": "worker-agent.yaml",
    "network-policy": "network-policy.yaml",
    "ingress": "ingress/ingress.yaml",
    "ingress-route": "traefik/ingress-route.yaml",
    "service-monitor": "monitoring/service-monitor.yaml",
    "prometheus-rule": "monitoring/prometheus-rule.yaml",
}
OPTIONS = ",".join(
    [
        "secret.existing=muster",
        *(f"{part}.enabled=true" for part in ("ingress", "ingressRoute", "serviceMonitor", "prometheusRule")),
    ]
)


def rendered() -> Mapping[Path, str]:
    """Return the text of each file."""
    return {TARGET / file: HEADER + _template(name) for name, file in FILES.items()}


def _template(name: str) -> str:
    command = [str(HELM), "template", "muster", str(CHART), "--namespace", "ec2-agents", "--set", OPTIONS]
    text = subprocess.run(
        [*command, "--show-only", f"templates/{name}.yaml"], check=True, capture_output=True, text=True
    ).stdout
    return "".join(line + "\n" for line in text.splitlines() if line.strip() and not line.startswith("# Source:"))


def main() -> int:
    if not HELM.exists():
        print(f"There is no {HELM.relative_to(ROOT)}.\nNext: sh tools/fetch_validators.sh", file=sys.stderr)
        return 1
    for path, text in rendered().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

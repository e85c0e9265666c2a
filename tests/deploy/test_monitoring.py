"""deploy/prometheus and deploy/grafana: what they ask for exists, and alerts come when they should."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.metrics import FAMILIES
from tests.architecture.test_docs import anchors
from tests.architecture.tree import ROOT
from tests.deploy.programs import DEPLOY, installed, output_of
from tests.deploy.test_compose import SECRETS
from tests.prometheus import promtool

ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "muster.json"
NAMED = re.compile(r"\bmuster_\w+")
GROUPED_BY = re.compile(r"\b(?:by|on) \(([\w, ]*)\)")
MATCHED = re.compile(r"(muster_\w+)\{([^}]*)\}")
OF_PROMETHEUS = {"le", "job", "instance"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def family_of(series: str) -> str:
    name = re.sub(r"_(bucket|sum|count)$", "", series)
    return name if FAMILIES.get(name) is not None and FAMILIES[name].kind == "histogram" else series


@pytest.mark.parametrize("expression", list(expressions()))
def test_only_metrics_and_labels_that_exist_are_asked_for(expression: str) -> None:
    found = {family_of(name) for name in NAMED.findall(expression)}
    labels = {label for name in found for label in FAMILIES[name].labels} | OF_PROMETHEUS
    asked = {word.strip() for group in GROUPED_BY.findall(expression) for word in group.split(",")} - {""}

    assert found <= FAMILIES.keys()
    assert asked <= labels
    for name, matchers in MATCHED.findall(expression):
        assert set(re.findall(r"(\w+)[=!]", matchers)) <= set(FAMILIES[family_of(name)].labels)


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert config["rule_files"] == ["/etc/prometheus/alerts.yml"]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config | {"rule_files": [str(ALERTS)]}))

    promtool("check", "config", tmp_path / "prometheus.yml")
    promtool("check", "rules", "--lint-fatal", ALERTS)


def test_every_alert_leads_to_what_to_do() -> None:
    headings = anchors(ROOT / "docs" / "guides" / "troubleshooting.md")
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/guides/troubleshooting.md"
        assert anchor in headings, rule["alert"]
        assert rule["labels"]["severity"] in {"warning", "critical"}


# What is measured each minute (in promtool's words), and what an alert is then about. The second half must keep quiet.
FIRES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "MusterNodeDead": ({'muster_node_health{node="a",health="dead"}': "1x40"}, {"node": "a"}),
    "MusterNodeNotHealthy": (
        {'muster_node_health{node="a",health="degraded"}': "1x40"},
        {"node": "a", "health": "degraded"},
    ),
    "MusterNodeDiskNearlyFull": (
        {'muster_node_disk_free_bytes{node="a"}': "9x40", 'muster_node_disk_bytes{node="a"}': "100x40"},
        {"node": "a"},
    ),
    "MusterGpuOutOfService": ({'muster_gpu_in_service{node="a",gpu="1"}': "0x40"}, {"node": "a", "gpu": "1"}),
    "MusterGpuHot": ({'muster_gpu_temperature_celsius{node="a",gpu="1"}': "91x40"}, {"node": "a", "gpu": "1"}),
    "MusterQueueGrowsBesideIdleWorkers": (
        {
            'muster_queue_jobs{queue="q",state="waiting"}': "0+5x40",
            'muster_queue_jobs{queue="q",state="unworkable"}': "0x40",
            'muster_queue_paused{queue="q"}': "0x40",
            'muster_workers{status="idle"}': "3x40",
        },
        {"queue": "q"},
    ),
    "MusterJobsUnworkable": ({'muster_queue_jobs{queue="q",state="unworkable"}': "2x40"}, {"queue": "q"}),
    "MusterJobsFail": (
        {
            'muster_job_attempts_total{outcome="failed"}': "0+5x40",
            'muster_job_attempts_total{outcome="completed"}': "0+5x40",
        },
        {},
    ),
    "MusterLeasesLost": ({'muster_leases_lost_total{why="session"}': "0+2x40"}, {"why": "session"}),
    "MusterGatewayErrors": (
        {
            'muster_gateway_requests_total{path="/v1/chat/completions",status="200"}': "0+90x40",
            'muster_gateway_requests_total{path="/v1/chat/completions",status="503"}': "0+10x40",
        },
        {},
    ),
    "MusterGatewaySlow": (
        {
            'muster_gateway_first_byte_seconds_bucket{model="m",le="30.0"}': "0+1x40",
            'muster_gateway_first_byte_seconds_bucket{model="m",le="60.0"}': "0+10x40",
            'muster_gateway_first_byte_seconds_bucket{model="m",le="+Inf"}': "0+10x40",
        },
        {"model": "m"},
    ),
    "MusterControlPlaneAway": ({'up{job="muster",instance="c"}': "0x40"}, {"job": "muster", "instance": "c"}),
    "MusterNobodyLeads": ({'muster_control_plane_leads{instance="c"}': "0x40"}, {}),
    "MusterSuspectsItself": ({'muster_control_plane_suspects_itself{instance="c"}': "1x40"}, {"instance": "c"}),
    "MusterStoreAway": ({'muster_store_up{instance="c"}': "0x40"}, {"instance": "c"}),
    "MusterStoreSlow": ({'muster_store_call_seconds{instance="c"}': "0.9x40"}, {"instance": "c"}),
    "MusterFactsLost": ({'muster_events_dropped_total{instance="c"}': "0+1x40"}, {"instance": "c"}),
    "MusterBrokerAway": ({'muster_broker_connected{instance="c"}': "0x40"}, {"instance": "c"}),
    "MusterBrokerDeadLetters": ({'muster_broker_dead_letters_total{queue="q"}': "0+1x40"}, {"queue": "q"}),
}
QUIET: list[tuple[str, dict[str, str]]] = [
    ("MusterNodeDead", {'muster_node_health{node="a",health="healthy"}': "1x40"}),
    ("MusterNodeDiskNearlyFull", {'muster_node_disk_bytes{node="a"}': "100x40"}),
    (
        "MusterQueueGrowsBesideIdleWorkers",
        FIRES["MusterQueueGrowsBesideIdleWorkers"][0] | {'muster_queue_paused{queue="q"}': "1x40"},
    ),
    (
        "MusterQueueGrowsBesideIdleWorkers",
        FIRES["MusterQueueGrowsBesideIdleWorkers"][0] | {'muster_workers{status="idle"}': "0x40"},
    ),
    ("MusterJobsFail", {'muster_job_attempts_total{outcome="failed"}': "0x40"}),
    (
        "MusterGatewayErrors",
        {
            'muster_gateway_requests_total{status="404"}': "0+50x40",
            'muster_gateway_requests_total{status="499"}': "0+50x40",
        },
    ),
    (
        "MusterNobodyLeads",
        {'muster_control_plane_leads{instance="c"}': "0x40", 'muster_control_plane_leads{instance="d"}': "1x40"},
    ),
    ("MusterBrokerAway", {}),
]


def case(alert: str, series: dict[str, str], about: dict[str, str] | None) -> dict[str, Any]:
    severity = next(rule["labels"]["severity"] for rule in rules() if rule["alert"] == alert)
    labels = {"alertname": alert, "alertstate": "firing", "severity": severity} | (about or {})
    shown = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{alert}", alertstate="firing"}}',
                "eval_time": "35m",
                "exp_samples": [] if about is None else [{"labels": f"ALERTS{{{shown}}}", "value": 1}],
            }
        ],
    }


def test_alerts_come_when_they_should_and_only_then(tmp_path: Path) -> None:
    assert FIRES.keys() == {rule["alert"] for rule in rules()}
    tests = [case(alert, series, about) for alert, (series, about) in FIRES.items()]
    tests += [case(alert, series, None) for alert, series in QUIET]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": tests}))

    promtool("test", "rules", tmp_path / "tests.yml")


def test_the_expressions_of_the_dashboard_parse(tmp_path: Path) -> None:
    whole = [target["expr"].replace("$__rate_interval", "1m") for panel in panels() for target in panel["targets"]]
    recorded = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(whole)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))

    promtool("check", "rules", tmp_path / "rules.yml")


def test_panels_stand_beside_each_other_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        assert panel["description"]
        taken |= cells


def test_compose_brings_both_up_in_their_profile_and_for_this_machine_only() -> None:
    text = output_of(
        installed("docker-compose"),
        *("-f", "compose.yaml", "--profile", "monitoring", "config"),
        cwd=DEPLOY,
        env=SECRETS,
    )
    services = yaml.safe_load(text)["services"]
    mounts = {
        mount["target"]: Path(mount["source"])
        for name in ("prometheus", "grafana")
        for mount in services[name]["volumes"]
        if mount["type"] == "bind"
    }
    ports = [port for name in ("prometheus", "grafana") for port in services[name]["ports"]]

    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert (mounts["/etc/prometheus"] / "alerts.yml") == ALERTS
    assert (mounts["/var/lib/grafana/dashboards"] / "muster.json") == DASHBOARD
    source = yaml.safe_load((mounts["/etc/grafana/provisioning"] / "datasources" / "prometheus.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((mounts["/etc/grafana/provisioning"] / "dashboards" / "muster.yaml").read_text())
    assert provider["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"
    (scrape,) = yaml.safe_load((mounts["/etc/prometheus"] / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == ["control-plane:8090"]

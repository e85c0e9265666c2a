"""The Helm chart: valid for several sets of values, and what it makes fits together."""

import base64
from pathlib import Path

import pytest
import yaml

from muster.settings import load_settings
from tests.deploy.programs import (
    CHART,
    DEPLOY,
    OTHER_KINDS,
    Object,
    chart,
    check_against_kubernetes,
    complaint_of,
    fetched,
    find,
    output_of,
    pods,
)
from tests.deploy.words import check_command, unknown_settings
from tests.prometheus import promtool

VALUES = {"default": (), **{path.stem: ("--values", str(path)) for path in sorted((CHART / "ci").glob("*.yaml"))}}
# What NVIDIA's container runtime reads.
NVIDIA = ("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES")
EVERYTHING = VALUES["everything"]

every_set_of_values = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


def environment(pod: Object, name: str) -> dict[str, str]:
    container = next(each for each in pod["containers"] if each["name"] == name)
    return {each["name"]: each.get("value", "from the cluster") for each in container["env"]}


@every_set_of_values
def test_helm_takes_it(values: tuple[str, ...]) -> None:
    output_of(fetched("helm"), "lint", "--strict", CHART, *values)


def test_kubernetes_takes_what_it_makes(tmp_path: Path) -> None:
    # Most objects are the same whatever the values; each is looked at once.
    made = {yaml.safe_dump(each) for values in VALUES.values() for each in chart(*values)}

    check_against_kubernetes("---\n".join(sorted(made)), tmp_path)


def test_there_are_several_sets_of_values_and_one_has_all_kinds() -> None:
    assert len(VALUES) >= 4
    assert set(OTHER_KINDS) <= {thing["kind"] for thing in chart(*EVERYTHING)}


@every_set_of_values
def test_pods_run_commands_with_settings_that_muster_knows(values: tuple[str, ...]) -> None:
    running = pods(chart(*values))

    for name in {"control-plane", "worker-agent"} & set(running):
        container = running[name]["containers"][0]
        check_command(container["args"])
        settings = environment(running[name], name)
        assert unknown_settings(settings, NVIDIA) == []
        given = {key: value for key, value in settings.items() if value != "from the cluster"}
        load_settings(env=given | {"MUSTER_TOKEN": "t", "MUSTER_RABBITMQ_URL": "amqp://b"})


@every_set_of_values
def test_pods_are_no_more_than_they_must_be(values: tuple[str, ...]) -> None:
    for pod in pods(chart(*values)).values():
        # Service links would come as MUSTER_... and RABBITMQ_... into an environment that refuses unknown names.
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"][:1] + pod.get("initContainers", []):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "limits" in container["resources"]


def test_names_and_ports_are_those_of_the_checklist() -> None:
    objects = chart()
    service = find(objects, "Service", "control-plane")

    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == {"http": 8090, "grpc": 50051}
    assert find(objects, "Deployment", "control-plane")["spec"]["replicas"] == 1
    assert find(objects, "DaemonSet", "worker-agent")
    assert find(objects, "StatefulSet", "rabbitmq")
    assert find(objects, "StatefulSet", "valkey")


def test_control_planes_stop_without_cutting_streams() -> None:
    pod = pods(chart("--set", "controlPlane.stopTimeoutS=90"))["control-plane"]
    stop_s = float(environment(pod, "control-plane")["MUSTER_STOP_TIMEOUT_S"])
    (wait_s,) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1:]

    assert stop_s == 90
    assert pod["terminationGracePeriodSeconds"] > stop_s + float(wait_s)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert pod["containers"][0][probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_an_update_takes_no_control_plane_away_before_there_is_another() -> None:
    objects = chart(*VALUES["outside-services"])
    deployment = find(objects, "Deployment", "control-plane")["spec"]

    assert deployment["replicas"] == 3
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert find(objects, "PodDisruptionBudget", "control-plane")["spec"]["maxUnavailable"] == 1


def test_agents_are_the_nodes_they_run_on() -> None:
    pod = pods(chart())["worker-agent"]
    fields = {
        each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"]
        for each in pod["containers"][0]["env"]
        if "fieldRef" in each.get("valueFrom", {})
    }

    assert fields == {"MUSTER_NODE_ID": "spec.nodeName", "MUSTER_ADDRESS": "status.podIP"}
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}


def test_passwords_come_from_one_secret_and_stand_nowhere_else() -> None:
    objects = chart()
    secret = find(objects, "Secret", "muster")["stringData"]
    others = yaml.safe_dump_all([dict(each) for each in objects if each["kind"] != "Secret"])

    assert secret["rabbitmq-url"] == f"amqp://muster:{secret['rabbitmq-password']}@rabbitmq:5672/agents"
    assert secret["valkey-url"] == f"valkey://:{secret['valkey-password']}@valkey:6379/0"
    for key in ("token", "rabbitmq-password", "valkey-password"):
        assert len(secret[key]) >= 40
        assert secret[key].isalnum(), "it becomes part of a URL"
        assert secret[key] not in others
        assert base64.b64encode(secret[key].encode()).decode() not in others


def test_a_secret_of_ones_own_is_referred_to_and_none_is_made() -> None:
    objects = chart(*VALUES["outside-services"])
    names = {
        each["valueFrom"]["secretKeyRef"]["name"]
        for pod in pods(objects).values()
        for container in pod["containers"]
        for each in container["env"]
        if "secretKeyRef" in each.get("valueFrom", {})
    }

    assert names == {"fleet"}
    assert [each for each in objects if each["kind"] in {"Secret", "StatefulSet"}] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("valkey.enabled=false", "secret.existing"),
        ("controlPlane.settings.token=abc", "token"),
        ("agents.enabled=true", "agents"),
        ("agent.link=carrier-pigeon", "link"),
        ("controlPlane.replicas=0", "replicas"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(wrong: str, said: str) -> None:
    assert said in complaint_of(fetched("helm"), "template", "muster", CHART, "--set", wrong)


def test_every_value_is_in_its_schema() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]

    for section, values in yaml.safe_load((CHART / "values.yaml").read_text()).items():
        assert set(values) <= set(schema[section]["properties"])


def test_definitions_are_made_from_the_secret_and_mounted_where_the_broker_loads_them() -> None:
    pod = pods(chart())["rabbitmq"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    init = pod["initContainers"][0]

    assert "load_definitions = /etc/rabbitmq/definitions/definitions.json" in rabbitmq_file("rabbitmq.conf")
    assert mounts["/etc/rabbitmq/definitions"] in {mount["name"] for mount in init["volumeMounts"]}
    assert mounts["/etc/rabbitmq/conf.d/20-muster.conf"] == "config"
    assert [each["valueFrom"]["secretKeyRef"]["key"] for each in init["env"]] == ["rabbitmq-user", "rabbitmq-password"]


def rabbitmq_file(name: str) -> str:
    return str(find(chart(), "ConfigMap", "rabbitmq")["data"][name])


def test_only_who_has_business_there_reaches_store_broker_and_model_servers() -> None:
    objects = chart(*EVERYTHING)

    def callers(name: str) -> list[str]:
        (rule,) = find(objects, "NetworkPolicy", name)["spec"]["ingress"]
        selectors = [each.get("podSelector", {}).get("matchLabels", {}) for each in rule.get("from", [])]
        return [labels.get("app.kubernetes.io/name", "outside") for labels in selectors]

    assert callers("valkey") == ["control-plane"]
    assert callers("worker-agent") == ["control-plane"]
    assert callers("rabbitmq") == ["control-plane", "worker-agent", "outside"]
    assert callers("control-plane") == []  # anybody: they show a token


def test_every_port_that_is_named_is_one_that_a_container_has() -> None:
    objects = chart(*EVERYTHING)
    named = {
        name: {port["name"] for container in pod["containers"] for port in container.get("ports", ())}
        for name, pod in pods(objects).items()
    }

    for service in (each for each in objects if each["kind"] == "Service"):
        target = service["spec"]["selector"]["app.kubernetes.io/name"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named[target]
    for policy in (each for each in objects if each["kind"] == "NetworkPolicy"):
        target = policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        ports = [port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", ())]
        assert set(ports) <= named[target]


def test_outside_traffic_reaches_both_ports_through_traefik() -> None:
    route = find(chart(*EVERYTHING), "IngressRoute", "control-plane")["spec"]
    targets = [(each["services"][0]["port"], each["services"][0].get("scheme")) for each in route["routes"]]

    assert targets == [(50051, "h2c"), (8090, None)]
    assert "PathPrefix(`/muster.v1.`)" in route["routes"][0]["match"]
    assert route["tls"] == {"secretName": "muster-tls"}


def test_prometheus_is_told_the_port_and_the_path() -> None:
    objects = chart(*EVERYTHING)
    (endpoint,) = find(objects, "ServiceMonitor", "control-plane")["spec"]["endpoints"]
    service = find(objects, "Service", "control-plane")

    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert labels_of(service)[find(objects, "ServiceMonitor", "control-plane")["spec"]["jobLabel"]] == "muster"


def test_the_operator_gets_the_alerts_as_they_stand_beside_compose(tmp_path: Path) -> None:
    rule = find(chart(*EVERYTHING), "PrometheusRule", "control-plane")
    alerts = DEPLOY / "prometheus" / "alerts.yml"

    assert rule["spec"] == yaml.safe_load(alerts.read_text())
    assert labels_of(rule)["release"] == "prometheus"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    promtool("check", "rules", tmp_path / "rules.yml")
    assert [each for each in chart() if each["kind"] == "PrometheusRule"] == []


def labels_of(thing: Object) -> dict[str, str]:
    return dict(thing["metadata"]["labels"])

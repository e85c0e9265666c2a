"""From nothing to a rented machine and back, by real processes; EC2 is moto's."""

import base64
import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cloud.engine import MODEL
from tests.integration.cloud.rent import Rent
from tests.muster_process import ControlPlane
from tests.valkey_server import ValkeyServer
from tests.waiting import eventually_sync

ANSWER_S = 60.0


def ask(url: str, answers: list[Any], *, stream: bool = False) -> threading.Thread:
    """Ask for the model on a thread of its own; what comes back, or went wrong, is in `answers`."""
    body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )

    def run() -> None:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                answers.append((answer.status, answer.read().decode()))
        except urllib.error.HTTPError as error:
            answers.append((error.code, error.headers["retry-after"], json.loads(error.read())))
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_machine_is_rented_used_put_to_rest_woken_and_given_back(rent: Rent) -> None:
    rent.plane.start()

    up = rent.cli("up", "--name", "gpu")
    machine_id = up.stdout.strip()
    assert re.fullmatch(r"i-[0-9a-f]{17}", machine_id)
    assert rent.cli("up", "--name", "gpu").stdout.strip() == machine_id, "a second `up` keeps what there is"
    (before,) = rent.json("status")
    assert (before["name"], before["state"], before["node_id"]) == ("gpu-0", "running", None)
    assert before["hourly_usd"] == 0.8048
    rent.cli("ready", "--timeout-s", "0", expect=1)

    agent = rent.boot(machine_id)
    ready = rent.cli("ready", "--timeout-s", "60")
    assert f"{machine_id} ready" in ready.stdout
    assert f"{MODEL} answered after" in rent.cli("warm").stdout
    (used,) = rent.json("status")
    assert (used["node_id"], used["health_status"]) == (machine_id, "healthy")
    assert used["cost_usd"] >= 0

    assert f"{machine_id} stopping" in rent.cli("stop", "--drain-s", "20").stdout
    rent.wait_for_state(machine_id, "stopped")
    agent.stop()
    eventually_sync(lambda: rent.events("machine_stopped"), 30.0)

    answers: list[Any] = []
    callers = [ask(rent.plane.url, answers, stream=number % 2 == 0) for number in range(10)]
    rent.wait_for_state(machine_id, "running")
    assert answers == [], "nobody is answered before the machine is there"
    rent.boot(machine_id)
    for caller in callers:
        caller.join(ANSWER_S)
    assert [answer[0] for answer in answers] == [200] * 10, answers
    assert all("Hello there." in answer[1] for answer in answers)
    assert len(rent.events("machine_started")) == 1
    with urllib.request.urlopen(f"{rent.plane.url}/metrics", timeout=10) as metrics:
        said = metrics.read().decode()
    assert 'muster_cloud_machines{state="running"} 1' in said
    assert "muster_cloud_hourly_usd 0.8048" in said

    rent.plane.post("/_/ttl", {"ttl_s": 0.5})
    rent.wait_for_state(machine_id, "stopped")
    (rested, *_) = eventually_sync(lambda: rent.events("machine_put_to_rest"))
    assert rested["data"]["reason"].startswith("it has served nothing for")

    rent.cli("down", "--yes")
    rent.wait_for_state(machine_id, "terminated")
    log = rent.plane.log
    assert "Traceback" not in log


def test_the_machine_gets_what_it_needs_and_tags_tell_no_secret(rent: Rent) -> None:
    rent.env |= {"MUSTER_CLOUD_JOIN_TOKEN": "join-s3cret", "MUSTER_CLOUD_RABBITMQ_URL": "amqp://u:pw-s3cret@broker"}

    up = rent.cli("up", "--spot", "--idle-stop-s", "120")

    machine_id = up.stdout.strip()
    instance = rent.instance(machine_id)
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags["muster:fleet"] == "muster"
    assert (tags["muster:node"], tags["muster:models"], tags["muster:idle-stop-s"]) == ("worker-0", MODEL, "120")
    assert "s3cret" not in str(tags) + up.stdout + up.stderr
    assert instance["InstanceLifecycle"] == "spot"
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    attribute = rent.moto.client().describe_instance_attribute(InstanceId=machine_id, Attribute="userData")
    user_data = base64.b64decode(attribute["UserData"]["Value"]).decode()
    assert user_data.startswith("#cloud-config\n")
    assert "RABBITMQ_URL=amqp://u:pw-s3cret@broker" in user_data
    assert "join-s3cret" in user_data


def test_what_would_cost_too_much_is_refused_with_the_figures(rent: Rent) -> None:
    refused = rent.cli("up", "--type", "p5.48xlarge", expect=1)
    unknown = rent.cli("up", "--type", "odd.type", expect=1)
    too_many = rent.cli("up", "--count", "5", expect=1)

    assert "98.32" in refused.stderr
    assert "cloud_hourly_usd_max is 10.00" in refused.stderr
    assert "cloud_prices=odd.type=USD" in unknown.stderr
    assert "cloud_machines_max is 4" in too_many.stderr
    assert len(rent.json("status")) == 4, "those within the budget were made"


def test_a_wake_that_cannot_be_had_is_told_in_the_callers_dialect(rent: Rent) -> None:
    machine_id = rent.cli("up").stdout.strip()
    rent.cli("stop")
    rent.wait_for_state(machine_id, "stopped")
    rent.plane.env["MUSTER_CLOUD_HOURLY_USD_MAX"] = "0.1"
    rent.plane.start()

    answers: list[Any] = []

    def refused() -> bool:
        """Until the machine is listed there is simply nobody who could serve it."""
        ask(rent.plane.url, answers).join(ANSWER_S)
        return bool(answers[-1][2]["error"]["code"] == "model_asleep")

    eventually_sync(refused, 30.0)
    status, retry_after, body = answers[-1]
    assert (status, int(retry_after) > 0) == (503, True)
    assert "cloud_hourly_usd_max" in body["error"]["message"]
    assert rent.state(machine_id) == "stopped"


def test_nothing_goes_without_asking_or_without_a_cloud(rent: Rent) -> None:
    machine_id = rent.cli("up").stdout.strip()

    rent.cli("down", expect=1)
    assert rent.state(machine_id) == "running"
    assert "no machine 'other'" in rent.cli("down", "--yes", "other", expect=1).stderr

    del rent.env["MUSTER_CLOUD_PROVIDER"]
    assert "MUSTER_CLOUD_PROVIDER=ec2" in rent.cli("status", expect=1).stderr


@pytest.mark.parametrize(
    ("missing", "said"), [("MUSTER_CLOUD_IMAGE", "--image"), ("MUSTER_CLOUD_CONTROL_PLANE", "CONTROL_PLANE")]
)
def test_what_a_launch_lacks_is_named(rent: Rent, missing: str, said: str) -> None:
    del rent.env[missing]

    assert said in rent.cli("up", expect=1).stderr


def test_a_machine_without_a_token_for_a_fleet_that_has_some_is_not_rented(rent: Rent) -> None:
    rent.env["MUSTER_TOKEN"] = "of-an-admin"

    assert "--join" in rent.cli("up", expect=1).stderr


def test_without_a_cloud_nothing_of_boto_is_loaded() -> None:
    code = (
        "import sys, muster.app, muster.app.cloud, muster.cli.main, muster.cli.cloud; "
        "sys.exit(any(name.startswith(('boto', 'moto')) for name in sys.modules))"
    )
    assert subprocess.run([str(Path(sys.executable)), "-c", code], timeout=60, check=False).returncode == 0


def test_two_control_planes_on_one_store_start_a_machine_once(rent: Rent) -> None:
    machine_id = rent.cli("up").stdout.strip()
    rent.moto.client().stop_instances(InstanceIds=[machine_id])
    store = ValkeyServer("valkey")
    store.start()
    try:
        planes = [rent.plane, ControlPlane(rent.folder / "other", env=rent.env)]
        for plane in planes:
            plane.env["MUSTER_VALKEY_URL"] = store.url
            plane.start()
        eventually_sync(lambda: all(plane.get("/v1/models")["data"] for plane in planes), 30.0)

        answers: list[Any] = []
        callers = [ask(plane.url, answers) for plane in planes * 5]
        rent.wait_for_state(machine_id, "running")
        rent.boot(machine_id)
        for caller in callers:
            caller.join(ANSWER_S)

        assert [answer[0] for answer in answers] == [200] * 10, answers
        assert len(rent.events("machine_started")) == 1
    finally:
        planes[-1].kill()
        rent.plane.kill()
        store.remove()

import json
import subprocess
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from muster.agent.node_file import load_node_file
from muster.cloud import user_data
from muster.cloud.user_data import ENV_FILE, Boot, environment, render
from muster.errors import InvalidInput
from muster.settings import SEED_NAMES, Settings
from tests.deploy.programs import fetched, installed, output_of

ROOT = Path(__file__).resolve().parents[3]
BOOT = Boot(
    control_plane="https://muster.example.org",
    rabbitmq_url="amqps://agents:s3cret@broker:5671",
    token="mst-join-abc",
    package="muster[amqp]",
    models=("smollm2-135m", "/models/qwen.gguf"),
)


def files_of(text: str) -> dict[str, dict[str, str]]:
    config = json.loads(text.removeprefix("#cloud-config\n"))
    return {file["path"]: file for file in config["write_files"]}


def test_cloud_init_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    path.write_text(render(BOOT))

    assert "Valid" in output_of(fetched("cloud-init"), "schema", "--config-file", path)


def test_secrets_are_in_the_file_that_root_alone_may_read_and_nowhere_else() -> None:
    text = render(BOOT)
    files = files_of(text)

    assert files[ENV_FILE]["permissions"] == "0600"
    assert "RABBITMQ_URL=amqps://agents:s3cret@broker:5671\n" in files[ENV_FILE]["content"]
    del files[ENV_FILE]
    assert "s3cret" not in str(files)
    assert "mst-join-abc" not in str(files)


class Metadata(BaseHTTPRequestHandler):
    """Version 2: nothing without a token, and no public address."""

    def do_PUT(self) -> None:
        self._say(b"the-token" if self.headers.get("x-aws-ec2-metadata-token-ttl-seconds") else None)

    def do_GET(self) -> None:
        known = {"instance-id": b"i-0abc", "local-ipv4": b"10.0.0.7", "placement/region": b"us-east-1"}
        allowed = self.headers.get("x-aws-ec2-metadata-token") == "the-token"
        self._say(known.get(self.path.removeprefix("/latest/meta-data/")) if allowed else None)

    def _say(self, body: bytes | None) -> None:
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        """Nobody reads along."""


def test_the_machine_asks_its_metadata_with_a_token_who_it_is(tmp_path: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    script = files_of(render(BOOT))["/usr/local/sbin/worker-agent-identity"]["content"]
    script = script.replace("http://169.254.169.254", f"http://127.0.0.1:{server.server_port}")
    script = script.replace("/run/", f"{tmp_path}/")

    subprocess.run(["sh", "-c", script], timeout=30, check=True)
    server.shutdown()
    server.server_close()
    thread.join()

    said = (tmp_path / "worker-agent-identity").read_text().splitlines()
    assert said == ["INSTANCE_ID=i-0abc", "MUSTER_ADDRESS=10.0.0.7", "MUSTER_REGION=us-east-1"]


def test_the_service_learns_who_it_is_before_it_starts() -> None:
    files = files_of(render(BOOT))

    unit = files["/etc/systemd/system/worker-agent.service"]["content"]
    assert "EnvironmentFile=/etc/worker-agent/env" in unit
    assert (
        "ExecStartPre=+/usr/local/sbin/worker-agent-identity"
        in (files["/etc/systemd/system/worker-agent.service.d/ec2.conf"]["content"])
    )


@pytest.mark.parametrize("name", ["worker-agent.service", "sysusers.conf"])
def test_a_rented_machine_has_the_same_service_as_any_other(name: str) -> None:
    """The package carries its own copy: whoever rents by an installed `muster` has no clone."""
    carried = Path(user_data.__file__).parent / "boot" / name
    assert carried.read_text() == (ROOT / "deploy" / "systemd" / name).read_text()


@pytest.mark.parametrize("script", ["worker-agent-identity", "worker-agent-setup"])
def test_the_scripts_are_sound(script: str, tmp_path: Path) -> None:
    path = tmp_path / script
    path.write_text(files_of(render(BOOT))[f"/usr/local/sbin/{script}"]["content"])

    output_of(installed("shellcheck"), path)


def test_the_agent_reads_the_node_file_that_is_written_for_several_models(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(files_of(render(BOOT))["/etc/worker-agent/node.toml"]["content"])

    services = load_node_file(path).services

    assert [service.name for service in services] == ["llama-0", "llama-1"]
    assert "{model:smollm2-135m}" in services[0].command
    assert services[0].slots == 4


def test_a_node_file_of_ones_own_goes_along_as_it_is() -> None:
    own = '[[service]]\nname = "vllm"\n'
    files = files_of(render(Boot(control_plane="http://10.0.0.1:8090", node_file=own)))

    assert tomllib.loads(files["/etc/worker-agent/node.toml"]["content"]) == tomllib.loads(own)


def test_without_models_there_is_no_node_file() -> None:
    files = files_of(render(Boot(control_plane="http://10.0.0.1:8090")))

    assert "/etc/worker-agent/node.toml" not in files
    assert "MUSTER_NODE_FILE" not in files[ENV_FILE]["content"]


def test_every_name_in_the_environment_is_one_that_the_agent_knows() -> None:
    for boot in (BOOT, Boot(control_plane="grpc://10.0.0.1:50051", token="t")):
        for name in environment(boot):
            assert name in SEED_NAMES or name.removeprefix("MUSTER_").lower() in Settings.__struct_fields__


@pytest.mark.parametrize("token", ["a b", 'a"b', "a\nMUSTER_TOKEN=x", "a\\b", "a'b"])
def test_what_would_break_out_of_the_environment_file_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput):
        render(Boot(control_plane="http://10.0.0.1:8090", token=token))


def test_a_name_that_would_break_out_of_the_node_file_is_refused() -> None:
    with pytest.raises(InvalidInput):
        render(Boot(control_plane="http://10.0.0.1:8090", models=('x"]\n[node]',)))


def test_more_than_the_cloud_takes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="16384"):
        render(Boot(control_plane="http://10.0.0.1:8090", node_file="#" * 20_000))

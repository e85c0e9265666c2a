"""Tokens, joining and TLS with real processes, as a person sets them up."""

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.agent.key import KEY_FILE
from tests.certificates import write_certificate
from tests.muster_process import ControlPlane, MusterProcess, free_port
from tests.waiting import eventually_sync

BOOTSTRAP = "bootstrap-5ecret-of-the-server"
QUIET = {"MUSTER_MODEL": "none", "MUSTER_DISCOVER": "false", "MUSTER_HEARTBEAT_INTERVAL_S": "0.5", "NUM_GPUS": "0"}


class SealedPlane(ControlPlane):
    """`muster server` over TLS with a token."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.cert_file, key_file = write_certificate(folder)
        self.grpc_port = free_port()
        super().__init__(
            folder,
            env={
                "MUSTER_TLS_CERT_FILE": self.cert_file,
                "MUSTER_TLS_KEY_FILE": key_file,
                "MUSTER_GRPC_LISTEN": f"127.0.0.1:{self.grpc_port}",
                "MUSTER_TOKEN": BOOTSTRAP,
            }
            | env,
        )
        self.url = f"https://127.0.0.1:{self.port}"

    def _call(self, request: urllib.request.Request) -> Any:
        request.add_header("Authorization", f"Bearer {BOOTSTRAP}")
        trust = ssl.create_default_context(cafile=self.cert_file)
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return json.loads(answer.read() or b"null")

    def muster(self, *arguments: str, token: str = BOOTSTRAP) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
        return subprocess.run(
            [sys.executable, "-m", "muster.cli.main", *arguments],
            env=clean
            | {"MUSTER_TOKEN": token, "MUSTER_CA_FILE": self.cert_file, "MUSTER_CONTROL_PLANE": self.url}
            | {"HOME": str(self.folder), "MUSTER_DATA_DIR": str(self.data_dir)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def make_token(self, *arguments: str) -> str:
        made = self.muster("token", "create", *arguments)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def node(self, node_id: str) -> dict[str, Any] | None:
        return next((node for node in self.get("/api/v1/nodes") if node["node_id"] == node_id), None)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedPlane]:
    plane = SealedPlane(tmp_path_factory.mktemp("plane"), QUIET)
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
def agents() -> Iterator[list[MusterProcess]]:
    running: list[MusterProcess] = []
    yield running
    for agent in running:
        agent.kill()


def agent_of(plane: SealedPlane, folder: Path, node_id: str, url: str, token: str) -> MusterProcess:
    env = QUIET | {
        "MUSTER_CONTROL_PLANE": url,
        "MUSTER_CA_FILE": plane.cert_file,
        "MUSTER_NODE_ID": node_id,
        "MUSTER_DATA_DIR": str(folder / "data"),
    }
    return MusterProcess(folder, "agent", env=env | ({"MUSTER_TOKEN": token} if token else {}))


def is_healthy(plane: SealedPlane, node_id: str) -> bool:
    node = plane.node(node_id)
    return node is not None and node["health_status"] == "healthy"


@pytest.mark.parametrize("link", ["http", "grpc"])
def test_a_machine_joins_over_tls_and_is_known_by_its_own_token_from_then_on(
    plane: SealedPlane, agents: list[MusterProcess], tmp_path: Path, link: str
) -> None:
    node_id = f"joined-{link}"
    url = plane.url if link == "http" else f"grpcs://127.0.0.1:{plane.grpc_port}"
    ticket = plane.make_token(f"rack-{link}", "--role", "agent", "--join", "--expires", "1h")
    first = agent_of(plane, tmp_path, node_id, url, ticket).start()
    agents.append(first)
    eventually_sync(lambda: is_healthy(plane, node_id), 30)

    key_file = tmp_path / "data" / KEY_FILE
    own = json.loads(key_file.read_bytes())
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert own["secret"] not in ticket
    (about,) = [
        token for token in json.loads(plane.muster("token", "list", "--json").stdout) if token["node_id"] == node_id
    ]
    assert (about["id"], about["role"]) == (own["token_id"], "agent")

    first.kill()
    again = agent_of(plane, tmp_path, node_id, url, "").start()  # the join token is used up, and not given any more
    agents.append(again)
    eventually_sync(lambda: again.log.count('"event": "registered"') == 2, 30)
    eventually_sync(lambda: is_healthy(plane, node_id), 30)

    assert plane.muster("token", "revoke", own["token_id"]).returncode == 0
    eventually_sync(lambda: "control_plane_refuses_us" in again.log, 30)
    assert "muster token create" in again.log
    for log in (plane.log, first.log, again.log):
        for secret in (ticket.rsplit("_", 1)[1], own["secret"], BOOTSTRAP):
            assert secret not in log


def test_a_join_token_takes_in_no_more_machines_than_it_says(
    plane: SealedPlane, agents: list[MusterProcess], tmp_path: Path
) -> None:
    ticket = plane.make_token("one", "--role", "agent", "--join")
    agents.append(agent_of(plane, tmp_path / "a", "first", plane.url, ticket).start())
    eventually_sync(lambda: is_healthy(plane, "first"), 30)

    late = agent_of(plane, tmp_path / "b", "second", plane.url, ticket).start()
    agents.append(late)
    eventually_sync(lambda: "used up" in late.log, 30)
    assert plane.node("second") is None


def test_people_and_programs_get_what_their_role_allows(plane: SealedPlane) -> None:
    viewer = plane.make_token("eye", "--role", "viewer", "--expires", "30d")

    assert plane.muster("nodes", token=viewer).returncode == 0
    refused = plane.muster("token", "list", token=viewer)
    assert refused.returncode == 1
    assert "needs admin" in refused.stderr
    unknown = plane.muster("nodes", token="wrong")
    assert (unknown.returncode, "MUSTER_TOKEN" in unknown.stderr) == (1, True)
    shown = plane.muster("status", "--json")
    assert json.loads(shown.stdout)["urls"] == [plane.url]


def test_a_certificate_that_is_not_trusted_is_said_with_a_next_step(plane: SealedPlane) -> None:
    plane_cert, plane.cert_file = plane.cert_file, ""
    try:
        refused = plane.muster("nodes")
    finally:
        plane.cert_file = plane_cert
    assert refused.returncode == 1
    assert "MUSTER_CA_FILE" in refused.stderr


def test_files_that_do_not_fit_keep_the_server_from_starting(tmp_path: Path) -> None:
    cert_file, _ = write_certificate(tmp_path)
    server = MusterProcess(
        tmp_path,
        "server",
        env=QUIET
        | {
            "MUSTER_LISTEN": f"127.0.0.1:{free_port()}",
            "MUSTER_GRPC_LISTEN": "none",
            "MUSTER_DATA_DIR": str(tmp_path / "data"),
            "MUSTER_TLS_CERT_FILE": cert_file,
            "MUSTER_TLS_KEY_FILE": cert_file,
        },
    ).start()

    assert server.wait() == 1
    assert "tls_key_file" in server.log
    assert "Traceback" not in server.log


def test_a_server_off_loopback_needs_a_token(tmp_path: Path) -> None:
    for listen in ({"MUSTER_LISTEN": "0.0.0.0:0"}, {"MUSTER_LISTEN": "127.0.0.1:0", "MUSTER_GRPC_LISTEN": "0.0.0.0:0"}):
        server = MusterProcess(tmp_path, "server", env=QUIET | {"MUSTER_DATA_DIR": str(tmp_path / "data")} | listen)
        assert server.start().wait() == 1
        assert "without a token" in server.log

"""What the chart gives to store and broker, tried on real ones: their configuration, and passwords that count."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.exceptions import AMQPConnectionError

from tests.deploy.programs import CHART, DEPLOY, chart, find, output_of, pods
from tests.muster_process import free_port
from tests.rabbitmq import RabbitMq
from tests.valkey_server import binary_of
from tests.waiting import eventually_sync

USER, PASSWORD = "fleet", "a1b2c3d4e5f6"


def script_of(command: list[str], **paths: Path) -> str:
    """Return a container's script with its folders where they are here."""
    assert command[0] == "sh"
    script = command[-1]
    for name, path in paths.items():
        assert f"/{name}/" in script
        script = script.replace(f"/{name}/", f"{path}/")
    return script


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RabbitMq]:
    """Start a broker with the chart's configuration and the definitions that its init container makes."""
    server = RabbitMq(tmp_path)
    config = find(chart(), "ConfigMap", "rabbitmq")["data"]
    (tmp_path / "template").mkdir()
    (tmp_path / "template" / "definitions.json").write_text(config["definitions.json"])
    (init,) = pods(chart())["rabbitmq"]["initContainers"]
    subprocess.run(
        ["sh", "-ec", script_of(init["command"], config=tmp_path / "template", definitions=tmp_path)],
        env={"PATH": os.environ["PATH"], "RABBITMQ_USER": USER, "RABBITMQ_PASSWORD": PASSWORD},
        check=True,
    )
    own = [line for line in config["rabbitmq.conf"].splitlines() if not line.startswith("load_definitions")]
    with (tmp_path / "rabbitmq.conf").open("a") as file:
        file.write("\n".join(own) + "\n")
    try:
        yield server.start()
    finally:
        server.remove()


async def test_the_broker_has_the_virtual_host_and_the_user_of_the_secret_and_no_other(broker: RabbitMq) -> None:
    connection = await aio_pika.connect(f"amqp://{USER}:{PASSWORD}@127.0.0.1:{broker.port}/agents")
    try:
        channel = await connection.channel()
        await channel.declare_exchange("agents.commands", "topic", durable=True)
    finally:
        await connection.close()

    for login in (f"{USER}:wrong", "guest:guest"):
        with pytest.raises(AMQPConnectionError):
            await aio_pika.connect(f"amqp://{login}@127.0.0.1:{broker.port}/agents")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[int]:
    """Start a Valkey as the chart does, and yield its port."""
    (container,) = pods(chart())["valkey"]["containers"]
    port = free_port()
    config = (CHART / "files" / "valkey.conf").read_text().replace("/data", str(tmp_path))
    (tmp_path / "valkey.conf").write_text(f"{config}\nport {port}\nbind 127.0.0.1\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(binary_of("valkey"))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", script_of(container["command"], **{"etc/valkey": tmp_path})],
            env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "VALKEY_PASSWORD": PASSWORD},
            stdout=log,
            stderr=log,
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


def answer_to(port: int, *lines: str) -> str:
    """Return all that the store says to some commands."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall("".join(f"{line}\r\n" for line in (*lines, "QUIT")).encode())
        return b"".join(iter(lambda: client.recv(65_536), b"")).decode()


def test_the_store_wants_its_password_which_is_not_in_the_list_of_processes(store: int, tmp_path: Path) -> None:
    eventually_sync(lambda: "PONG" in answer_to(store, f"AUTH {PASSWORD}", "PING"))

    assert "NOAUTH" in answer_to(store, "PING")
    assert PASSWORD not in subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    settings = answer_to(store, f"AUTH {PASSWORD}", "CONFIG GET appendonly maxmemory-policy dir").split()
    assert {"yes", "noeviction", str(tmp_path)} <= set(settings)


async def test_a_broker_of_ones_own_starts_in_a_folder_and_is_gone_when_stopped(tmp_path: Path) -> None:
    port = free_port() % 20_000 + 20_000  # its other ports are derived: 1, 2 and 10000 above

    def run(verb: str) -> str:
        script = DEPLOY / "rabbitmq" / "broker.sh"
        return output_of("sh", script, verb, tmp_path, env={"BROKER_PORT": str(port)})

    try:
        url = run("start").strip()
        assert run("start").strip() == url, "a second start changes nothing"
        connection = await aio_pika.connect(url)
        await connection.close()
    finally:
        run("stop")

    with pytest.raises(AMQPConnectionError):
        await aio_pika.connect(url)
    assert not (tmp_path / "pid").exists()
    assert (tmp_path / "password").stat().st_mode & 0o077 == 0

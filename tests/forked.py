"""Muster processes without the imports, which cost each of them a second of CPU: forked from one that has them.

python -m tests.forked : that mother. It reads orders and gives answers, lines of JSON: `words` (a module and its
arguments), `env`, `cwd` and `log` make a child and tell its pid; `poll` tells how that child ended, if it has.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from muster.system import die_with_parent
from tests.muster_process import ControlPlane, MusterProcess
from tests.waiting import eventually_sync

_IMPORTED = (
    "muster.cli.main",
    "muster.app.run",
    "muster.app.serve",
    "muster.app.control_plane",
    "muster.app.node",
    "tests.conformance.queue.machines",
)


class Mother:
    """Started when the first child is wanted."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def bear(self, words: list[str], env: Mapping[str, str], cwd: Path, log: Path) -> "Forked":
        order = {"words": words, "env": dict(env), "cwd": str(cwd), "log": str(log)}
        return Forked(self.ask(order)["pid"], self)

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            env = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
            env["PYTHONPATH"] = os.pathsep.join(sys.path)
            command = [sys.executable, "-m", "tests.forked"]
            self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def stop(self) -> None:
        """End it, and with it what is left of its children."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


class Forked:
    """A child of the mother, to be used like a subprocess.Popen."""

    def __init__(self, pid: int, mother: Mother) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._mother = mother

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._mother.ask({"poll": self.pid})["returncode"]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        limit_s = float("inf") if timeout is None else timeout
        try:
            eventually_sync(lambda: self.poll() is not None, limit_s)
        except AssertionError:
            raise subprocess.TimeoutExpired(str(self.pid), limit_s) from None
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def _send(self, sig: signal.Signals) -> None:
        if self.poll() is None:  # as long as nobody has waited for it the pid is its own
            os.kill(self.pid, sig)


MOTHER = Mother()


class ForkedProcess(MusterProcess):
    def _spawn(self, env: Mapping[str, str]) -> Forked:
        return MOTHER.bear(self._words(), env, self.folder, self.log_path)


class ForkedPlane(ForkedProcess, ControlPlane):
    """A control plane."""


def _become(order: dict[str, Any], tie: Callable[[], None] | None) -> None:
    if tie is not None:
        tie()
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(file, stream)
    module, *arguments = order["words"]
    sys.argv = [module, *arguments]
    importlib.import_module(module).main()


def main() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    tie = die_with_parent()
    while line := os.read(0, 1 << 20):  # unbuffered: a child must not have an order that came after its own
        while not line.endswith(b"\n"):
            line += os.read(0, 1 << 20)
        order = json.loads(line)
        if "poll" in order:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = {"returncode": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            child = os.fork()
            if child == 0:
                _become(order, tie)
                return
            answer = {"pid": child}
        os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()

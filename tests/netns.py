"""Hosts that are network namespaces on one bridge: a control plane's, and those of agents, whose ways can be cut.

Nothing of it is seen outside: addresses, links and rules live in the namespaces, which go with the test.
"""

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_COMMAND_S = 20.0
_NAMES = Path("/var/run/netns")
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """One namespace; what is done `inside` sees its network only."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        _run("ip", "netns", "add", name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
        self._file = os.open(_NAMES / name, os.O_RDONLY)
        # A thread stays in the namespace that it has entered: one is kept for whatever is asked from here.
        self._thread = ThreadPoolExecutor(1, initializer=self.enter)

    def enter(self) -> None:
        """Move the calling thread, and what it starts, into this namespace."""
        if _libc.setns(self._file, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {self.name}")

    def inside(self, action: Callable[[], T]) -> T:
        return self._thread.submit(action).result()

    def remove(self) -> None:
        self._thread.shutdown()
        os.close(self._file)
        _run("ip", "netns", "del", self.name)


class Network:
    """`center` has the bridge; each of `hosts` one cable to it."""

    def __init__(self, hosts: int) -> None:
        self._all: list[Host] = []
        prefix = f"mst-{os.getpid()}-{next(_numbers)}"
        try:
            self.center = self._host(f"{prefix}-c", "10.77.0.1")
            _run("ip", "-n", self.center.name, "link", "add", "br0", "type", "bridge")
            self._give_address(self.center, "br0")
            self.hosts = [self._host(f"{prefix}-{number}", f"10.77.0.{10 + number}") for number in range(hosts)]
            for number, host in enumerate(self.hosts):
                there, here = f"netns {self.center.name}".split(), f"netns {host.name}".split()
                _run("ip", "link", "add", f"v{number}", *there, "type", "veth", "peer", "name", "eth0", *here)
                _run("ip", "-n", self.center.name, "link", "set", f"v{number}", "master", "br0", "up")
                self._give_address(host, "eth0")
        except BaseException:
            self.remove()
            raise

    def _host(self, name: str, address: str) -> Host:
        host = Host(name, address)
        self._all.append(host)
        return host

    def _give_address(self, host: Host, link: str) -> None:
        _run("ip", "-n", host.name, "address", "add", f"{host.address}/24", "dev", link)
        _run("ip", "-n", host.name, "link", "set", link, "up")

    def link(self, number: int, state: str) -> None:
        """Pull (`down`) or plug (`up`) the cable of a host."""
        _run("ip", "-n", self.center.name, "link", "set", f"v{number}", state)

    def bridge(self, state: str) -> None:
        """Take the center off the network, or back."""
        _run("ip", "-n", self.center.name, "link", "set", "br0", state)

    def drop(self, action: str, *rule: str) -> None:
        """Begin (`-A`) or end (`-D`) to swallow packets at the center: `INPUT -s ADDRESS`, `OUTPUT -d ADDRESS`."""
        self.center.inside(lambda: _run("iptables", "-w", action, *rule, "-j", "DROP"))

    def remove(self) -> None:
        for host in self._all:
            host.remove()
        self._all = []


def _run(*command: str) -> None:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        pytest.fail(f"{command[0]} is missing: sudo apt-get install -y --no-install-recommends iproute2 iptables")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    if done.returncode:
        pytest.fail(
            f"the tests of network faults make network namespaces, for which they must be root: "
            f"`{' '.join(command)}` failed: {done.stderr.strip()}"
        )

"""Keeps services for an agent, and ends them when no agent comes back: a process of its own, with nothing but Python.

`python -I -S keeper.py FOLDER SCOPE` returns once a keeper in the background listens at FOLDER/keeper.sock. It serves
one agent at a time, which sends lines of JSON:

    {"id": 1, "do": "hello", "agent": 41}           answered with what is kept, or with the pid of the agent in charge
    {"id": 2, "do": "spawn", "name": "llama", ...}  answered with its pid, or why it cannot be started
    {"id": 3, "do": "stop", "name": "llama", ...}   answered when the last process of it is gone

and hears of each end: {"ended": "llama", "code": 0, ...}. When the connection closes, whatever closed it, each service
has its own `keep_s` until an agent must be back. A keeper with nothing to keep and nobody to serve ends.

Services are its children and die with it. All that they start stay its descendants, however they detach themselves
(PR_SET_CHILD_SUBREAPER), so that an end takes all of them.
"""

import ctypes
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

SOCKET = "keeper.sock"
MARKER = "SUPERVISED_BY_MUSTER"  # in the environment of all that a service starts: SCOPE/NAME
VERSION = 1
PROC = Path("/proc")

_LOCK = "keeper.lock"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_FIRST_AGENT_S = 15.0
_AFTER_KILL_S = 5.0  # a process that hangs in the kernel does not end even then
_LOOK_EVERY_S = 0.02
_SEND_S = 5.0
_CHUNK_BYTES, _LINE_BYTES_MAX = 65_536, 16 * 1024 * 1024
_THREADS = 17  # which field says how many there are
_LEVELS = 3  # of its cgroup: the instance, its group and the slice, each of which goes when it is empty

Message = dict[str, Any]
Table = dict[int, "Process"]


# --- the system's table of processes ---------------------------------------------------------------------------------


class Process:
    """`started` is in ticks since the machine came up; with the pid it means this process for ever."""

    __slots__ = ("cpu_ticks", "group", "parent", "pid", "rss_pages", "session", "started")

    def __init__(self, pid: int, fields: list[str]) -> None:
        self.pid = pid
        self.parent, self.group, self.session = (int(field) for field in fields[1:4])
        self.cpu_ticks = sum(int(field) for field in fields[11:15])  # its own, and of children that were waited for
        self.started = int(fields[19])
        self.rss_pages = int(fields[21])


def read_kernel_file(path: str) -> bytes:
    """Read a short file that the kernel makes as it is read; three times as fast as with all that a file can be."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    finally:
        os.close(descriptor)


def read_process(pid: int, proc: Path = PROC) -> Process | None:
    """Return what runs under that number; a zombie runs no more, once the last of its threads is gone."""
    try:
        stat = read_kernel_file(f"{proc}/{pid}/stat")
    except OSError:
        return None
    # The name before the last parenthesis may hold anything, blanks and parentheses too.
    fields = stat.rpartition(b")")[2].decode().split()
    if not fields or fields[0] == "X" or (fields[0] == "Z" and int(fields[_THREADS]) <= 1):
        return None
    return Process(pid, fields)


def read_table(proc: Path = PROC) -> Table:
    """Return all processes; empty where the system does not show them in this way."""
    try:
        pids = [int(name) for name in os.listdir(proc) if name.isdigit()]  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return {}
    return {pid: process for pid in pids if (process := read_process(pid, proc)) is not None}


def read_marker(pid: int, proc: Path = PROC) -> str | None:
    try:
        environment = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    prefix = f"{MARKER}=".encode()
    found = next((entry for entry in environment.split(b"\0") if entry.startswith(prefix)), None)
    return None if found is None else found[len(prefix) :].decode(errors="replace")


def children_of(table: Table) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    return children


def with_descendants(roots: Iterable[int], children: dict[int, list[int]]) -> list[int]:
    found, waiting = [], list(roots)
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def kill(process: Process) -> None:
    """SIGKILL for this very process, never for another one that was given its number."""
    with suppress(OSError):
        handle = os.pidfd_open(process.pid)
        try:
            now = read_process(process.pid)
            if now is not None and now.started == process.started:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


# --- one service -----------------------------------------------------------------------------------------------------


class Service:
    """`code` is how its first process ended, below 0 by which signal; what that one left behind is ended then."""

    def __init__(self, order: Message, pid: int, scope: str) -> None:
        self.name: str = order["name"]
        self.pid = pid
        self.keep_s: float = order["keep_s"]
        self.stop_s: float = order["stop_s"]
        self.code: int | None = None
        self.abandoned_s: float | None = None  # since when no agent is there
        self.forced_s: float | None = None  # since when it is being killed
        self.askers: list[int] = []  # who are to be told that it is gone
        self._marker = f"{scope}/{self.name}"
        self._cgroup = None if order["cgroup"] is None else Path(order["cgroup"])
        self._note: Any = order["note"]
        self._kill_at_s: float | None = None  # it was asked to end, and has until then
        self._oom_kills = 0
        process = read_process(pid)
        self._started = None if process is None else process.started

    def facts(self) -> Message:
        cgroup = None if self._cgroup is None else str(self._cgroup)
        return {"name": self.name, "pid": self.pid, "started": self._started, "note": self._note, "cgroup": cgroup}

    def end(self, left: list[int]) -> Message:
        return {"ended": self.name, "pid": self.pid, "code": self.code, "left": left, "oom_kills": self._oom_kills}

    def ask_to_end(self, now_s: float, timeout_s: float) -> None:
        if self._kill_at_s is None and self.code is None:
            with suppress(OSError):  # it leads a group, and its number is its own until it is reaped
                os.killpg(self.pid, signal.SIGTERM)
        self._kill_at_s = min(self._kill_at_s or now_s + timeout_s, now_s + timeout_s)

    def reaped(self, code: int) -> None:
        self.code = code
        if self._cgroup is not None:
            with suppress(OSError, ValueError):
                events = dict(line.split() for line in (self._cgroup / "memory.events").read_text().splitlines())
                self._oom_kills = int(events.get("oom_kill", 0))

    def is_due(self, now_s: float) -> bool:
        """Whether what is left of it is to be killed."""
        return self.code is not None or (self._kill_at_s is not None and now_s >= self._kill_at_s)

    def next_s(self) -> float | None:
        if self._kill_at_s is None:
            return None if self.abandoned_s is None else self.abandoned_s + self.keep_s
        return self._kill_at_s

    def force(self, table: Table) -> list[int]:
        """Kill all of it; return who was still there."""
        if not table:
            return self._force_group()
        if self._cgroup is not None:
            with suppress(OSError):
                (self._cgroup / "cgroup.kill").write_text("1")
        left = [table[pid] for pid in self._members(table)]
        for process in left:
            kill(process)
        return [process.pid for process in left]

    def _members(self, table: Table) -> set[int]:
        """Return it, those below it, and those that left it.

        An orphan is a child of ours. It is known by its session or group, which the service gave it, else by its
        environment.
        """
        children = children_of(table)
        roots = {
            pid
            for pid in children.get(os.getpid(), [])
            if self.pid in {pid, table[pid].session, table[pid].group} or read_marker(pid) == self._marker
        }
        if self._cgroup is not None:
            with suppress(OSError, ValueError):
                roots |= {int(line) for line in (self._cgroup / "cgroup.procs").read_text().split()} & table.keys()
        return set(with_descendants(roots, children))

    def has_somebody(self) -> bool:
        """Whether the kernel still counts anybody in its cgroup, be it one who came after the table was read."""
        if self._cgroup is not None:
            with suppress(OSError):
                return b"populated 1" in read_kernel_file(f"{self._cgroup}/cgroup.events")
        return False

    def _force_group(self) -> list[int]:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            return []
        return [self.pid]

    def remove_cgroups(self) -> None:
        if self._cgroup is not None:
            with suppress(OSError):  # others are in it, or it was never made
                below = sorted(path for path in self._cgroup.rglob("*") if path.is_dir())  # made by the service itself
                for level in (*reversed(below), *(self._cgroup, *self._cgroup.parents)[:_LEVELS]):
                    level.rmdir()


# --- all of them -----------------------------------------------------------------------------------------------------


class Keeper:
    def __init__(self, scope: str, listener: socket.socket) -> None:
        self._scope = scope
        self._listener = listener
        self._services: dict[str, Service] = {}
        self._agent: socket.socket | None = None
        self._agent_pid = 0
        self._input = b""
        self._ending = False
        self._began_s = time.monotonic()
        self._tie = _tie_children()
        self._wakers = _wake_on_signals()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wakers[0], selectors.EVENT_READ, self._wake)

    def run(self) -> None:
        _kill_all(self._left_behind)
        while not self._done():
            for key, _ in self._selector.select(self._patience_s()):
                act: Callable[[], None] = key.data
                act()
            self._reap()
            self._look(time.monotonic())
        _kill_all(_strays)
        Path(SOCKET).unlink(missing_ok=True)

    def _done(self) -> bool:
        if self._services:
            return False
        waited = self._agent_pid != 0 or time.monotonic() - self._began_s >= _FIRST_AGENT_S
        return self._ending or (self._agent is None and waited)

    def _patience_s(self) -> float | None:
        if any(service.forced_s is not None for service in self._services.values()):
            return _LOOK_EVERY_S
        times = [at_s for service in self._services.values() if (at_s := service.next_s()) is not None]
        if self._agent is None and self._agent_pid == 0:
            times.append(self._began_s + _FIRST_AGENT_S)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _wake(self) -> None:
        with suppress(OSError):
            if signal.SIGTERM in self._wakers[0].recv(_CHUNK_BYTES):
                self._end()

    # --- the agent ---------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # who knocked has left, or there are too many open files: services are none the worse for that
            return
        connection.settimeout(_SEND_S)
        act = self._read
        if self._agent is not None or self._ending:
            act = partial(self._refuse, connection)
        else:
            self._agent, self._input = connection, b""
        self._selector.register(connection, selectors.EVENT_READ, act)

    def _refuse(self, connection: socket.socket) -> None:
        """Answer an agent that came second, once it has asked: to hang up on unread words would cut off ours."""
        self._selector.unregister(connection)
        with suppress(OSError), connection:
            connection.recv(_CHUNK_BYTES)
            connection.sendall(json.dumps({"id": 1, "busy": self._agent_pid}).encode() + b"\n")

    def _read(self) -> None:
        agent = self._agent
        if agent is None:
            return
        try:
            chunk = agent.recv(_CHUNK_BYTES)
        except OSError:
            chunk = b""
        *lines, self._input = (self._input + chunk).split(b"\n")
        if not chunk or len(self._input) > _LINE_BYTES_MAX:
            self._lose_agent()
            return
        for line in lines:
            if self._agent is not agent:  # it went meanwhile: nobody would look after what it wants
                return
            try:
                self._hear(json.loads(line))
            except (ValueError, LookupError, TypeError, OSError):  # not an agent, or nothing more can be opened
                self._lose_agent()
                return

    def _lose_agent(self) -> None:
        if self._agent is not None:
            self._selector.unregister(self._agent)
            self._agent.close()
            self._agent = None
            for service in self._services.values():
                service.askers.clear()
                service.abandoned_s = time.monotonic()

    def _hear(self, message: Message) -> None:
        match message["do"]:
            case "hello":
                self._agent_pid = message["agent"]
                for service in self._services.values():
                    service.abandoned_s = None
                kept = [service.facts() for service in self._services.values()]
                self._say({"id": message["id"], "version": VERSION, "kept": kept})
            case "spawn":
                self._say({"id": message["id"], **self._spawn(message)})
            case "stop" if message["name"] in self._services:
                service = self._services[message["name"]]
                service.askers.append(message["id"])
                service.ask_to_end(time.monotonic(), message["timeout_s"])
            case "stop":
                self._say({"id": message["id"], "left": []})
            case "end":
                self._end()

    def _say(self, message: Message) -> None:
        if self._agent is not None:
            try:
                self._agent.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                self._lose_agent()

    def _end(self) -> None:
        self._ending = True
        for service in self._services.values():
            service.ask_to_end(time.monotonic(), service.stop_s)

    # --- services ----------------------------------------------------------------------------------------------------

    def _spawn(self, order: Message) -> Message:
        name = order["name"]
        if name in self._services:
            reason = f"the one before it (pid {self._services[name].pid}) has not ended"
            return {"errno": errno.EBUSY, "strerror": reason}
        problem_r, problem_w = os.pipe()
        with open(problem_r, "rb") as problem:  # noqa: PTH123 - a descriptor
            try:
                process = self._run(order, problem_w)
            except OSError as error:
                return {"errno": error.errno, "strerror": error.strerror, "filename": error.filename}
            except (ValueError, subprocess.SubprocessError) as error:
                return {"errno": errno.EINVAL, "strerror": str(error)}
            finally:
                os.close(problem_w)
            cgroup_problem = problem.read().decode(errors="replace")
        process.returncode = 0  # or it would take the exit code from under `_reap`
        service = self._services[name] = Service(order, process.pid, self._scope)
        return {**service.facts(), "cgroup_problem": cgroup_problem or None}

    def _run(self, order: Message, problem: int) -> subprocess.Popen[bytes]:
        keeper, cgroup = os.getpid(), order["cgroup"]

        def prepare() -> None:  # in the child. It is safe, for this process has one thread
            self._tie(keeper)
            if cgroup is not None:
                try:
                    (Path(cgroup) / "cgroup.procs").write_text(str(os.getpid()))
                except OSError as error:
                    os.write(problem, str(error).encode())

        with Path(order["output"]).open("ab", buffering=0) as output:
            return subprocess.Popen(  # noqa: S603 - what is run is said by the node file
                order["command"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=order["env"] | {MARKER: f"{self._scope}/{order['name']}"},
                cwd=order["directory"],
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 - see there
            )

    def _reap(self) -> None:
        by_pid = {service.pid: service for service in self._services.values()}
        while (ended := _reap_one()) is not None:
            pid, code = ended
            if pid in by_pid:
                by_pid[pid].reaped(code)

    def _look(self, now_s: float) -> None:
        for service in self._services.values():
            if service.abandoned_s is not None and now_s >= service.abandoned_s + service.keep_s:
                service.ask_to_end(now_s, service.stop_s)
        due = [service for service in self._services.values() if service.is_due(now_s)]
        table = read_table() if due else {}
        for service in due:
            if service.forced_s is None:
                service.forced_s = now_s
            left = service.force(table)
            is_gone = not left and service.code is not None and not service.has_somebody()
            if is_gone or now_s - service.forced_s > _AFTER_KILL_S:
                self._forget(service, left)

    def _forget(self, service: Service, left: list[int]) -> None:
        del self._services[service.name]
        service.remove_cgroups()
        self._say(service.end(left))
        for asker in service.askers:
            self._say({"id": asker, "left": left})

    def _left_behind(self, table: Table) -> set[int]:
        """Return what a keeper that was killed has left: we hold its lock, so nobody else looks after that."""
        prefix = f"{self._scope}/"
        return {pid for pid in table if (read_marker(pid) or "").startswith(prefix)}


def _strays(table: Table) -> set[int]:
    """Return what is still below us: it hid so well that it could not be told whose it was."""
    return set(with_descendants([os.getpid()], children_of(table))) - {os.getpid()}


def _kill_all(find: Callable[[Table], set[int]]) -> None:
    deadline_s = time.monotonic() + _AFTER_KILL_S
    while (found := find(table := read_table())) and time.monotonic() < deadline_s:
        for pid in found:
            kill(table[pid])
        while _reap_one() is not None:
            pass
        time.sleep(_LOOK_EVERY_S)


def _reap_one() -> tuple[int, int] | None:
    """Return the pid of a child that has ended, and its code."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _listen() -> socket.socket:
    """Listen where only our own user reaches us. The name is relative: a path may be longer than an address can be."""
    Path(SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    listener.bind(SOCKET)
    os.umask(before)
    listener.listen()
    return listener


def _wake_on_signals() -> tuple[socket.socket, socket.socket]:
    """Return a pair of sockets; the first one can be read when a signal came, and says which."""
    pair = socket.socketpair()
    for end in pair:
        end.settimeout(0)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler: what is ignored is ignored by all children too
    signal.set_wakeup_fd(pair[1].fileno(), warn_on_full_buffer=False)
    return pair


def _tie_children() -> Callable[[int], None]:
    """Become the parent of all orphans below us; return what a child does to end when we do."""
    if not sys.platform.startswith("linux"):
        return lambda _: None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def tie(keeper: int) -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != keeper:  # it died before the tie was made
            os.kill(os.getpid(), signal.SIGKILL)

    return tie


def main() -> None:
    folder, scope = sys.argv[1:]
    os.chdir(folder)
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # another one keeps this folder
        return
    listener = _listen()
    if os.fork() == 0:
        Keeper(scope, listener).run()


if __name__ == "__main__":
    main()

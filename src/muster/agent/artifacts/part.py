"""A file on its way: what has come of it, and of what it is a part."""

import hashlib
import os
import threading
from pathlib import Path

import msgspec
from msgspec import Struct

_CHUNK_BYTES = 1_048_576


class Begun(Struct, frozen=True, kw_only=True):
    """Kept beside a part. `source` is a digest of the address, which may hold a secret."""

    source: str
    validator: str | None = None

    @property
    def is_strong(self) -> bool:
        """Whether the server would notice that its file is another one now (RFC 9110, 8.8.1)."""
        return bool(self.validator) and not str(self.validator).startswith("W/")


class Part:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def begun(self) -> Begun | None:
        try:
            return msgspec.json.decode(self._beside.read_bytes(), type=Begun)
        except (OSError, msgspec.DecodeError):
            return None

    def begin(self, begun: Begun) -> None:
        if self.begun != begun:
            self._beside.write_bytes(msgspec.json.encode(begun))

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)


def mark_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


class Sink:
    """The part, and the digest of all of it. What is written is with the system at once, whatever becomes of us."""

    def __init__(self, path: Path, offset: int) -> None:
        self._file = path.open("r+b" if offset else "w+b", buffering=0)
        self._hash = hashlib.sha256()
        self._offset = offset
        self._lock = threading.Lock()  # who gives up while a thread writes closes it only after that
        self.size = 0
        self.is_read = False

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def read_again(self) -> None:
        """Take what is there into the digest, to go on behind it."""
        self._file.truncate(self._offset)
        while chunk := self._file.read(_CHUNK_BYTES):
            self._hash.update(chunk)
            self.size += len(chunk)
        self.is_read = True

    def write(self, chunk: bytes) -> None:
        with self._lock:
            left = memoryview(chunk)
            while left:
                written = self._file.write(left)
                self._hash.update(left[:written])
                self.size += written
                left = left[written:]

    def close(self) -> None:
        with self._lock:
            if not self._file.closed:
                try:
                    os.fsync(self._file.fileno())
                finally:
                    self._file.close()

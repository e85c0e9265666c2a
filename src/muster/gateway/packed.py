"""What was said in a stream, kept for whoever has to go on with it. Pure."""

import zlib

# Raw deflate with a small window and table. What zlib does by itself packs no better, as events are alike, and takes
# five times as long, most of it to clear its tables.
_PACK_LEVEL, _PACK_WINDOW, _PACK_TABLE = 1, -13, 5


class Packed:
    """The beginning of a stream, packed as it comes: a tenth of its size, as events say little and repeat the rest."""

    __slots__ = ("_blocks", "_room")

    def __init__(self, bytes_max: int) -> None:
        self._blocks: list[bytes] = []
        self._room = bytes_max

    def add(self, data: bytes | bytearray) -> bool:
        """Keep this too; return whether there was room for it."""
        self._room -= len(data)
        if self._room < 0:
            return False
        packer = zlib.compressobj(_PACK_LEVEL, zlib.DEFLATED, _PACK_WINDOW, _PACK_TABLE)
        self._blocks.append(packer.compress(data) + packer.flush())
        return True

    def read(self, rest: bytes | bytearray) -> bytes | None:
        """Return all of it with what followed on it; None when that is more than may be kept."""
        if len(rest) > self._room:
            return None
        return b"".join([*(zlib.decompress(block, _PACK_WINDOW) for block in self._blocks), rest])

"""What somebody wishes of a log, read block by block: the whole of it is never in memory."""

from collections import deque
from collections.abc import Iterator

from muster.logs.file import LogFile
from muster.logs.lines import LEVELS, LINE_BYTES_MAX, believed, may_be_bad, pieces, readable, told_by
from muster.wire.logs import LogLine, LogWish

BLOCK_BYTES = 128 * 1024
TAIL_MAX = 10_000
_BEHIND_BYTES_MAX = 4 * 1024 * 1024  # of a follower; then it goes on near the end
_SKIP_TO_BYTES = 64 * 1024
_PATIENCE = 4  # looks without news, until a line that is not complete is told as it is
_INFO = LEVELS["info"]


class LogReader:
    """One log for one reader: first what is there, then, as often as `more` is asked, what has come since.

    With `now_ms` it is noted when lines were seen, which is only for those whose log it is.
    """

    def __init__(self, name: str, file: LogFile, wish: LogWish) -> None:
        self._name = name
        self._file = file
        self._wish = wish
        self._level_min = LEVELS.get(wish.level or "", 0)
        self._grep = wish.grep or ""
        self._any_case = self._grep == self._grep.lower()
        # What is masked or coloured looks otherwise than it is written, and other alphabets have their own cases.
        self._needle = self._grep.encode() if self._grep.isascii() and "***" not in self._grep else b""
        self._any_of = tuple(text.encode() for text in wish.any_of)
        self._level: str | None = None  # of the line before
        self._at = file.end  # read up to here
        self._incomplete = 0  # bytes of a line that has no end yet
        self._looks = 0  # at it in vain, one after the other
        self.left_out = 0  # lines that a follower was too slow for, since this was last set to 0

    # --- what is there -----------------------------------------------------------------------------------------------

    def past(self, now_ms: int | None = None) -> Iterator[list[LogLine]]:
        """Tell what is there up to now, in the order of the log, a block at a time."""
        if now_ms is not None:
            self._file.mark(now_ms)
        begin = self._file.parts()[0].begin
        if self._wish.since_ms is not None:
            begin = max(begin, self._file.before(self._wish.since_ms))
        self._at = self._whole_lines_end()
        if self._wish.tail is None:
            yield from self._forward(begin, self._at)
        else:
            yield self._tail(begin, self._at, min(self._wish.tail, TAIL_MAX))

    def _whole_lines_end(self) -> int:
        """Return where the last line ends; one that is not complete yet is for who follows, and told to others."""
        end = self._file.end
        if not self._wish.follow:
            return end
        last = self._file.read(end - LINE_BYTES_MAX, end)
        return end - len(last) + max(last.rfind(b"\n"), last.rfind(b"\r")) + 1

    def _forward(self, begin: int, end: int) -> Iterator[list[LogLine]]:
        at = begin
        while at < end:
            at = max(at, self._file.parts()[0].begin)  # what is rotated away while we read is gone
            block = self._file.read(at, min(at + BLOCK_BYTES, end))
            if not block:
                return
            used = _whole(block) if at + len(block) < end else len(block)
            yield self._lines(at, block[:used])
            at += used

    def _tail(self, begin: int, end: int, count: int) -> list[LogLine]:
        found: deque[LogLine] = deque()
        at = end
        while at > begin and len(found) < count:
            block = self._file.read(max(begin, at - BLOCK_BYTES), at)
            if not block:
                break
            first = 0 if at - len(block) <= begin else _first_line(block)
            self._level = None
            lines = self._lines(at - len(block) + first, block[first:])
            found.extendleft(reversed(lines[-(count - len(found)) :]))
            at -= len(block) - first
        return list(found)

    # --- what comes --------------------------------------------------------------------------------------------------

    def more(self, now_ms: int | None = None) -> list[LogLine]:
        """Tell what has come since the last look. A line that is not complete waits for its end, but not for ever."""
        end = self._file.end
        if end - self._at > _BEHIND_BYTES_MAX:
            self._skip(end)
        self._at = max(self._at, self._file.parts()[0].begin)
        if self._at >= end:
            return []
        if now_ms is not None:
            self._file.mark(now_ms)
        block = self._file.read(self._at, min(end, self._at + BLOCK_BYTES))
        used = _complete(block)
        self._looks = self._looks + 1 if used == 0 and len(block) == self._incomplete else 0
        self._incomplete = len(block) - used
        if self._looks >= _PATIENCE:
            used, self._looks, self._incomplete = len(block), 0, 0
        lines = self._lines(self._at, block[:used])
        self._at += used
        return lines

    def _skip(self, end: int) -> None:
        """Go on near the end, and count what is left out."""
        target = end - _SKIP_TO_BYTES
        while self._at < target:
            block = self._file.read(self._at, min(target, self._at + 8 * BLOCK_BYTES))
            if not block:
                self._at = max(self._at + 1, self._file.parts()[0].begin)
                continue
            self.left_out += block.count(b"\n")
            self._at += len(block)
        near = self._file.read(target, target + LINE_BYTES_MAX)
        first = _first_line(near)
        self.left_out += near[:first].count(b"\n")
        self._at = target + first

    # --- lines -------------------------------------------------------------------------------------------------------

    def _lines(self, at: int, block: bytes) -> list[LogLine]:
        if not self._may_hold(block):
            return []
        made = (self._line(at + place, raw) for place, raw in pieces(block))
        return [line for line in made if line is not None]

    def _line(self, position: int, raw: bytes) -> LogLine | None:
        """Return what is shown of a line, None where it is not wanted."""
        continues = raw[:1] in (b" ", b"\t")  # the line before, as those of a traceback do
        if not (self._may_hold(raw) or (continues and self._level)):
            self._level = None
            return None
        text = readable(raw)
        own_ms, level = told_by(text)
        if level is None and continues:
            level = self._level
        self._level = level
        at_ms, seen = believed(own_ms, self._file.seen_ms(position))
        if not self._wanted(text, at_ms, level):
            return None
        return LogLine(log=self._name, text=text, at_ms=at_ms, seen=seen, level=level)

    def _may_hold(self, raw: bytes) -> bool:
        """Tell whether these bytes may hold what is wanted: most do not, and reading them closely takes its time."""
        if self._any_of and not any(text in raw for text in self._any_of):
            return False
        if self._level_min > _INFO and not may_be_bad(raw):
            return False
        if not self._needle or b"\x1b" in raw:
            return True
        return self._needle in (raw.lower() if self._any_case else raw)

    def _wanted(self, text: str, at_ms: int | None, level: str | None) -> bool:
        """Judge by what is shown: a search must not find the secrets that are masked."""
        wish = self._wish
        return (
            LEVELS.get(level or "", _INFO) >= self._level_min
            and (wish.since_ms is None or at_ms is None or at_ms >= wish.since_ms)
            and (wish.until_ms is None or (at_ms is not None and at_ms <= wish.until_ms))
            and (self._grep in (text.lower() if self._any_case else text))
        )


def _complete(block: bytes) -> int:
    """Return how much of a block are whole lines; one that is too long counts as one."""
    end = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
    return len(block) if len(block) - end >= LINE_BYTES_MAX else end


def _whole(block: bytes) -> int:
    return _complete(block) or len(block)


def _first_line(block: bytes) -> int:
    """Return where the first line begins that begins within a block; 0 where none does."""
    places = [place for place in (block.find(b"\n"), block.find(b"\r")) if place >= 0]
    place = min(places, default=-1) + 1
    return place if place < len(block) else 0

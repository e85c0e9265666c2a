import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import UpstreamFailed
from muster.sse import EVENT_BYTES_MAX, KEEP_ALIVE, EventReader, ServerEvent, frame, read_events

LINES = st.sampled_from([b"", b":", b"data", b"data:", b"data: ", b"id: 7", b"id: a\0b", b"event: x", b"retry: 10"])
CONTENT = st.binary(max_size=20).filter(lambda line: not re.search(rb"[\r\n]", line))
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    return [stream[start:end] for start, end in pairwise([0, *sorted(places), len(stream)])]


def told(stream: bytes) -> list[ServerEvent]:
    return list(read_events([stream]))


def by_the_book(stream: bytes) -> list[ServerEvent]:
    """Do word by word what the standard says, with a stream that is whole."""
    *lines, _ = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    events, last_id, event, data = [], None, "", b""
    for line in lines:
        field, colon, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            if data:
                events.append(ServerEvent(data[:-1], last_id, event or "message"))
            event, data = "", b""
        elif colon and not field:
            continue
        elif field == b"data":
            data += value + b"\n"
        elif field == b"event":
            event = value.decode(errors="replace")
        elif field == b"id" and b"\0" not in value:
            last_id = value.decode(errors="replace")
    return events


@given(
    st.lists(st.tuples(LINES | CONTENT | CONTENT.map(lambda line: b"data:" + line), ENDS)),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.data(),
)
def test_any_stream_is_read_by_the_book_however_its_bytes_arrive(
    lines: list[tuple[bytes, bytes]], bom: bytes, data: st.DataObject
) -> None:
    stream = bom + b"".join(line + end for line, end in lines)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))

    assert list(read_events(cut(stream, places))) == by_the_book(stream)


@given(
    st.recursive(st.none() | st.text() | st.integers() | st.booleans(), lambda inner: st.lists(inner, max_size=3)),
    st.none() | st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])),
    st.none() | st.text("abc_", min_size=1),
)
def test_what_is_written_is_read(body: object, event_id: str | None, event: str | None) -> None:
    (read,) = told(KEEP_ALIVE + frame(body, event_id, event) + KEEP_ALIVE)

    assert (json.loads(read.data), read.id, read.event) == (body, event_id, event or "message")


def test_lines_of_data_are_one_event() -> None:
    assert told(b"data: two\r\ndata:\r\ndata:  lines\r\n\r\n") == [ServerEvent(b"two\n\n lines")]


def test_an_id_holds_until_the_next_and_a_name_for_its_event() -> None:
    stream = b"id: 7\nevent: ping\ndata: a\n\ndata: b\n\nid\ndata: c\n\n"

    assert told(stream) == [ServerEvent(b"a", "7", "ping"), ServerEvent(b"b", "7"), ServerEvent(b"c", "")]


def test_an_event_without_data_is_none_but_its_id_counts() -> None:
    assert told(b"id: 1\nevent: x\n\ndata: y\n\n") == [ServerEvent(b"y", "1")]


def test_an_event_that_was_cut_off_is_not_told() -> None:
    assert told(b"data: whole\n\ndata: half\n") == [ServerEvent(b"whole")]


@pytest.mark.parametrize("line", [b"data: ", b": "])
def test_an_event_is_as_long_as_it_may_be_and_no_longer(line: bytes) -> None:
    reader = EventReader()
    assert reader.feed(line + b"x" * (EVENT_BYTES_MAX - len(line))) == []

    with pytest.raises(UpstreamFailed, match="more than 1048576 bytes"):
        reader.feed(b"x")


def test_many_lines_are_no_way_around_the_bound() -> None:
    reader = EventReader(100)

    with pytest.raises(UpstreamFailed, match="more than 100 bytes"):
        reader.feed(b"data: 123456789\n" * 11)


def test_one_event_after_the_other_may_be_long() -> None:
    assert len(list(read_events([b"data: " + b"x" * 90 + b"\n\n"] * 10, 100))) == 10

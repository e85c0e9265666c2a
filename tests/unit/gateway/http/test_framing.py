import contextlib
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.gateway.http.framing import HeadTooLarge, MalformedRequest, RequestReader, path_of

Read = tuple[bytes, bytes, dict[bytes, bytes], bytes, bool, bytes]


def read_all(pieces: Sequence[bytes], head_bytes_max: int = 65_536) -> list[Read]:
    """Read as a connection does: the next head only when the body before it is complete."""
    reader = RequestReader(head_bytes_max)
    requests: list[Read] = []
    raw = b""
    reading = False
    for piece in pieces:
        reader.push(piece)
        while True:
            if not reading:
                head = reader.read_head()
                if head is None:
                    break
                raw, reading = head, True
            raw += reader.read_body()
            if not reader.complete:
                break
            reading = False
            requests.append((reader.method, reader.url, reader.headers, reader.take_body(), reader.keep_alive, raw))
    return requests


def cut(data: bytes, points: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({point % (len(data) + 1) for point in points}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if start < end]


bodies = st.binary(max_size=60) | st.sampled_from(
    [b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"{}\r\n\r\n\r\n"]
)
urls = st.sampled_from([b"/v1/chat/completions", b"/api/tags?x=1", b"/", b"http://host/api/chat"])
fields = st.lists(
    st.tuples(st.sampled_from([b"x-a", b"X-B", b"accept"]), st.sampled_from([b"1", b"two words", b"a:b", b""])),
    max_size=3,
)


@st.composite
def requests_(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a request as bytes and its body."""
    body = draw(bodies)
    lines = b"".join(b"%b: %b\r\n" % field for field in draw(fields))
    start = b"%b %b HTTP/1.1\r\nhost: x\r\n%b" % (draw(st.sampled_from([b"POST", b"PUT"])), draw(urls), lines)
    if draw(st.booleans()):
        return start + b"Content-Length: %d\r\n\r\n" % len(body) + body, body
    pieces = [piece for piece in cut(body, draw(st.lists(st.integers(0, 60), max_size=3))) if piece]
    extension = draw(st.sampled_from([b"", b";a=b"]))
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailer = draw(st.sampled_from([b"", b"x-trailer: 1\r\n", b"accept: 7\r\n"]))
    return start + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n", body


@given(st.lists(requests_(), min_size=1, max_size=4), st.lists(st.integers(0, 5000), max_size=12))
def test_requests_are_the_same_however_their_bytes_come(made: list[tuple[bytes, bytes]], points: list[int]):
    data = b"".join(raw for raw, _ in made)

    whole = read_all([data])

    assert [request[3] for request in whole] == [body for _, body in made]
    assert [request[5] for request in whole] == [raw for raw, _ in made], "the raw bytes are kept to the letter"
    assert read_all(cut(data, points)) == whole


@given(requests_())
def test_requests_can_come_byte_by_byte(made: tuple[bytes, bytes]):
    data = made[0] * 2
    assert read_all([data[at : at + 1] for at in range(len(data))]) == read_all([data])


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_garbage_is_refused_and_nothing_else(data: bytes, points: list[int]):
    for prefix in (b"", b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"):
        with contextlib.suppress(MalformedRequest):
            read_all(cut(prefix + data, points))


def test_a_trailer_changes_nothing_that_the_head_has_decided():
    request = (
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nauthorization: x\r\nhost: evil\r\n\r\n"
    )

    [(_, _, headers, body, _, raw)] = read_all([request])

    assert headers == {b"transfer-encoding": b"chunked"}
    assert (body, raw) == (b"ab", request)


def test_a_head_is_refused_as_soon_as_it_is_too_long():
    with pytest.raises(HeadTooLarge, match="100 bytes"):
        read_all([b"GET / HTTP/1.1\r\n", b"x: " + b"y" * 100], head_bytes_max=100)
    with pytest.raises(HeadTooLarge):
        read_all([b"GET / HTTP/1.1\r\nx: " + b"y" * 100 + b"\r\n\r\n"], head_bytes_max=100)
    assert len(read_all([b"\r\n" * 200 + b"GET / HTTP/1.1\r\n\r\n"], head_bytes_max=100)) == 1


@pytest.mark.parametrize(("version", "keep_alive"), [(b"1.1", True), (b"1.0", False)])
def test_only_http_1_1_keeps_the_connection(version: bytes, *, keep_alive: bool):
    [(*_, kept, _)] = read_all([b"GET / HTTP/%b\r\nconnection: keep-alive\r\n\r\n" % version])
    assert kept is keep_alive


def test_an_upgrade_that_nobody_speaks_is_dropped_and_its_body_belongs_to_the_request():
    request = b"POST /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\ncontent-length: 2\r\n\r\nab"

    [first, second] = read_all([request + b"GET /next HTTP/1.1\r\n\r\n"])

    assert (first[3], second[1]) == (b"ab", b"/next")
    assert b"Upgrade: h2c" not in first[5]


def test_a_websocket_with_a_body_is_no_websocket():
    request = b"POST /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\ncontent-length: 2\r\n\r\nab"
    [first] = read_all([request])
    assert first[3] == b"ab"


def test_a_websocket_keeps_its_head_whole_and_what_follows_is_left():
    head = b"GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    reader = RequestReader(1000)
    reader.push(head + b"\x81\x02hi")

    assert reader.read_head() == head
    assert reader.complete
    assert reader.take_rest() == b"\x81\x02hi"
    assert reader.pending == 0


def test_a_body_that_nobody_keeps_is_counted_all_the_same():
    reader = RequestReader(1000)
    reader.push(b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcd")
    reader.read_head()
    reader.keep_body = False

    assert reader.read_body() == b"abcd"
    assert (reader.take_body(), reader.body_bytes, reader.remaining) == (b"", 4, 0)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (b"/a?b=/c", b"/a"),
        (b"http://host:1/a/b?c", b"/a/b"),
        (b"http://host", b"/"),
        (b"*", b"*"),
        (b"host:443", b"host:443"),
    ],
)
def test_the_path_of_a_url(url: bytes, path: bytes):
    assert path_of(url) == path

"""An engine's answer is the same however its bytes come, and one that is out of step is never asked again."""

import asyncio
from typing import Any

import pytest

from muster.errors import UpstreamFailed
from muster.gateway.http.upstream import AnswerHead, Endpoint, UpstreamConnection, Upstreams
from muster.gateway.limits import GatewayLimits

LIMITS = GatewayLimits(head_bytes_max=500, upstream_idle_max=2, upstream_idle_s=4)
CHUNKED = (
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nServer: e\r\nKeep-Alive: timeout=5\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\nx-trailer: 1\r\n\r\n"
)
SIZED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhello world"
UNSIZED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello world"


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class Heard:
    """An Asker that keeps what it hears."""

    def __init__(self) -> None:
        self.heads: list[AnswerHead] = []
        self.body = b""
        self.end = ""

    def answer_began(self, head: AnswerHead) -> None:
        self.heads.append(head)

    def answer_continued(self, data: bytes) -> None:
        assert data
        self.body += data

    def answer_ended(self, data: bytes) -> None:
        self.body += data
        self.end = "ended"

    def answer_lost(self, reason: str) -> None:
        self.end = reason


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint("http://engine:80/base/", LIMITS)


def asked(endpoint: Endpoint) -> tuple[UpstreamConnection, FakeTransport, Heard]:
    connection, transport, heard = UpstreamConnection(endpoint), FakeTransport(), Heard()
    connection.connection_made(transport)
    connection.ask(heard, b"request")
    return connection, transport, heard


@pytest.mark.parametrize("answer", [CHUNKED, SIZED])
def test_answers_are_the_same_wherever_their_bytes_are_cut(endpoint: Endpoint, answer: bytes):
    for first in range(len(answer)):
        for size in (1, 9, len(answer)):
            connection, transport, heard = asked(endpoint)
            pieces = [answer[:first], *(answer[at : at + size] for at in range(first, len(answer), size))]
            for piece in filter(None, pieces):
                connection.data_received(piece)
            assert (heard.body, heard.end) == (b"hello world", "ended")
            [head] = heard.heads
            assert head.status == (200 if answer is CHUNKED else 404)
            assert b"transfer-encoding" not in head.fields.lines
            assert b"keep-alive" not in head.fields.lines
            assert b"content-length" not in head.fields.lines
            assert endpoint.take() is connection
            assert not transport.closed


def test_an_answer_without_framing_ends_with_the_connection(endpoint: Endpoint):
    connection, _, heard = asked(endpoint)
    connection.data_received(UNSIZED)
    assert heard.end == ""
    connection.connection_lost(None)
    assert (heard.body, heard.end) == (b"hello world", "ended")
    connection, _, heard = asked(endpoint)
    connection.data_received(UNSIZED)
    connection.connection_lost(ConnectionResetError("reset"))
    assert "broke the connection" in heard.end


@pytest.mark.parametrize("answer", [CHUNKED[:-4], SIZED[:-1], b"", b"HTTP/1.1 200"])
def test_an_answer_with_framing_that_stops_short_is_lost(endpoint: Endpoint, answer: bytes):
    connection, _, heard = asked(endpoint)
    if answer:
        connection.data_received(answer)
    connection.connection_lost(None)
    assert heard.end == "closed the connection"
    assert endpoint.open == set()


def test_an_engine_that_says_more_than_was_asked_is_not_asked_again(endpoint: Endpoint):
    connection, transport, heard = asked(endpoint)
    connection.data_received(SIZED + SIZED)
    assert (heard.body, len(heard.heads)) == (b"hello world", 1)
    assert transport.aborted
    assert endpoint.take() is None


def test_a_little_too_much_spoils_the_next_answer_instead_of_reaching_anybody(endpoint: Endpoint):
    connection, _, _ = asked(endpoint)
    connection.data_received(SIZED + b"HTTP/1.1 2")
    again = Heard()
    connection.ask(again, b"request")
    connection.data_received(SIZED)
    assert (again.body, again.end) == (b"", "sent a malformed answer")


def test_an_engine_that_speaks_unasked_is_cut_off(endpoint: Endpoint):
    connection, transport, _ = asked(endpoint)
    connection.data_received(SIZED)
    connection.data_received(SIZED)
    assert transport.aborted
    assert endpoint.take() is None


def test_an_engine_that_closes_after_its_answer_is_not_kept(endpoint: Endpoint):
    connection, transport, heard = asked(endpoint)
    connection.data_received(SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert heard.end == "ended"
    assert transport.aborted


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200])
def test_what_is_no_answer_is_lost(endpoint: Endpoint, answer: bytes):
    connection, transport, heard = asked(endpoint)
    connection.data_received(answer)
    assert heard.end.startswith("sent")
    assert transport.aborted


def test_only_so_many_idle_connections_are_kept_and_only_for_so_long(endpoint: Endpoint):
    connections = [asked(endpoint) for _ in range(3)]
    for connection, _, _ in connections:
        connection.data_received(SIZED)
    assert [transport.aborted for _, transport, _ in connections] == [False, False, True]
    closed = []
    for now_s in (100.0, 103.9, 104.1):
        endpoint.sweep(now_s)
        closed.append(connections[0][1].closed)
    assert closed == [False, False, True]
    assert endpoint.take() is None


def test_an_address_is_taken_apart_once_and_forgotten_when_nobody_is_connected():
    upstreams = Upstreams(LIMITS)
    endpoint = upstreams.endpoint("http://[::1]:8080/base/")
    assert (endpoint.host, endpoint.port, endpoint.path, endpoint.ssl) == ("::1", 8080, b"/base", None)
    assert endpoint.host_header == b"[::1]:8080"
    assert upstreams.endpoint("http://[::1]:8080/base/") is endpoint
    asked(endpoint)
    upstreams.sweep(0)
    assert upstreams.connections == 1
    upstreams.close()
    for connection in list(endpoint.open):
        connection.connection_lost(None)
    upstreams.sweep(0)
    assert upstreams.endpoint("http://[::1]:8080/base/") is not endpoint
    assert upstreams.endpoint("https://host").ssl is not None
    with pytest.raises(UpstreamFailed, match="no address"):
        upstreams.endpoint("http://host:port")


def test_a_connection_that_is_made_when_its_address_is_forgotten_already_is_not_kept():
    upstreams = Upstreams(LIMITS)
    endpoint = upstreams.endpoint("http://engine:80")
    upstreams.sweep(0.0)
    connection = UpstreamConnection(endpoint)
    transport = FakeTransport()
    connection.connection_made(transport)
    endpoint.give_back(connection)
    assert transport.aborted
    assert endpoint.take() is None

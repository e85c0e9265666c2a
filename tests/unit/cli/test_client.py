import socket

import pytest

from muster.cli.client import Client, Refused, Unreachable
from muster.errors import SetupError
from tests.unit.cli.stub_plane import Reply, StubPlane


def test_a_request_carries_the_token_and_what_was_asked(plane: StubPlane) -> None:
    plane.on("POST", "/api/jobs", Reply({"ok": True}))

    assert Client(plane.url, "secret").post("/api/jobs", {"a": 1}) == {"ok": True}

    (request,) = plane.requests
    assert request.headers["authorization"] == "Bearer secret"
    assert request.body == {"a": 1}


def test_a_query_leaves_out_what_was_not_given(plane: StubPlane) -> None:
    plane.on("GET", "/api/jobs", Reply({}))

    Client(plane.url).get("/api/jobs", status="pending", cursor=None)

    assert plane.requests[0].query == {"status": "pending"}


def test_a_refusal_says_what_the_control_plane_said_and_what_to_do(plane: StubPlane) -> None:
    plane.on("GET", "/api/jobs/x", Reply({"code": "job_not_found", "message": "there is no job x"}, 404))

    with pytest.raises(Refused, match="there is no job x") as refused:
        Client(plane.url).get("/api/jobs/x")

    assert refused.value.next_step == "muster jobs lists what there is"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no such model", "code": "model_not_found"}}, "no such model"),
        ({"error": "no such model"}, "no such model"),
        ("nginx says no", "the control plane answered 502"),
        (None, "the control plane answered 502"),
    ],
)
def test_a_refusal_is_understood_in_every_dialect(plane: StubPlane, body: object, message: str) -> None:
    plane.on("GET", "/v1/models", Reply(body, 502))

    with pytest.raises(Refused) as refused:
        Client(plane.url).get("/v1/models")

    assert refused.value.message == message


def test_without_a_token_the_next_step_is_to_set_it(plane: StubPlane) -> None:
    plane.on("GET", "/api/v1/nodes", Reply({"code": "unauthorized", "message": "a token is needed"}, 401))

    with pytest.raises(Refused) as refused:
        Client(plane.url).get("/api/v1/nodes")

    assert "MUSTER_TOKEN" in str(refused.value.next_step)


def test_nobody_there_names_the_address_and_muster_up() -> None:
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else can take it meanwhile
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable) as unreachable:
            Client(url).get("/health")

    assert url in unreachable.value.message
    assert "muster up" in unreachable.value.next_step


def test_a_silent_control_plane_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(Unreachable, match="silent"), client.open("GET", "/health", silence_s=0.05):
            pass


def test_an_answer_that_breaks_off_is_told_as_such(plane: StubPlane) -> None:
    plane.on("GET", "/health", Reply("short", headers={"Content-Length": "1000"}))

    with pytest.raises(Unreachable, match="broke"):
        Client(plane.url).get("/health")


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http:///path"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="no address"):
        Client(url)


def test_a_bare_host_and_port_is_an_address() -> None:
    assert Client("localhost:8090").url == "http://localhost:8090"


def test_a_server_given_by_flag_comes_first(plane: StubPlane) -> None:
    assert Client.find("http://10.0.0.1:1").url == "http://10.0.0.1:1"
    assert Client.find(None).url == plane.url

import json

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane, sse

PATH = "/api/events"


def fact(number: int) -> dict[str, object]:
    return {"id": str(number), "kind": "job_done", "key": f"job-{number}", "at_ms": number, "data": {"n": number}}


def test_the_newest_events_are_shown(plane: StubPlane, cli: Cli) -> None:
    plane.on(
        "GET",
        PATH,
        Reply({"events": [fact(n) for n in range(1000)], "newest_id": "1001"}),
        Reply({"events": [fact(1000), fact(1001)], "newest_id": "1001"}),
    )

    outcome = cli("events", "--limit", "3", "--json")

    assert [event["id"] for event in json.loads(outcome.out)["events"]] == ["999", "1000", "1001"]
    assert [request.query["after"] for request in plane.requests] == ["0", "999"]


def test_people_see_one_line_an_event(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", PATH, Reply({"events": [fact(7)], "newest_id": "7"}))

    outcome = cli("events", "--after", "6")

    assert "job_done" in outcome.out
    assert "job-7  n=7" in outcome.out
    assert plane.requests[0].query == {"after": "6", "limit": "50"}


def test_following_goes_on_after_the_last_one_shown(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", PATH, Reply({"events": [fact(1)], "newest_id": "1"}))
    gone = Reply({"code": "unauthorized", "message": "a token is needed"}, 401)
    plane.on("GET", "/api/events/stream", Reply(frames=sse(fact(2), first_id=2)), gone)

    outcome = cli("events", "--follow", "--json")

    assert [json.loads(line)["id"] for line in outcome.out.splitlines()] == ["1", "2"]
    first, second = plane.asked("/api/events/stream")
    assert first.headers["last-event-id"] == "1"
    assert second.headers["last-event-id"] == "2"
    assert "a token is needed" in outcome.err

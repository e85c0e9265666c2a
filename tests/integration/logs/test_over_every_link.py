"""Logs of real services, through a real control plane, over every link that an agent can have."""

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.logs.conftest import LINKS, Site
from tests.muster_process import MusterProcess

pytestmark = pytest.mark.timeout(120)

Until = Callable[..., float]


@pytest.mark.parametrize("link", LINKS)
def test_a_services_last_words_are_read_searched_and_cleared(site: Site, until: Until, link: str) -> None:
    site.say(link, "one\nWARNING two redis://:hunter2@cache\nhalf")
    path = f"/api/v1/nodes/{link}/logs/talker"
    assert site.lines(path, tail=3) == ["one", "WARNING two redis://:***@cache", "half"]
    assert site.lines(path, level="warning") == ["WARNING two redis://:***@cache"]
    assert site.lines(path, grep="ONE") == []
    assert site.lines(path, since="1m", tail=1) == ["half"]

    listed = {log["name"]: log for log in site.plane.get(f"/api/v1/nodes/{link}/logs")["logs"]}
    assert listed.keys() == {"agent", "keeper", "talker", "worker-0"} - ({"worker-0"} - listed.keys())
    assert listed["talker"]["bytes"] > 0
    request = urllib.request.Request(site.plane.url + path, method="DELETE")
    urllib.request.urlopen(request, timeout=10).close()
    assert site.lines(path) == []
    site.say(link, "after\n")
    assert site.lines(path) == ["after"]


@pytest.mark.parametrize("link", LINKS)
def test_a_follower_gets_what_comes_whole_through_rotation(site: Site, until: Until, link: str) -> None:
    with site.follow(link) as following:
        site.say(link, "par")
        site.say(link, "tial\nnext\n")
        until(lambda: following.texts[-1:] == ["next"])
        assert "".join(following.texts).endswith("markpartialnext")
        site.say(link, "300000", "/flood")  # 28 MB: over two rotations
        site.say(link, "the end\n")
        until(lambda: following.texts[-1:] == ["the end"], 60)
        numbers = [int(text[6:15]) for text in following.texts if text.startswith("flood")]
        left_out = sum(int(found[0]) for note in following.notes if (found := re.match(r"\d+", note)))
        assert numbers == sorted(set(numbers))
        assert len(numbers) + left_out >= 300_000
        assert numbers[-1] == 299_999
    sizes = [path.stat().st_size for path in (site.folder / link / "data" / "logs").glob("talker.log*")]
    until(lambda: sum(sizes) < 60 * 1024 * 1024)
    assert len(sizes) <= 4


def test_several_logs_come_as_one_in_the_order_of_time(site: Site, until: Until) -> None:
    for number in range(3):
        for link in LINKS:
            site.say(link, f"{link} says {number}\n")
            until(
                lambda text=f"{link} says {number}", link=link: site.lines(
                    f"/api/v1/nodes/{link}/logs/talker", grep=text
                )
            )
    found = site.lines("/api/v1/logs", source=[f"{link}/talker" for link in LINKS], grep="says")
    assert len(found) == 3 * len(LINKS)
    assert [text for text in found if text.endswith(" 2")][-1] in found[-len(LINKS) :]


def test_what_cannot_be_read_says_why(site: Site) -> None:
    for path, status, text in (
        ("/api/v1/nodes/nobody/logs", 404, "no node 'nobody'"),
        ("/api/v1/nodes/http/logs/nothing", 404, "there are agent, keeper, talker"),
        ("/api/v1/nodes/http/logs/talker?level=loud", 400, "level must be one of"),
        ("/api/v1/nodes/http/logs/talker?since=yesterday", 400, "since is a time like"),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(site.plane.url + path, timeout=10)
        with caught.value as answer:
            assert answer.code == status
            assert text in answer.read().decode()


def post(site: Site, path: str, body: bytes, correlation_id: str) -> Any:
    headers = {"Content-Type": "application/json", "X-Correlation-Id": correlation_id}
    return urllib.request.urlopen(urllib.request.Request(site.plane.url + path, body, headers), timeout=20)


def test_a_job_has_one_story_from_its_request_to_its_service(site: Site, until: Until) -> None:
    body = (
        b'{"service_required": "vllm", "payload": {"model": "talker", "messages": [{"role": "user", "content": "?"}]}}'
    )
    post(site, "/api/jobs", body, "story-1").close()

    def told() -> dict[str, Any]:
        return dict(site.plane.get("/api/v1/timeline?correlation_id=story-1"))

    until(lambda: any(entry["text"] == "attempt_ended" for entry in told()["entries"]))
    (job_id,) = told()["job_ids"]
    timeline = site.plane.get(f"/api/jobs/{job_id}/timeline")
    assert timeline["correlation_id"] == "story-1"
    sources = {entry["source"].partition("/")[2] or entry["source"] for entry in timeline["entries"]}
    # The server may have told of a worker that had just this job.
    assert sources - {"server"} == {"events", "api", "worker-0", "talker"}, timeline["entries"]
    texts = [entry["text"] for entry in timeline["entries"]]
    assert texts.index("job_submitted") < texts.index("asked by story-1") <= texts.index("attempt_ended")
    assert [entry["at_ms"] for entry in timeline["entries"]] == sorted(entry["at_ms"] for entry in timeline["entries"])
    assert timeline["notes"] == []


def test_a_chat_has_one_story_from_the_gateway_to_its_service(site: Site, until: Until) -> None:
    body = b'{"model": "talker", "messages": [{"role": "user", "content": "?"}]}'
    with post(site, "/v1/chat/completions", body, "chat-1") as answer:
        worker = answer.headers["X-Muster-Worker"]

    def told() -> list[dict[str, Any]]:
        return list(site.plane.get("/api/v1/timeline?correlation_id=chat-1")["entries"])

    until(lambda: len(told()) == 2)
    entries = {entry["source"]: entry for entry in told()}
    assert entries["control-plane/gateway"]["data"]["worker"] == worker
    assert entries[worker]["text"] == "asked by chat-1"


def test_the_command_line_shows_them_with_stable_colours(site: Site) -> None:
    site.say("http", "hello\n")
    site.say("grpc", "hello\n")
    process = MusterProcess(
        site.folder / "cli",
        "logs",
        "http/talker",
        "grpc/talker",
        "--grep",
        "hello",
        "--server",
        site.plane.url,
        env={"FORCE_COLOR": "1"},
    ).start()
    assert process.wait() == 0
    assert re.search(r"\x1b\[\d+mhttp/talker +\|\x1b\[0m ~\d\d:\d\d:\d\d\.\d{3} hello", process.log)
    assert re.search(r"\x1b\[\d+mgrpc/talker +\|\x1b\[0m ~\d\d:\d\d:\d\d\.\d{3} hello", process.log)


def test_a_follower_hears_when_an_agent_is_killed_and_others_go_on(site: Site, until: Until) -> None:
    """The last of these tests: nobody needs that node any more."""
    with site.follow("http", "grpc") as following:
        site.agents["grpc"].kill()
        assert until(lambda: any("silent" in note for note in following.notes)) < 15
        site.say("http", "still here\n")
        until(lambda: "still here" in following.texts)
        assert not following.ended.is_set()

"""Batches with the official client on a real llama.cpp."""

import json
import threading
from collections.abc import Callable
from typing import Any, Final, Self

import openai
import pytest
from openai.types import Batch

from tests.integration.batches.conftest import SLOTS, SmallFleet
from tests.waiting import eventually_sync

CHAT: Final = "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}


def line(number: int, *, model: str = "tiny", tokens: int = 4, **fields: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": f"Say {number}."}], "max_tokens": tokens}
    return {"custom_id": f"request-{number}", "method": "POST", "url": CHAT, "body": body} | fields


def send(fleet: SmallFleet, lines: list[dict[str, Any]], window: str = "24h", endpoint: Any = CHAT) -> Batch:
    text = "\n".join(json.dumps(one) for one in lines).encode()
    file = fleet.client.files.create(file=("requests.jsonl", text), purpose="batch")
    wanted: Any = window
    return fleet.client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window=wanted)


def until(fleet: SmallFleet, batch: Batch, fits: Callable[[Batch], bool], timeout_s: float = 60) -> Batch:
    def look() -> Batch | None:
        seen = fleet.client.batches.retrieve(batch.id)
        return seen if fits(seen) else None

    found = eventually_sync(look, timeout_s)
    assert found is not None
    return found


def ended(fleet: SmallFleet, batch: Batch, timeout_s: float = 60) -> Batch:
    return until(fleet, batch, lambda seen: seen.status in ENDED, timeout_s)


def done(batch: Batch) -> int:
    return batch.request_counts.completed if batch.request_counts else 0


def content(fleet: SmallFleet, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(row) for row in fleet.client.files.content(file_id).text.strip().split("\n")]


def test_a_batch_from_its_file_to_its_answers(fleet: SmallFleet) -> None:
    lines = [line(number) for number in range(20)]
    lines[7]["body"]["max_tokens"] = -7  # the engine is to judge this one

    batch = ended(fleet, send(fleet, lines))

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.total == 20
    answers = content(fleet, batch.output_file_id)
    errors = content(fleet, batch.error_file_id) if batch.error_file_id else []
    told = [row["custom_id"] for row in (*answers, *errors)]
    assert sorted(told) == sorted(one["custom_id"] for one in lines)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(answers), len(errors))
    for row in answers:
        assert row["error"] is None
        assert row["response"]["status_code"] == 200
        assert row["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
        assert row["response"]["body"]["object"] == "chat.completion"
    assert batch.output_file_id in {file.id for file in fleet.client.files.list(purpose="batch_output")}
    assert batch.id in [one.id for one in fleet.client.batches.list(limit=1)]
    events = [entry for entry in fleet.plane.get("/api/events?limit=1000")["events"] if entry["key"] == batch.id]
    assert [entry["kind"] for entry in events] == ["batch_completed"]


def test_what_is_wrong_with_a_file_is_told_line_by_line_and_nothing_is_done(fleet: SmallFleet) -> None:
    lines = [
        line(1),
        line(1),
        line(2, url="/v1/completions"),
        line(3, method="GET"),
        line(4, model=""),
        {"custom_id": "five"},
        line(6) | {"body": {"model": "tiny", "messages": []}},
    ]
    batch = ended(fleet, send(fleet, lines))

    assert batch.status == "failed"
    assert batch.errors is not None
    assert [(error.line, error.code) for error in batch.errors.data or ()] == [
        (2, "duplicate_custom_id"),
        (3, "mismatched_url"),
        (4, "invalid_method"),
        (5, "missing_required_parameter"),
        (6, "invalid_request"),
        (7, "invalid_request"),
    ]
    with pytest.raises(openai.APIStatusError):
        fleet.client.batches.cancel(batch.id)


def test_what_no_file_can_be(fleet: SmallFleet) -> None:
    with pytest.raises(openai.NotFoundError):
        fleet.client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        send(fleet, [line(1)], endpoint="/v1/responses")
    with pytest.raises(openai.BadRequestError, match="completion_window"):
        send(fleet, [line(1)], window="soon")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        fleet.client.files.create(file=b"x", purpose="vision")
    empty = ended(fleet, send(fleet, []))
    assert empty.errors is not None
    assert [error.code for error in empty.errors.data or ()] == ["empty_file"]


def test_files_come_and_go(fleet: SmallFleet) -> None:
    file = fleet.client.files.create(file=("a b.jsonl", b'{"a":1}\n'), purpose="batch")
    assert (file.filename, file.bytes, file.status) == ("a b.jsonl", 8, "processed")
    assert fleet.client.files.content(file.id).text == '{"a":1}\n'
    assert fleet.client.files.retrieve(file.id) == file
    assert fleet.client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        fleet.client.files.retrieve(file.id)


def test_a_batch_that_nobody_can_do_expires_and_says_so_of_each_request(fleet: SmallFleet) -> None:
    batch = ended(fleet, send(fleet, [line(number, model="nobody-has-it") for number in range(3)], window="2s"))

    assert batch.status == "expired"
    assert batch.output_file_id is None
    assert [row["error"]["code"] for row in content(fleet, batch.error_file_id)] == ["batch_expired"] * 3


def test_a_cancelled_batch_ends_with_what_it_has(fleet: SmallFleet) -> None:
    batch = send(fleet, [line(number, tokens=64) for number in range(300)])
    until(fleet, batch, lambda seen: done(seen) >= 3)
    assert fleet.client.batches.cancel(batch.id).status == "cancelling"

    batch = ended(fleet, batch)

    assert batch.status == "cancelled"
    answers, errors = content(fleet, batch.output_file_id), content(fleet, batch.error_file_id)
    assert len(answers) >= 3
    assert {row["error"]["code"] for row in errors} == {"batch_cancelled"}
    assert sorted(row["custom_id"] for row in (*answers, *errors)) == sorted(f"request-{n}" for n in range(300))
    counts = fleet.plane.get("/api/jobs?limit=1")["counts"]
    assert counts["pending"] == counts["assigned"] == counts["in_progress"] == 0


def test_a_killed_control_plane_goes_on_where_it_was(fleet: SmallFleet) -> None:
    batch = send(fleet, [line(number, tokens=16) for number in range(250)])
    until(fleet, batch, lambda seen: done(seen) >= 20)
    fleet.plane.kill()
    fleet.plane.start()
    until(fleet, batch, lambda seen: done(seen) >= 120)
    fleet.plane.kill()
    fleet.plane.start()

    batch = ended(fleet, batch, 120)

    assert batch.status == "completed"
    rows = content(fleet, batch.output_file_id)
    assert [row["custom_id"] for row in rows] == [f"request-{number}" for number in range(250)]
    assert len({row["response"]["request_id"] for row in rows}) == 250


class Crowd:
    """People who chat one answer after the other, until it is over."""

    def __init__(self, fleet: SmallFleet, people: int) -> None:
        self.answers = 0
        self._fleet = fleet
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._chat) for _ in range(people)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def waiting(self) -> int:
        return sum(line["waiting"] for line in self._fleet.plane.get("/api/v1/gateway")["lines"])

    def _chat(self) -> None:
        messages: Any = [{"role": "user", "content": "Tell."}]
        while not self._over.is_set():
            self._fleet.client.chat.completions.create(model="tiny", messages=messages, max_tokens=200)
            self.answers += 1


def test_a_batch_waits_while_people_have_the_engine_and_goes_on_when_they_are_gone(fleet: SmallFleet) -> None:
    # Two more than the engine has slots: when one has an answer, the next in line has the slot.
    with Crowd(fleet, SLOTS + 2) as crowd:
        eventually_sync(lambda: crowd.waiting > 0, 30)
        batch = send(fleet, [line(number) for number in range(60)])
        until(fleet, batch, lambda seen: seen.status == "in_progress")
        before = crowd.answers
        eventually_sync(lambda: crowd.answers >= before + 20, 60)
        counts = fleet.plane.get("/api/jobs?limit=1")["counts"]
        assert done(fleet.client.batches.retrieve(batch.id)) == 0
        assert counts["pending"] == counts["in_progress"] == 0  # nothing of it is even in line

    batch = ended(fleet, batch)
    assert (batch.status, done(batch)) == ("completed", 60)

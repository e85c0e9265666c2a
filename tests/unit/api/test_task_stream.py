import json
from typing import Any

import pytest

from muster.api.task_stream import Follower
from muster.domain.job import Job, JobError, JobSpec, JobState, JobStatus, Progress, encode_result
from muster.ids import JobId


def job(status: JobStatus, *, attempt: int = 1, **fields: Any) -> Job:
    spec = JobSpec(job_id=JobId("t1"), service_required="openai")
    return Job(spec=spec, state=JobState(status=status, attempt=attempt, started_at=1000, **fields))


def running(text: str, at: int = 0, attempt: int = 1) -> Job:
    return job(JobStatus.IN_PROGRESS, attempt=attempt, progress=Progress(text=text, text_at=at))


def completed(result: Any) -> Job:
    return job(JobStatus.COMPLETED, completed_at=1500, result=encode_result(result))


def told(follower: Follower, seen: Job, **options: Any) -> list[tuple[str, Any]]:
    frames = b"".join(follower.take(seen, **options)).decode().split("\n\n")
    lines = [dict(line.split(": ", 1) for line in frame.split("\n")) for frame in frames if frame]
    return [(each["event"], json.loads(each["data"])) for each in lines]


def test_each_report_tells_only_what_is_new() -> None:
    follower = Follower(None)
    assert told(follower, running("one ")) == [("token", {"t": "one ", "i": 0})]
    assert told(follower, running("one ")) == []
    assert told(follower, running("one two")) == [("token", {"t": "two", "i": 1})]


def test_what_the_window_has_passed_comes_with_the_result() -> None:
    follower = Follower(None)
    told(follower, running("abc"))
    assert told(follower, running("xyz", at=10)) == []
    end = told(follower, completed({"text": "abc..........xyz"}))
    assert end[0] == ("token", {"t": "..........xyz", "i": 1})
    assert end[1] == ("end", {"task_id": "t1", "tokens_out": None, "decode_time_ms": 500})
    assert follower.done


@pytest.mark.parametrize(
    "result",
    [
        {"choices": [{"message": {"content": "hi"}}], "usage": {"completion_tokens": 2}},
        {"choices": [{"text": "hi"}], "usage": {"completion_tokens": 2}},
    ],
)
def test_the_text_of_an_answer_is_found_in_either_form(result: Any) -> None:
    events = told(Follower(None), completed(result))
    assert events[0] == ("token", {"t": "hi", "i": 0})
    assert events[1][1]["tokens_out"] == 2


@pytest.mark.parametrize("result", [{"data": [1]}, [1], None, {"choices": []}, {"choices": [7]}, {"choices": "x"}])
def test_a_result_that_is_no_text_comes_whole_at_the_end(result: Any) -> None:
    ((name, data),) = told(Follower(None), completed(result))
    assert (name, data["result"]) == ("end", result)


@pytest.mark.parametrize(
    ("seen", "code", "retriable"),
    [
        (job(JobStatus.FAILED, error=JobError(code="oom", message="no room", retriable=False)), "oom", False),
        (job(JobStatus.TIMEOUT), "timeout", False),
        (job(JobStatus.CANCELLED, error=JobError(code="of_before", message="x")), "cancelled", False),
    ],
)
def test_whatever_else_ends_a_task_is_one_error(seen: Job, code: str, *, retriable: bool) -> None:
    follower = Follower(None)
    ((name, data),) = told(follower, seen)
    assert (name, data["code"], data["retriable"]) == ("error", code, retriable)
    assert follower.done


def test_after_a_cancel_text_is_kept_back() -> None:
    assert told(Follower(None), running("one"), tokens=False) == []


def test_another_attempt_is_not_joined_to_what_was_told() -> None:
    follower = Follower(None)
    told(follower, running("one"))
    ((name, data),) = told(follower, running("eins", attempt=2))
    assert (name, data["code"]) == ("error", "restarted")


def test_another_attempt_before_the_first_word_is_nobodys_loss() -> None:
    follower = Follower(None)
    assert told(follower, job(JobStatus.PENDING)) == []
    assert told(follower, running("eins", attempt=2)) == [("token", {"t": "eins", "i": 0})]


@pytest.mark.parametrize("last_event_id", ["", "x", "1", "1.", ".5", "-1.2", "1.2.3", "²٣.1"])
def test_an_id_that_is_not_ours_begins_at_the_start(last_event_id: str) -> None:
    assert told(Follower(last_event_id), running("one")) == [("token", {"t": "one", "i": 0})]

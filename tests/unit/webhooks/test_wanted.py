"""What a webhook may be, and what it is told of."""

import random

import pytest

from muster.domain.event import Event, LoggedEvent
from muster.domain.job import Job, JobSpec, JobState
from muster.domain.webhook import HookState, JobHooks, Webhook
from muster.errors import InvalidInput
from muster.ids import JobId
from muster.webhooks.address import why_not
from muster.webhooks.wanted import (
    EVENTS,
    Wanted,
    deliveries_of,
    make_webhook,
    needs_jobs,
    order,
    own_deliveries_of,
    own_hook,
    secret_of,
)

URL = "https://receiver.example/in"


def made(url: str = URL, *, private: bool = False, since: str = "0", seed: int = 1, **fields: object) -> Webhook:
    wanted = Wanted(url=url, **fields)  # type: ignore[arg-type]  # a test's own shorthand
    return make_webhook(wanted, since=since, now_ms=7, rng=random.Random(seed), owner="t", private=private)


def told(kind: str, *ids: str, place: str = "5-0") -> LoggedEvent:
    return LoggedEvent(id=place, event=Event(kind=kind, key=ids[0], at_ms=3, ids=ids if len(ids) > 1 else ()))


def job(job_id: str, **fields: object) -> Job:
    base: dict[str, object] = {"service_required": "llm"}
    spec = JobSpec(job_id=JobId(job_id), **(base | fields))  # type: ignore[arg-type]  # as above
    return Job(spec=spec, state=JobState())


def subjects(entry: LoggedEvent, hooks: list[Webhook], *jobs: Job, **states: HookState) -> list[tuple[str, str]]:
    known = {one.job_id: one for one in jobs}
    found = deliveries_of(entry, hooks, states, lambda job_id: known.get(JobId(job_id)), 9)
    return [(one.kind, one.subject) for one in found]


def test_a_webhook_hears_of_everything_final_unless_it_says_what() -> None:
    assert made().events == EVENTS
    assert made(events=["job_failed", "job_failed", "job_timeout"]).events == ("job_failed", "job_timeout")


def test_secrets_are_long_and_of_chance() -> None:
    secrets = {made(seed=seed).secret for seed in range(20)}
    assert len(secrets) == 20
    assert all(secret.startswith("whsec_") and len(secret) > 45 for secret in secrets)


@pytest.mark.parametrize("events", [[], ["job_retrying"], ["job_completed", "everything"]])
def test_what_is_not_final_cannot_be_asked_for(events: list[str]) -> None:
    with pytest.raises(InvalidInput, match="job_completed") as caught:
        made(events=events)
    assert caught.value.field == "events"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "receiver.example/in",
        "ftp://receiver.example",
        "https://",
        "https://user:secret@receiver.example",
        "https://receiver.example:99999/",
        "https://receiver.example:0/",
        "https://receiver.example/#there",
        "https://receiver.example/\r\nHost: other",
        "https://receiver.example/a b",
        "https://[::1",
        "https://receiver.example/" + "a" * 3000,
    ],
)
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        made(url, private=True)
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "db.internal",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
        ),
        *(
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "[::1]",
            "[fe80::1]",
            "[fc00::1]",
            "[::ffff:10.0.0.1]",
        ),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
    ],
)
def test_our_own_networks_are_refused_unless_the_setting_allows_them(host: str) -> None:
    with pytest.raises(InvalidInput, match="webhook_private_addresses"):
        made(f"http://{host}:8080/in")
    assert made(f"http://{host}:8080/in", private=True).url


@pytest.mark.parametrize("host", ["1.1.1.1", "[2606:4700::1111]", "receiver.example", "internal.example"])
def test_public_addresses_are_taken(host: str) -> None:
    assert made(f"https://{host}/in").url


def test_what_is_no_address_is_not_public_either() -> None:
    assert why_not("nonsense") == "nonsense is no address"
    assert why_not("fe80::1%eth0")
    assert why_not("1.1.1.1") is None


def test_each_job_of_an_entry_is_told_by_itself() -> None:
    assert subjects(told("job_completed", "a", "b"), [made()]) == [("job_completed", "a"), ("job_completed", "b")]


def test_lesson_a_failure_that_is_tried_again_is_told_to_nobody() -> None:
    for kind in ("job_retrying", "job_returned", "job_claimed", "job_submitted", "node_registered"):
        assert subjects(told(kind, "a"), [made()]) == []


def test_what_was_not_asked_for_is_not_told() -> None:
    assert subjects(told("job_completed", "a"), [made(events=["job_failed"])]) == []


def test_what_happened_before_the_webhook_was_made_is_not_told() -> None:
    hook = made(since="5-9")
    assert subjects(told("job_failed", "a", place="5-9"), [hook]) == []
    assert subjects(told("job_failed", "a", place="5-10"), [hook]) == [("job_failed", "a")]


def test_a_paused_webhook_is_told_nothing_new() -> None:
    hook = made()
    assert subjects(told("job_failed", "a"), [hook], **{hook.webhook_id: HookState(paused="it failed")}) == []


def test_all_filters_that_are_set_must_fit() -> None:
    hook = made(service="llm", customer_id="c")
    fits, other = job("a", customer_id="c"), job("b", customer_id="d")

    assert subjects(told("job_failed", "a", "b"), [hook], fits, other) == [("job_failed", "a")]
    assert subjects(told("job_failed", "gone"), [hook]) == []
    assert needs_jobs([hook], "job_failed")
    assert not needs_jobs([hook], "job_claimed")
    assert not needs_jobs([made()], "job_failed")


def test_a_batch_is_told_to_whom_listens_to_all_or_to_its_workflow() -> None:
    entry = told("batch_completed", "batch-1")
    assert subjects(entry, [made()]) == [("batch_completed", "batch-1")]
    assert subjects(entry, [made(workflow_id="batch-1")]) == [("batch_completed", "batch-1")]
    assert subjects(entry, [made(workflow_id="batch-2"), made(service="openai"), made(customer_id="c")]) == []


def test_a_workflow_is_told_to_whom_listens_to_all_or_to_it() -> None:
    entry = told("workflow_failed", "w")
    assert subjects(entry, [made()]) == [("workflow_failed", "w")]
    assert subjects(entry, [made(workflow_id="w")]) == [("workflow_failed", "w")]
    assert subjects(entry, [made(workflow_id="v"), made(service="openai"), made(customer_id="c")]) == []


def test_a_jobs_own_address_is_told_of_its_end_alone() -> None:
    hooks = JobHooks(since="5-0", secret="s")
    found = {"a": job("a", webhook_url="https://x.example/a", submitted_by="t"), "b": job("b")}

    def own(entry: LoggedEvent) -> list[tuple[str, str | None, str | None]]:
        return [(one.subject, one.url, one.owner) for one in own_deliveries_of(entry, hooks, found.get, 9)]

    assert own(told("job_failed", "a", "b", "gone", place="6-0")) == [("a", "https://x.example/a", "t")]
    assert own(told("job_failed", "a", place="5-0")) == []
    assert own(told("job_retrying", "a", place="6-0")) == []


def test_every_submitter_has_a_secret_of_his_own() -> None:
    hooks = JobHooks(since="0", secret="s")
    assert len({secret_of(hooks, owner) for owner in (None, "a", "b")}) == 3
    assert secret_of(hooks, "a") == secret_of(hooks, "a") != secret_of(JobHooks(since="0", secret="t"), "a")


def test_the_same_fact_has_the_same_delivery_id_and_another_fact_another() -> None:
    hook = made()

    def ids(entry: LoggedEvent) -> set[str]:
        return {one.delivery_id for one in deliveries_of(entry, [hook], {}, lambda _: None, 9)}

    first = ids(told("job_failed", "a", "b"))
    assert len(first) == 2
    assert ids(told("job_failed", "a", "b")) == first
    assert not ids(told("job_failed", "a", "b", place="6-0")) & first  # revived, and failed again


def test_places_in_the_log_are_compared_as_numbers() -> None:
    assert order("10-2") < order("10-10") < order("11") < order("100-0")


def test_what_goes_to_the_address_of_a_job_is_signed_by_the_secret_of_who_submitted_it() -> None:
    hooks = JobHooks(secret="s", since="4-0")
    (delivery,) = own_deliveries_of(
        told("job_completed", "a"), hooks, lambda _: job("a", webhook_url=URL, submitted_by="ci"), now_ms=9
    )
    hook = own_hook(hooks, delivery)
    assert (hook.url, hook.secret, hook.since) == (URL, secret_of(hooks, "ci"), "4-0")

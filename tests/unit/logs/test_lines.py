"""A log's bytes as lines: their times, their levels, and nothing that harms whoever looks."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from muster.logs.lines import LINE_BYTES_MAX, believed, pieces, readable, told_by

AT_MS = round(datetime(2026, 1, 31, 12, 30, 15, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "at_ms", "level"),
    [
        ("2026-01-31T12:30:15Z started", AT_MS, None),
        ("2026-01-31T13:30:15.250+01:00 started", AT_MS + 250, None),
        ("[2026-01-31 12:30:15,042] ERROR in app: broke", AT_MS + 42, "error"),
        ("INFO: 2026-01-31 12:30:15 up", AT_MS, "info"),
        ("[INFO] 2026-01-31 12:30:15.5 up", AT_MS + 500, "info"),
        ('{"timestamp":"2026-01-31T12:30:15.000Z","level":"warning","event":"x"}', AT_MS, "warning"),
        (f'{{"ts": {AT_MS / 1000}, "severity": "CRITICAL"}}', AT_MS, "error"),
        (f'{{"time": {AT_MS}}}', AT_MS, None),
        ("12:M 31 Jan 2026 12:30:15.007 * Ready to accept connections", AT_MS + 7, None),
        ("level=warn msg=slow", None, "warning"),
        ("[debug] looking", None, "debug"),
        ("the job of 2026-01-31T12:30:15Z was late", None, None),
        ("2026-02-31 12:30:15 no such day", None, None),
        ("a sentence about an error", None, None),
        ('{"timestamp": true, "level": 7}', None, None),
        ("{not json", None, None),
        ("[1, 2]", None, None),
        ("", None, None),
    ],
)
def test_a_line_tells_its_time_and_level_at_its_beginning(text: str, at_ms: int | None, level: str | None) -> None:
    assert told_by(text) == (at_ms, level)


@pytest.mark.parametrize(
    ("own_ms", "seen_ms", "told"),
    [
        (1000, 5000, (1000, False)),
        (None, 5000, (5000, True)),
        (1000, None, (1000, False)),
        (None, None, (None, False)),
        (9000, 5000, (5000, True)),  # it would have been read before it was written
    ],
)
def test_a_time_is_the_lines_own_unless_that_cannot_be(
    own_ms: int | None, seen_ms: int | None, told: tuple[int | None, bool]
) -> None:
    assert believed(own_ms, seen_ms) == told


def test_what_is_shown_does_nothing_to_a_terminal() -> None:
    raw = b"\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \x00nul \x9b2J tab\there"
    assert readable(raw) == "red bell\ufffd \ufffdnul \ufffd2J tab\there"


@pytest.mark.parametrize(
    "secret",
    [
        "Authorization: Bearer hunter2hunter2",
        "connecting to redis://:hunter2@cache:6379/0",
        "amqp://user:hunter2@broker/agents",
        "https://someone:p@hunter2@example.org/x",
        "api_key=hunter2",
        '"password": "hunter2"',
        "MUSTER_TOKEN=hunter2",
        "mst_ab12_hunter2",
        "GET /x?token=hunter2",
        "hf_hunter2hunter2hunter2",
    ],
)
def test_no_secret_is_shown(secret: str) -> None:
    assert "hunter2" not in readable(secret.encode())


def test_lines_end_at_line_ends_carriage_returns_and_where_they_are_too_long() -> None:
    assert list(pieces(b"one\r\ntwo\n\n 10%\r 20%\rthree")) == [
        (0, b"one"),
        (5, b"two"),
        (10, b" 10%"),
        (15, b" 20%"),
        (20, b"three"),
    ]
    assert [len(piece) for _, piece in pieces(b"x" * (LINE_BYTES_MAX + 5))] == [LINE_BYTES_MAX, 5]

"""What was used, on the command line: a table, JSON of all pages, or CSV."""

import json
from typing import Any

from tests.unit.cli.conftest import Cli
from tests.unit.cli.stub_plane import Reply, StubPlane

PATH = "/api/v1/usage"
ROW: dict[str, Any] = {
    "at": None,
    "token": "abc",
    "token_name": "shop",
    "model": "llama3",
    "requests": 12,
    "requests_estimated": 2,
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "tokens": 150,
    "worker_s": 61.0,
    "watt_hours": 1.25,
}


def page(*rows: dict[str, Any], total: int) -> Reply:
    return Reply({"usage": list(rows), "page": 1, "limit": 1000, "total": total})


def test_usage_is_a_table_of_tokens_and_models(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", PATH, page(ROW, ROW | {"token": "anonymous", "token_name": None, "watt_hours": None}, total=2))

    out = cli("usage", "--from", "2026-03-01", "--to", "2026-04-01").out

    for shown in ("shop (abc)", "anonymous", "llama3", "12 (2 estimated)", "150", "1.2 Wh"):
        assert shown in out
    (asked,) = plane.asked(PATH)
    assert (asked.query["from"], asked.query["to"], asked.query["by"]) == ("2026-03-01", "2026-04-01", "token,model")


def test_all_pages_are_read(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", PATH, page(*[ROW] * 1000, total=1001), page(ROW, total=1001))

    assert len(json.loads(cli("usage", "--json").out)) == 1001
    assert [asked.query["page"] for asked in plane.asked(PATH)] == ["1", "2"]


def test_only_what_is_told_apart_has_a_column(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", PATH, page(ROW | {"at": "2026-03-01", "token": None, "model": None}, total=1))

    out = cli("usage", "--by", "day").out
    assert "2026-03-01" in out
    assert "model" not in out


def test_nothing_used_is_said(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", PATH, page(total=0))

    assert "Nothing was used" in cli("usage").out


def test_csv_is_passed_on_as_it_comes(plane: StubPlane, cli: Cli) -> None:
    plane.on("GET", PATH, Reply(frames=[b"at,token\n", b"2026-03-01,abc\n"]))

    assert cli("usage", "--csv", "--by", "token").out == "at,token\n2026-03-01,abc\n"
    (asked,) = plane.asked(PATH)
    assert (asked.query["format"], asked.query["by"]) == ("csv", "token")

"""Usage over HTTP, and what tokens may use."""

import csv
import io
from typing import Any

import pytest

from muster.access.roles import Role
from muster.access.tokens import Wanted
from muster.domain.usage import Use
from muster.metrics import Metric
from tests.integration.api.conftest import Served

DAY_S = 86_400.0


def take(served: Served, token: str = "t1", model: str = "m", *, energy_mwh: int | None = 1500) -> None:
    served.plane.metering.take(
        Use(
            token=token,
            model=model,
            prompt_tokens=3,
            completion_tokens=4,
            worker_ms=2500,
            energy_mwh=energy_mwh,
            estimated=energy_mwh is None,
        )
    )


async def usage(served: Served, query: str = "") -> dict[str, Any]:
    async with served.client.get(f"/api/v1/usage{query}") as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


async def test_usage_is_summed_by_what_is_asked_for(served: Served) -> None:
    plane = served.plane
    token, _ = await plane.access.create(Wanted(name="boss", role=Role.ADMIN))
    await plane.access.revoke(token.token_id)
    take(served)
    take(served, model="other", energy_mwh=None)
    await plane.metering.sync()
    plane.clock.advance(DAY_S)
    take(served)
    await plane.metering.sync()

    (all_,) = (await usage(served, "?by="))["usage"]
    assert all_ == {
        "at": None,
        "token": None,
        "token_name": None,
        "model": None,
        "requests": 3,
        "requests_estimated": 1,
        "prompt_tokens": 9,
        "completion_tokens": 12,
        "tokens": 21,
        "worker_s": 7.5,
        "watt_hours": 3.0,
    }
    by_model = (await usage(served, "?by=model"))["usage"]
    assert [(row["model"], row["requests"], row["watt_hours"]) for row in by_model] == [
        ("m", 2, 3.0),
        ("other", 1, None),
    ]
    days = [row["at"] for row in (await usage(served, "?by=day"))["usage"]]
    assert len(days) == 2
    assert [row["at"] for row in (await usage(served, f"?by=day&from={days[1]}"))["usage"]] == days[1:]
    assert [row["at"] for row in (await usage(served, f"?by=day&to={days[1]}"))["usage"]] == days[:1]
    (hour,) = (await usage(served, f"?by=hour&from={days[1]}T00:00:00Z"))["usage"]
    assert hour["at"].startswith(days[1])
    second = await usage(served, "?page=2&limit=2")
    assert (len(second["usage"]), second["total"], second["page"]) == (1, 3, 2)


@pytest.mark.parametrize(
    ("query", "headers"), [("?format=csv", {}), ("", {"Accept": "text/csv"}), ("?format=csv&limit=1", {})]
)
async def test_usage_comes_as_csv_whole_and_harmless(served: Served, query: str, headers: dict[str, str]) -> None:
    take(served)
    take(served, model="=1+1", energy_mwh=None)
    await served.plane.metering.sync()
    async with served.client.get(f"/api/v1/usage{query}", headers=headers) as answer:
        assert answer.content_type == "text/csv"
        rows = list(csv.DictReader(io.StringIO(await answer.text())))

    assert [(row["model"], row["tokens"], row["watt_hours"]) for row in rows] == [
        ("'=1+1", "7", ""),
        ("m", "7", "1.5"),
    ]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?by=worker", "by"),
        ("?from=yesterday", "from"),
        ("?to=x", "to"),
        ("?format=xml", "format"),
        ("?to=1990-01-01&from=1991-01-01", "from"),
    ],
)
async def test_what_is_not_understood_is_named(served: Served, query: str, field: str) -> None:
    async with served.client.get(f"/api/v1/usage{query}") as answer:
        assert (answer.status, (await answer.json())["field"]) == (400, field)


async def test_an_allowance_is_changed_shown_and_checked(served: Served) -> None:
    made = {"name": "shop", "role": "admin", "allowance": {"models": ["a*"], "tokens_per_day": 10}}
    async with served.client.post("/api/v1/tokens", json=made) as answer:
        about = await answer.json()
    headers = {"Authorization": f"Bearer {about['token']}"}
    path = f"/api/v1/tokens/{about['about']['id']}/allowance"
    assert about["about"]["allowance"] == {"models": ["a*"], "tokens_per_day": 10}
    take(served, about["about"]["id"])

    async with served.client.put(path, json={"models": ["b"], "requests_per_min": 5}, headers=headers) as answer:
        changed = await answer.json()
    assert changed["allowance"] == {"models": ["b"], "requests_per_min": 5}
    assert changed["used"] == {"tokens_today": 7, "tokens_this_month": 7, "requests_left": 5, "tokens_left": None}
    async with served.client.get("/api/v1/tokens", headers=headers) as answer:
        assert (await answer.json())[0]["used"] == changed["used"]
    for body, field in (({"tokens_per_day": 0}, "allowance.tokens_per_day"), ({"tokens": 1}, "tokens")):
        async with served.client.put(path, json=body, headers=headers) as answer:
            assert answer.status == 400
            assert (await answer.json()).get("field") == field
    async with served.client.put("/api/v1/tokens/none/allowance", json={}, headers=headers) as answer:
        assert answer.status == 404


async def test_tokens_are_counted_for_prometheus(served: Served) -> None:
    take(served)
    await served.plane.metering.sync()
    metrics: dict[str, Metric] = {metric.family.name: metric for metric in served.plane.metering.metrics()}

    assert list(metrics["muster_gateway_tokens_total"].samples) == [
        ("", ("t1", "m", "prompt"), 3),
        ("", ("t1", "m", "completion"), 4),
    ]
    ((_, labels, joules),) = metrics["muster_gateway_energy_joules_total"].samples
    assert (labels, joules) == (("m",), 5400)

import sys
import time
from typing import Annotated
from urllib.parse import quote

import typer

from muster.access.roles import Role
from muster.cli.client import Client
from muster.cli.options import AsJson, ServerUrl
from muster.cli.tables import Column, Row, ago, duration, print_json, show_rows
from muster.errors import InvalidInput

token = typer.Typer(no_args_is_help=True, help="Make, list and revoke tokens: who may do what.")

ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="GLOB", help="A model that it may use, or a glob; repeat it. Otherwise all."),
]
RequestsOption = Annotated[int | None, typer.Option(metavar="N", help="Requests to models per minute.")]
PerMinuteOption = Annotated[int | None, typer.Option(metavar="N", help="Tokens per minute.")]
PerDayOption = Annotated[int | None, typer.Option(metavar="N", help="Tokens per day (UTC).")]
PerMonthOption = Annotated[int | None, typer.Option(metavar="N", help="Tokens per month (UTC).")]
WeightOption = Annotated[
    float | None, typer.Option(metavar="N", help="Its share of turns where requests wait; otherwise 1.")
]
PriorityOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Priority of its requests, 0 to 100: what they have, and the most they may ask for."
    ),
]

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_ONCE = "It is shown this once. Whoever uses it sets MUSTER_TOKEN to it, or sends it as `Authorization: Bearer …`."
_JOIN = "It is shown this once. A machine joins with it: MUSTER_TOKEN=… muster agent --control-plane URL"


@token.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is: letters, digits and ._:-")],
    role: Annotated[Role, typer.Option(help="What it may do.")],
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it counts: 90s, 30m, 12h, 30d; otherwise for ever.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="N", help="Requests per second; 0: any number. Otherwise as the server has it."),
    ] = None,
    node: Annotated[
        str | None, typer.Option(metavar="ID", help="The one node that it speaks for (role agent).")
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="For machines to join with: each makes itself a token of its own by it.")
    ] = False,
    uses: Annotated[
        int | None, typer.Option(metavar="N", help="How many machines may join with it; otherwise one.")
    ] = None,
    model: ModelOption = None,
    requests_per_min: RequestsOption = None,
    tokens_per_min: PerMinuteOption = None,
    tokens_per_day: PerDayOption = None,
    tokens_per_month: PerMonthOption = None,
    weight: WeightOption = None,
    priority: PriorityOption = None,
    as_json: AsJson = False,
    server: ServerUrl = None,
) -> None:
    """Make a token and print it, this once."""
    wanted: dict[str, object] = {
        "name": name,
        "role": role.value,
        "expires_in_s": None if expires is None else _seconds(expires),
        "requests_per_s": rate,
        "node_id": node,
        "joins": join,
        "uses_max": uses,
    }
    limits = (requests_per_min, tokens_per_min, tokens_per_day, tokens_per_month, weight, priority)
    if allowance := _allowance(model, *limits):
        wanted["allowance"] = allowance
    made = Client.find(server).post("/api/v1/tokens", wanted)
    if as_json:
        print_json(made)
        return
    print(made["token"])
    print(_JOIN if join else _ONCE, file=sys.stderr)


@token.command("list")
def list_tokens(as_json: AsJson = False, server: ServerUrl = None) -> None:
    """List all tokens, without their secrets."""
    rows = Client.find(server).get("/api/v1/tokens")
    if as_json:
        print_json(rows)
        return
    show_rows(rows, _COLUMNS, empty="No tokens. The first is an admin's: muster token create NAME --role admin")


@token.command()
def allow(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="Its id (muster token list).")],
    model: ModelOption = None,
    requests_per_min: RequestsOption = None,
    tokens_per_min: PerMinuteOption = None,
    tokens_per_day: PerDayOption = None,
    tokens_per_month: PerMonthOption = None,
    weight: WeightOption = None,
    priority: PriorityOption = None,
    server: ServerUrl = None,
) -> None:
    """Set which models a token may use, how much, and how it waits; what is not given is as with a new token."""
    allowance = _allowance(model, requests_per_min, tokens_per_min, tokens_per_day, tokens_per_month, weight, priority)
    path = f"/api/v1/tokens/{quote(token_id, safe='')}/allowance"
    changed, _ = Client.find(server).request("PUT", path, body=allowance)
    print(f"{token_id} may use {_models(changed) or 'all models'}, {_limits(changed) or 'as much as it wants'}.")


@token.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="Its id (muster token list).")],
    server: ServerUrl = None,
) -> None:
    """Revoke a token: within a second it counts no more."""
    Client.find(server).request("DELETE", f"/api/v1/tokens/{quote(token_id, safe='')}")
    print(f"{token_id} is revoked.")


def _allowance(models: list[str] | None, *limits: float | None) -> dict[str, object]:
    """Return what was given; the limits in the order of their names."""
    names = ("requests_per_min", "tokens_per_min", "tokens_per_day", "tokens_per_month", "weight", "priority")
    given: dict[str, object] = {name: limit for name, limit in zip(names, limits, strict=True) if limit is not None}
    return given | ({"models": models} if models else {})


def _seconds(text: str) -> float:
    try:
        return float(text[:-1]) * _UNITS_S[text[-1:]]
    except (KeyError, ValueError):
        raise InvalidInput(f"--expires is a time like 90s, 30m, 12h or 30d, not {text!r}", field="expires") from None


def _expiry(row: Row) -> str:
    at_ms = row["expires_at"]
    if at_ms is None:
        return "never"
    return "expired" if row["expired"] else f"in {duration(at_ms / 1000 - time.time())}"


def _joins(row: Row) -> str | None:
    return f"{row['uses']} of {row['uses_max']} joined" if row["joins"] else row["node_id"]


def _rate(row: Row) -> str | None:
    return None if row["requests_per_s"] is None else f"{row['requests_per_s']:g}/s"


def _models(row: Row) -> str | None:
    return ", ".join(row["allowance"].get("models", ())) or None


def _limits(row: Row) -> str | None:
    allowance, used = row["allowance"], row["used"]
    told = [
        f"{allowance[name]} {words}"
        for name, words in (("requests_per_min", "requests/min"), ("tokens_per_min", "tokens/min"))
        if allowance.get(name)
    ]
    told += [
        f"{used[had]} of {allowance[name]} {words}"
        for name, had, words in (
            ("tokens_per_day", "tokens_today", "tokens today"),
            ("tokens_per_month", "tokens_this_month", "tokens this month"),
        )
        if used and allowance.get(name)
    ]
    told += [f"{name} {allowance[name]:g}" for name in ("weight", "priority") if allowance.get(name) is not None]
    return ", ".join(told) or None


_COLUMNS = (
    Column("id", lambda row: row["id"]),
    Column("name", lambda row: row["name"]),
    Column("role", lambda row: row["role"]),
    Column("node", _joins),
    Column("rate", _rate),
    Column("models", _models),
    Column("limits", _limits),
    Column("created", lambda row: ago(row["created_at"])),
    Column("expires", _expiry),
    Column("last used", lambda row: ago(row["last_used_at"])),
)

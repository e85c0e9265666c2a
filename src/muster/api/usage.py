"""What was used, by whom: as pages of JSON, or as CSV for a spreadsheet."""

import csv
import io
from datetime import UTC, datetime
from typing import Annotated

from litestar import Response, get
from litestar.enums import MediaType
from litestar.params import FromQuery, QueryParameter
from msgspec import Struct
from msgspec.structs import asdict

from muster.api.lists import Limit, Page, paged
from muster.api.plane import AnyRequest, Plane, ThePlane
from muster.domain.usage import By, Sum
from muster.errors import InvalidInput

_CSV = "text/csv"
_FORMATS = ("json", "csv")

_Since = Annotated[
    str | None,
    QueryParameter(name="from", max_length=40, description="First day or hour: 2026-03-01 or 2026-03-01T10:00:00Z."),
]
_Until = Annotated[
    str | None, QueryParameter(name="to", max_length=40, description="The end; this itself is left out.")
]
_By = Annotated[
    str, QueryParameter(max_length=40, description="What to tell apart, with commas: token, model, day, hour.")
]
_Format = Annotated[
    str | None, QueryParameter(name="format", max_length=8, description="json or csv; otherwise as Accept has it.")
]


class UsageRow(Struct, frozen=True, kw_only=True):
    """What is not told apart is null. `requests_estimated` are those whose tokens were counted here, not by the engine.

    `watt_hours` is an estimate, null where no power is known, and short of those requests whose power was not.
    """

    at: str | None
    token: str | None
    token_name: str | None
    model: str | None
    requests: int
    requests_estimated: int
    prompt_tokens: int
    completion_tokens: int
    tokens: int
    worker_s: float
    watt_hours: float | None


class UsageAnswer(Struct, frozen=True, kw_only=True):
    usage: list[UsageRow]
    page: int
    limit: int
    total: int


@get(
    "/api/v1/usage",
    tags=["tokens"],
    summary="What was used, summed by token, model, day or hour; CSV with `Accept: text/csv` or `format=csv`",
)
async def usage(
    plane: ThePlane,
    request: AnyRequest,
    since: FromQuery[_Since] = None,
    until: FromQuery[_Until] = None,
    by: FromQuery[_By] = "token,model,day",
    form: FromQuery[_Format] = None,
    page: FromQuery[Page] = 1,
    limit: FromQuery[Limit] = 1000,
) -> Response[UsageAnswer] | Response[str]:
    wanted = _parts_of(by)
    if form not in (None, *_FORMATS):
        raise InvalidInput(f"format must be json or csv, got {form!r}", field="format")
    sums = await plane.metering.read(_ms(since, "from"), _ms(until, "to"), wanted)
    rows = _rows(plane, sums, wanted)
    if form == "csv" or (form is None and request.headers.get("accept", "").startswith(_CSV)):
        return Response(
            _as_csv(rows),
            media_type=f"{_CSV}; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="usage.csv"'},
        )
    shown, headers = paged(rows, page, limit)
    answer = UsageAnswer(usage=shown, page=page, limit=limit, total=len(rows))
    return Response(answer, media_type=MediaType.JSON, headers=headers)


def _parts_of(text: str) -> list[By]:
    try:
        return [By(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InvalidInput(f"by is some of {', '.join(By)} with commas, got {text!r}", field="by") from None


def _ms(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{field} is a day or a time like 2026-03-01 or 2026-03-01T10:00:00Z, got {text!r}", field=field
        ) from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _rows(plane: Plane, sums: list[Sum], by: list[By]) -> list[UsageRow]:
    names = plane.access.names() if By.WHOSE in by else {}
    timed = By.DAY in by or By.HOUR in by
    return [
        UsageRow(
            at=_shown(one.at_ms, hourly=By.HOUR in by) if timed else None,
            token=one.token if By.WHOSE in by else None,
            token_name=names.get(one.token),
            model=one.model if By.MODEL in by else None,
            requests=one.requests,
            requests_estimated=one.estimated,
            prompt_tokens=one.prompt_tokens,
            completion_tokens=one.completion_tokens,
            tokens=one.prompt_tokens + one.completion_tokens,
            worker_s=one.worker_ms / 1000,
            watt_hours=one.energy_mwh / 1000 if one.metered else None,
        )
        for one in sums
    ]


def _shown(at_ms: int, *, hourly: bool) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%SZ}" if hourly else f"{at:%Y-%m-%d}"


def _as_csv(rows: list[UsageRow]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, UsageRow.__struct_fields__, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _inert(value) for name, value in asdict(row).items()})
    return out.getvalue()


def _inert(value: object) -> object:
    """Keep a spreadsheet from taking a model's name for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value

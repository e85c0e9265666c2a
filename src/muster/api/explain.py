"""Where a request for a model would go now, and what speaks against every other worker."""

import http
from typing import Annotated

from litestar import post
from litestar.params import JSONBody
from msgspec import Meta, Struct, field

from muster.api.plane import ThePlane
from muster.domain.service import Dialect
from muster.errors import MusterError
from muster.ids import NodeId
from muster.placement.candidate import Candidate
from muster.placement.filters import rejections
from muster.placement.refusal import no_candidate_error
from muster.placement.wish import Wish

_Text = Annotated[str, Meta(min_length=1, max_length=256)]


class PlacementWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request asks of a worker; what is left out asks for nothing. `dialect` is the caller's API."""

    model: _Text | None = None
    capability: _Text = "completion"
    dialect: Dialect | None = None
    pool: _Text | None = None
    node_id: _Text | None = None
    labels: dict[str, str] = field(default_factory=dict)
    min_memory_mb: Annotated[int, Meta(ge=0, le=2**40)] | None = None


class Reason(Struct, frozen=True, kw_only=True):
    filter: str
    reason: str


class Verdict(Struct, frozen=True, kw_only=True):
    """One worker; without reasons it could serve, and `rank` says when its turn would come, from 1 on."""

    key: str
    node_id: str
    service: str
    url: str
    rank: int | None
    resident: bool | None
    slots: int | None
    slots_busy: int | None
    memory_free_mb: int | None
    reasons: list[Reason]


class Refusal(Struct, frozen=True, kw_only=True):
    code: str
    message: str


class PlacementAnswer(Struct, frozen=True, kw_only=True):
    """`refusal` is what the caller would be told when nobody can serve."""

    chosen: str | None
    ranked: list[str]
    summary: str
    refusal: Refusal | None
    candidates: list[Verdict]


@post(
    "/api/v1/explain",
    tags=["fleet"],
    summary="Which worker a request would get now, and why not the others",
    status_code=http.HTTPStatus.OK,
)
async def explain_placement(plane: ThePlane, data: JSONBody[PlacementWish]) -> PlacementAnswer:
    wish = Wish(
        model=data.model,
        capability=data.capability,
        dialects=frozenset(Dialect) if data.dialect is None else frozenset({data.dialect}),
        pool=data.pool,
        node_id=None if data.node_id is None else NodeId(data.node_id),
        labels=data.labels,
        min_memory_mb=data.min_memory_mb,
    )
    decision = plane.decide(wish, None)
    ranks = {key: rank for rank, key in enumerate(decision.ranked, start=1)}
    verdicts = [_verdict(candidate, wish, ranks.get(candidate.key)) for candidate in plane.fleet.candidates()]
    verdicts.sort(key=lambda verdict: (verdict.rank is None, verdict.rank or 0, len(verdict.reasons), verdict.key))
    error = None if decision.chosen else no_candidate_error(wish, decision.rejections)
    return PlacementAnswer(
        chosen=None if decision.chosen is None else decision.chosen.key,
        ranked=list(decision.ranked),
        summary=_summary(decision.chosen, len(ranks), error),
        refusal=None if error is None else Refusal(code=error.code, message=error.message),
        candidates=verdicts,
    )


def _verdict(candidate: Candidate, wish: Wish, rank: int | None) -> Verdict:
    model = candidate.model(wish.model) if wish.model is not None else None
    return Verdict(
        key=candidate.key,
        node_id=candidate.node_id,
        service=candidate.service,
        url=candidate.url,
        rank=rank,
        resident=None if model is None else model.resident,
        slots=candidate.slots,
        slots_busy=candidate.slots_busy,
        memory_free_mb=candidate.memory_free_mb,
        reasons=[Reason(filter=entry.filter, reason=entry.reason) for entry in rejections(candidate, wish)],
    )


def _summary(chosen: Candidate | None, able: int, error: MusterError | None) -> str:
    if chosen is None:
        return error.message if error else "nobody can serve this"
    others = "no other worker could" if able == 1 else f"{able - 1} more could"
    return f"{chosen.key} would serve this; {others}"


HANDLERS = [explain_placement]

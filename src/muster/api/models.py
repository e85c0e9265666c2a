"""The models of the fleet: which node has what, who serves it, and how it gets from one place to another."""

import http
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from litestar import Response, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta, Struct

from muster.api.commands import CommandAnswer, SendCommand, answer_of, order_of
from muster.api.lists import Limit, Order, Page, TextSearch, ordered, paged, said
from muster.api.plane import Plane, TheCaller, ThePlane
from muster.domain.artifact import Artifact, ArtifactKind, ArtifactState
from muster.domain.model import Model, canonical_model_name
from muster.domain.node import Node
from muster.domain.service import ServiceStatus
from muster.domain.source import OllamaSource, canonical_name, parse_source
from muster.errors import InvalidInput, ModelNotFound
from muster.placement.filters import rejections
from muster.placement.wish import Wish

RESIDENT = "resident"
_ONE_SLASH = re.compile(r"^(https?:)/+")  # the framework takes two slashes in a path for one


class ModelHolder(Struct, frozen=True, kw_only=True):
    """Where a model is served; `reasons` say why a request would not go there now."""

    node_id: str
    service: str
    connector: str
    resident: bool | None
    url: str
    accepts_work: bool
    reasons: list[str]


class ModelCopy(Struct, frozen=True, kw_only=True):
    """A model, or a bundle, on one node.

    `state` is `fetching`, `on_disk`, `resident` (a service has it loaded) or `failed`. Times in ms since the epoch.
    """

    node_id: str
    state: str
    digest: str | None
    size_bytes: int | None
    fraction: float | None
    fetched_at: int | None
    last_used_at: int | None
    services: list[str]
    pinned: bool
    error: str | None


class FleetModel(Struct, frozen=True, kw_only=True):
    """`nodes` serve it, `copies` are all that there are of it; `replicated`: more than one node has it whole."""

    name: str
    kind: ArtifactKind
    capabilities: list[str]
    context_length: int | None
    size_bytes: int | None
    parameter_size: str | None
    quantization: str | None
    nodes: list[ModelHolder]
    copies: list[ModelCopy]
    replicated: bool


class ModelOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do with a model, and on which nodes: one of `nodes`, `pool`, `selector` and `all`."""

    model: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2048,
            description="https://HOST/FILE, hf:ORG/REPO[/FILE][@REVISION], ollama:NAME, a built-in name; to remove: a "
            "digest too.",
        ),
    ]
    nodes: Annotated[list[str] | None, Meta(description="Nodes by name.")] = None
    pool: Annotated[str | None, Meta(description="All nodes of this pool.")] = None
    selector: Annotated[str, Meta(max_length=1024, description="Nodes with these labels: `zone=a,gpu`.")] | None = None
    all: Annotated[bool, Meta(description="All nodes that are connected.")] = False
    service: Annotated[str | None, Meta(description="The service that is to do it, where it keeps its own.")] = None
    timeout: Annotated[float | None, Meta(description="Seconds until it expires.")] = None
    command_id: Annotated[str | None, Meta(description="An id of your own: a second time changes nothing.")] = None


_ORDERS: dict[str, Callable[[FleetModel], Any]] = {
    "name": lambda model: model.name,
    "size_bytes": lambda model: model.size_bytes,
    "context_length": lambda model: model.context_length,
    "nodes": lambda model: len(model.nodes),
    "copies": lambda model: len(model.copies),
}
_KNOWN_ID = {200: ResponseSpec(CommandAnswer, description="This command_id was known; nothing was changed")}


@get("/api/v1/models", tags=["fleet"], summary="Models, which nodes hold them, and who serves them")
async def models(
    plane: ThePlane,
    capability: FromQuery[str | None] = None,
    kind: FromQuery[ArtifactKind | None] = None,
    node: FromQuery[str | None] = None,
    served: FromQuery[bool | None] = None,
    q: TextSearch = None,
    sort: Order = None,
    page: Page = 1,
    limit: Limit = 1000,
) -> Response[list[FleetModel]]:
    found = [
        model
        for model in catalog(plane)
        if capability in (None, *model.capabilities)
        and kind in (None, model.kind)
        and served in (None, bool(model.nodes))
        and (node is None or any(copy.node_id == node for copy in model.copies))
        and said(q, model.name)
    ]
    shown, headers = paged(ordered(found, sort, _ORDERS), page, limit)
    return Response(shown, headers=headers)


@get("/api/v1/models/{name:path}", tags=["fleet"], summary="One model, by its name or the digest of a copy")
async def model(plane: ThePlane, name: FromPath[str]) -> FleetModel:
    wanted = _canonical(_ONE_SLASH.sub(r"\1//", name.removeprefix("/")))
    for known in catalog(plane):
        if known.name == wanted or any(copy.digest == wanted for copy in known.copies):
            return known
    raise ModelNotFound(f"no node of this fleet has a model {wanted!r}", field="name")


@post(
    "/api/v1/models/pull",
    tags=["fleet"],
    summary="Have nodes fetch a model: from another node, else from its source",
    status_code=http.HTTPStatus.ACCEPTED,
    responses=_KNOWN_ID,
)
async def pull_model(plane: ThePlane, caller: TheCaller, data: JSONBody[ModelOrder]) -> Response[CommandAnswer]:
    return await _issue(plane, caller.name, data, "pull_model", {})


@post(
    "/api/v1/models/copy",
    tags=["fleet"],
    summary="Have nodes fetch a model from those that have it, and from nowhere else",
    status_code=http.HTTPStatus.ACCEPTED,
    responses=_KNOWN_ID,
)
async def copy_model(plane: ThePlane, caller: TheCaller, data: JSONBody[ModelOrder]) -> Response[CommandAnswer]:
    source = parse_source(data.model)
    if source is None or isinstance(source, OllamaSource):
        raise InvalidInput(
            f"{data.model!r} is not kept by nodes themselves, so no node could give it to another: "
            "copy what was fetched from https:// or hf:",
            field="model",
        )
    held = [node for node in plane.fleet.nodes() if node.connected and source.name in _names_on_disk(node)]
    if not held:
        raise ModelNotFound(f"no connected node has {source.name!r}; pull fetches it from its source", field="model")
    return await _issue(plane, caller.name, data, "pull_model", {"from": "fleet"})


@post(
    "/api/v1/models/remove",
    tags=["fleet"],
    summary="Have nodes delete a model that nothing uses",
    status_code=http.HTTPStatus.ACCEPTED,
    responses=_KNOWN_ID,
)
async def remove_model(plane: ThePlane, caller: TheCaller, data: JSONBody[ModelOrder]) -> Response[CommandAnswer]:
    return await _issue(plane, caller.name, data, "remove_model", {})


HANDLERS = [models, model, pull_model, copy_model, remove_model]


async def _issue(
    plane: Plane, issued_by: str, data: ModelOrder, command: str, more: dict[str, str]
) -> Response[CommandAnswer]:
    parse_source(data.model)  # what could never be fetched is refused here, and not by each node
    args = {"model": data.model} | more | ({"service": data.service} if data.service else {})
    selector = data.selector if data.pool is None else f"pool={data.pool}"
    if data.pool is not None and data.selector is not None:
        raise InvalidInput("give one of pool and selector", field="pool")
    aims = [data.nodes is not None, selector is not None, data.all]
    if sum(aims) != 1:
        raise InvalidInput("say which nodes: one of nodes, pool, selector and all", field="nodes")
    single = data.nodes[0] if data.nodes is not None and len(data.nodes) == 1 else None
    asked = SendCommand(
        node_id="*" if data.all else single,
        nodes=None if single is not None else data.nodes,
        selector=selector,
        command=command,
        args=args,
        timeout=data.timeout,
        command_id=data.command_id,
    )
    issued = await plane.commands.issue(order_of(asked, issued_by))
    return Response(
        answer_of(issued.command_id, issued.commands, created=issued.created),
        status_code=http.HTTPStatus.ACCEPTED if issued.created else http.HTTPStatus.OK,
    )


# --- the catalog ------------------------------------------------------------------------------------------------------


def catalog(plane: Plane) -> list[FleetModel]:
    """Put together what nodes keep and what their services offer, by name."""
    holders, facts = _served(plane)
    copies: defaultdict[str, list[ModelCopy]] = defaultdict(list)
    kinds: dict[str, ArtifactKind] = {}
    for node in plane.fleet.nodes():
        if not node.connected:
            continue
        for name, kind, copy in _copies_on(node):
            copies[name].append(copy)
            kinds.setdefault(name, kind)
    return [
        _row(name, kinds.get(name, ArtifactKind.MODEL), facts.get(name), holders.get(name, []), copies.get(name, []))
        for name in sorted({*holders, *copies})
    ]


def names_held(node: Node) -> set[str]:
    """Return the models that a node has: on its disk, or by a service that answers."""
    served = {
        canonical_model_name(model.name)
        for service in node.services
        if service.status is ServiceStatus.RUNNING
        for model in service.models
    }
    return served | _names_on_disk(node)


def _served(plane: Plane) -> tuple[dict[str, list[ModelHolder]], dict[str, Model]]:
    found: dict[str, list[ModelHolder]] = {}
    facts: dict[str, Model] = {}
    for candidate in plane.fleet.candidates():
        for name, served in candidate.models.items():
            against = list(rejections(candidate, Wish(model=name, capability=served.capabilities[0])))
            facts.setdefault(name, served)
            found.setdefault(name, []).append(
                ModelHolder(
                    node_id=candidate.node_id,
                    service=candidate.service,
                    connector=candidate.connector,
                    resident=served.resident,
                    url=candidate.url,
                    accepts_work=not against,
                    reasons=[rejection.reason for rejection in against],
                )
            )
    return found, facts


def _copies_on(node: Node) -> Iterator[tuple[str, ArtifactKind, ModelCopy]]:
    running = {service.name for service in node.services if service.status is ServiceStatus.RUNNING}
    for artifact in node.artifacts.kept:
        yield artifact.name, artifact.kind, _copy_of(node, artifact, loaded=not running.isdisjoint(artifact.services))
    for service in node.services:
        if service.name not in running:
            continue
        for offered in service.models:
            copy = ModelCopy(
                node_id=node.node_id,
                state=RESIDENT if offered.resident else ArtifactState.ON_DISK.value,
                digest=offered.digest,
                size_bytes=offered.size_bytes,
                fraction=None,
                fetched_at=offered.modified_at_ms,
                last_used_at=None,
                services=[service.name],
                pinned=False,
                error=None,
            )
            yield canonical_model_name(offered.name), ArtifactKind.MODEL, copy


def _copy_of(node: Node, artifact: Artifact, *, loaded: bool) -> ModelCopy:
    return ModelCopy(
        node_id=node.node_id,
        state=RESIDENT if loaded and artifact.state is ArtifactState.ON_DISK else artifact.state.value,
        digest=artifact.digest,
        size_bytes=artifact.size_bytes,
        fraction=artifact.fraction,
        fetched_at=artifact.fetched_at_ms,
        last_used_at=artifact.last_used_at_ms,
        services=list(artifact.services),
        pinned=artifact.pinned,
        error=artifact.error,
    )


def _row(
    name: str, kind: ArtifactKind, facts: Model | None, holders: list[ModelHolder], copies: list[ModelCopy]
) -> FleetModel:
    whole = {copy.node_id for copy in copies if copy.state in {RESIDENT, ArtifactState.ON_DISK.value}}
    sizes = [size for size in (facts and facts.size_bytes, *(copy.size_bytes for copy in copies)) if size]
    return FleetModel(
        name=name,
        kind=kind,
        capabilities=[] if facts is None else list(facts.capabilities),
        context_length=None if facts is None else facts.context_length,
        size_bytes=next(iter(sizes), None),
        parameter_size=None if facts is None else facts.parameter_size,
        quantization=None if facts is None else facts.quantization,
        nodes=holders,
        copies=copies,
        replicated=len(whole) > 1,
    )


def _names_on_disk(node: Node) -> set[str]:
    return {
        artifact.name
        for artifact in node.artifacts.kept
        if artifact.state is ArtifactState.ON_DISK and artifact.kind is ArtifactKind.MODEL
    }


def _canonical(name: str) -> str:
    return canonical_model_name(name) if parse_source(name) is None else canonical_name(name)

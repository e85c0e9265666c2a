"""The models of the fleet: which node has what, who serves it, and how it gets from one place to another."""

import http
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any

from litestar import Response, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta, Struct
from msgspec.structs import replace

from muster.api.commands import CommandAnswer, SendCommand, answer_of, order_of
from muster.api.lists import Limit, Order, Page, TextSearch, ordered, paged, said
from muster.api.plane import Plane, TheCaller, ThePlane
from muster.domain.artifact import Artifact, ArtifactKind, ArtifactState
from muster.domain.model import Model, canonical_model_name
from muster.domain.node import Node
from muster.domain.service import ServiceStatus
from muster.domain.source import OllamaSource, canonical_name, parse_source
from muster.errors import InvalidInput, ModelNotFound
from muster.ids import CommandId, NodeId
from muster.placement.filters import rejections
from muster.placement.refusal import what_there_is
from muster.placement.wish import Wish

RESIDENT = "resident"
_ONE_SLASH = re.compile(r"^(https?:)/+")  # the framework takes two slashes in a path for one


class ModelHolder(Struct, frozen=True, kw_only=True):
    """Where a model is served; `reasons` say why a request would not go there now.

    `on_demand`: it is loaded there when somebody asks for it. Times in ms since the epoch.
    """

    node_id: str
    service: str
    connector: str
    resident: bool | None
    url: str
    accepts_work: bool
    reasons: list[str]
    on_demand: bool
    pinned: bool
    memory_mb: int | None
    used_at: int | None
    asked_by: str | None


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
_order = partial(post, tags=["fleet"], status_code=http.HTTPStatus.ACCEPTED, responses=_KNOWN_ID)


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
    models = catalog(plane)
    for known in models:
        if known.name == wanted or any(copy.digest == wanted for copy in known.copies):
            return known
    there = what_there_is(wanted, [known.name for known in models])
    raise ModelNotFound(f"no node of this fleet has a model {wanted!r}{there}", field="name")


@_order("/api/v1/models/pull", summary="Have nodes fetch a model: from another node, else from its source")
async def pull_model(plane: ThePlane, caller: TheCaller, data: JSONBody[ModelOrder]) -> Response[CommandAnswer]:
    return await _issue(plane, caller.name, data, "pull_model", {})


@_order("/api/v1/models/copy", summary="Have nodes fetch a model from those that have it, and from nowhere else")
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


@_order("/api/v1/models/remove", summary="Have nodes delete a model that nothing uses")
async def remove_model(plane: ThePlane, caller: TheCaller, data: JSONBody[ModelOrder]) -> Response[CommandAnswer]:
    return await _issue(plane, caller.name, data, "remove_model", {})


@_order("/api/v1/models/load", summary="Have nodes take a model into memory; none named: where that costs least")
async def load_model(plane: ThePlane, caller: TheCaller, data: JSONBody[ModelOrder]) -> Response[CommandAnswer]:
    if data.nodes is None and data.pool is None and data.selector is None and not data.all:
        plan = plane.models.cheapest(data.model)
        node_id, _, service = plan.key.partition("/")
        data = replace(data, nodes=[node_id], service=service)
        more = {"unload": plan.unloaded} if plan.unload else {}
        return await _memory(plane, caller.name, data, "load_model", more)
    return await _memory(plane, caller.name, data, "load_model", {})


@_order("/api/v1/models/unload", summary="Have nodes take a model out of memory")
async def unload_model(plane: ThePlane, caller: TheCaller, data: JSONBody[ModelOrder]) -> Response[CommandAnswer]:
    return await _memory(plane, caller.name, data, "unload_model", {})


@_order("/api/v1/models/pin", summary="Have nodes keep a model in memory, from their start on")
async def pin_model(plane: ThePlane, caller: TheCaller, data: JSONBody[ModelOrder]) -> Response[CommandAnswer]:
    return await _memory(plane, caller.name, _whole_node(data), "pin_model", {})


@_order("/api/v1/models/unpin", summary="Have nodes keep a model in memory no longer than others")
async def unpin_model(plane: ThePlane, caller: TheCaller, data: JSONBody[ModelOrder]) -> Response[CommandAnswer]:
    return await _memory(plane, caller.name, _whole_node(data), "unpin_model", {})


HANDLERS = [models, model, pull_model, copy_model, remove_model, load_model, unload_model, pin_model, unpin_model]


def _whole_node(data: ModelOrder) -> ModelOrder:
    if data.service is not None:
        raise InvalidInput("a model is pinned for the whole node: leave service out", field="service")
    return data


async def _memory(
    plane: Plane, issued_by: str, data: ModelOrder, command: str, more: dict[str, Any]
) -> Response[CommandAnswer]:
    """Order something of what services call a model: that is no name of a file or a library."""
    answer = await _ordered(plane, issued_by, data, command, more)
    if command == "load_model":
        name = canonical_model_name(data.model)
        for each in plane.commands.find(CommandId(answer.content.command_id)):
            for service in plane.fleet.node(each.node_id).services:
                if any(canonical_model_name(known.name) == name for known in service.models):
                    plane.models.uses.asked(f"{each.node_id}/{service.name}", name, issued_by)
    return answer


async def _issue(
    plane: Plane, issued_by: str, data: ModelOrder, command: str, more: dict[str, str]
) -> Response[CommandAnswer]:
    parse_source(data.model)  # what could never be fetched is refused here, and not by each node
    return await _ordered(plane, issued_by, data, command, more)


async def _ordered(
    plane: Plane, issued_by: str, data: ModelOrder, command: str, more: Mapping[str, Any]
) -> Response[CommandAnswer]:
    args: dict[str, Any] = {"model": data.model, **more} | ({"service": data.service} if data.service else {})
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
    pinned = {
        node.node_id: {canonical_model_name(name) for name in node.facts.models.pinned()}
        for node in plane.fleet.nodes()
        if node.facts.models is not None
    }
    for candidate in plane.fleet.candidates():
        for name, served in candidate.models.items():
            against = list(rejections(candidate, Wish(model=name, capability=served.capabilities[0])))
            use = plane.models.uses.seen(candidate.key, name) if served.resident is not False else None
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
                    on_demand=candidate.on_demand,
                    pinned=name in pinned.get(candidate.node_id, ()),
                    memory_mb=served.memory_mb,
                    used_at=None if use is None else use.used_ms,
                    asked_by=None if use is None else use.asked_by,
                )
            )
    for name, holder, offered in _at_rest(plane, pinned):
        facts.setdefault(name, offered)
        found.setdefault(name, []).append(holder)
    return found, facts


def _at_rest(plane: Plane, pinned: Mapping[NodeId, set[str]]) -> Iterator[tuple[str, ModelHolder, Model]]:
    """Yield what services offer that have not run yet: they have no address, and so are nobody's choice."""
    for node in plane.fleet.nodes():
        for service in node.services if node.connected else ():
            if not service.on_demand or (service.url and service.dialects):
                continue
            for offered in service.models:
                name = canonical_model_name(offered.name)
                holder = ModelHolder(
                    node_id=node.node_id,
                    service=service.name,
                    connector=service.connector,
                    resident=False,
                    url="",
                    accepts_work=False,
                    reasons=["rests until somebody asks for it"],
                    on_demand=True,
                    pinned=name in pinned.get(node.node_id, ()),
                    memory_mb=None,
                    used_at=None,
                    asked_by=None,
                )
                yield name, holder, offered


def _copies_on(node: Node) -> Iterator[tuple[str, ArtifactKind, ModelCopy]]:
    running = {service.name for service in node.services if service.status is ServiceStatus.RUNNING}
    for artifact in node.artifacts.kept:
        yield artifact.name, artifact.kind, _copy_of(node, artifact, loaded=not running.isdisjoint(artifact.services))
    shared: dict[tuple[str, bool | None, str | None], ModelCopy] = {}  # what several services have is there once
    for service in node.services:
        if service.name not in running:
            continue
        for offered in service.models:
            what = (canonical_model_name(offered.name), offered.resident, offered.digest)
            if what in shared:
                shared[what].services.append(service.name)
                continue
            copy = shared[what] = ModelCopy(
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
            yield what[0], ArtifactKind.MODEL, copy


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

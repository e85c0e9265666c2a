"""Commands to nodes: issued, looked at, listed."""

import http
from typing import Annotated, Any

from litestar import Response, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct, field

from muster.api.lists import Limit, Page, paged
from muster.api.plane import TheCaller, ThePlane
from muster.api.views import rfc3339
from muster.commands.order import ALL, Order, check_command, check_command_id, check_timeout_s, joint_status
from muster.commands.selector import parse_selector
from muster.domain.command import Command, CommandStatus
from muster.errors import InvalidInput
from muster.ids import CommandId, NodeId, check_node_id

_NODES_MAX = 1_000


class SendCommand(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command to the node `node_id`, to several `nodes`, to those with the labels of `selector`, or to `*`: all.

    `type` is another name of `command`; either takes any case and the names of enums (COMMAND_TYPE_SHUTDOWN). A
    `command_id` of your own makes it safe to repeat: the second time answers with the command as it stands.
    """

    node_id: Annotated[str | None, Meta(description="One node, or `*` for all that are connected.")] = None
    nodes: Annotated[list[str] | None, Meta(description="Several nodes by name.")] = None
    selector: (
        Annotated[
            str,
            Meta(
                max_length=1024,
                description="Labels: `zone=a,gpu` are nodes with zone=a and any `gpu`; type, pool, region, az and gpu "
                "are known of every node that has them.",
            ),
        ]
        | None
    ) = None
    command: Annotated[
        str | None,
        Meta(
            description="status, drain, resume, shutdown, restart_service, pull_model, remove_model, unload_model, "
            "cancel_job, logs or exec."
        ),
    ] = None
    type: Annotated[str | None, Meta(description="Another name of `command`.")] = None
    args: Annotated[dict[str, Any], Meta(description='As the command needs: `{"service": "llama"}`.')] = field(
        default_factory=dict
    )
    timeout: Annotated[float | None, Meta(description="Seconds until it expires; without it as the command needs.")] = (
        None
    )
    command_id: Annotated[str | None, Meta(description="An id of your own.")] = None


class CommandProgress(Struct, frozen=True, kw_only=True):
    fraction: float | None
    message: str | None


class CommandView(Struct, frozen=True, kw_only=True):
    command_id: str
    node_id: str
    group_id: str | None
    command: str
    args: dict[str, Any]
    state: CommandStatus
    issued_by: str | None
    created_at: str
    deadline: str
    ended_at: str | None
    progress: CommandProgress | None
    result: Any
    error: str | None


class CommandAnswer(Struct, frozen=True, kw_only=True):
    """What became of one order.

    `state` is that of its one command, or of all of them together: the least advanced while any is open, then `done`
    only if all are. `result` and `error` are those of a single command.
    """

    success: bool
    command_id: str
    created: bool
    command: str
    state: CommandStatus
    counts: dict[str, int]
    result: Any
    error: str | None
    commands: list[CommandView]


@post(
    "/api/v1/command",
    tags=["commands"],
    summary="Send a command to one node, some, or all",
    status_code=http.HTTPStatus.ACCEPTED,
    responses={
        200: ResponseSpec(CommandAnswer, description="This command_id was known; nothing was changed"),
    },
)
async def send_command(plane: ThePlane, caller: TheCaller, data: JSONBody[SendCommand]) -> Response[CommandAnswer]:
    issued = await plane.commands.issue(order_of(data, caller.name))
    return Response(
        answer_of(issued.command_id, issued.commands, created=issued.created),
        status_code=http.HTTPStatus.ACCEPTED if issued.created else http.HTTPStatus.OK,
    )


@get("/api/v1/commands/{command_id:str}", tags=["commands"], summary="One command, or all that were issued together")
async def command(plane: ThePlane, command_id: FromPath[str]) -> CommandAnswer:
    return answer_of(command_id, plane.commands.find(CommandId(command_id)), created=False)


@get("/api/v1/commands", tags=["commands"], summary="Commands, the newest first, filtered and paged")
async def commands(
    plane: ThePlane,
    node: FromQuery[str | None] = None,
    status: Annotated[CommandStatus | None, QueryParameter(name="state")] = None,
    page: Page = 1,
    limit: Limit = 100,
) -> Response[list[CommandView]]:
    shown, headers = paged(plane.commands.newest(NodeId(node) if node else None, status), page, limit)
    return Response([_view(each) for each in shown], headers=headers)


HANDLERS = [send_command, command, commands]


def order_of(data: SendCommand, issued_by: str) -> Order:
    if data.command and data.type and data.command.lower() != data.type.lower():
        raise InvalidInput("command and type name different commands; give one of them", field="type")
    name = check_command(data.command or data.type, data.args)
    aims = {"node_id": data.node_id, "nodes": data.nodes, "selector": data.selector}
    given = [aim for aim, value in aims.items() if value is not None]
    if len(given) != 1:
        raise InvalidInput(
            f"give one of node_id, nodes and selector, got {' and '.join(given) or 'none'}",
            field=given[1] if given else "node_id",
        )
    if data.nodes is not None and not 0 < len(data.nodes) <= _NODES_MAX:
        raise InvalidInput(f"nodes must name 1 to {_NODES_MAX} nodes", field="nodes")
    single = None if data.node_id == ALL else data.node_id
    named = data.nodes or ([] if single is None else [single])
    return Order(
        command=name,
        nodes=tuple(check_node_id(node_id) for node_id in named),
        selector=None if data.selector is None else parse_selector(data.selector),
        single=single is not None,
        args=data.args,
        timeout_s=check_timeout_s(name, data.timeout),
        command_id=None if data.command_id is None else check_command_id(data.command_id),
        issued_by=issued_by,
    )


def answer_of(command_id: str, found: tuple[Command, ...], *, created: bool) -> CommandAnswer:
    first = found[0]
    is_single = first.group_id is None
    counts: dict[str, int] = {}
    for each in found:
        counts[each.status.value] = counts.get(each.status.value, 0) + 1
    return CommandAnswer(
        success=True,
        command_id=command_id,
        created=created,
        command=first.command,
        state=joint_status(found),
        counts=counts,
        result=first.result if is_single else None,
        error=first.error if is_single else None,
        commands=[_view(each) for each in found],
    )


def _view(command: Command) -> CommandView:
    progress = command.progress
    return CommandView(
        command_id=command.command_id,
        node_id=command.node_id,
        group_id=command.group_id,
        command=command.command,
        args=command.args,
        state=command.status,
        issued_by=command.issued_by,
        created_at=rfc3339(command.created_at_ms),
        deadline=rfc3339(command.deadline_ms),
        ended_at=None if command.ended_at_ms is None else rfc3339(command.ended_at_ms),
        progress=None if progress is None else CommandProgress(fraction=progress.fraction, message=progress.message),
        result=command.result,
        error=command.error,
    )

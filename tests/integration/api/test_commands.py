"""Commands by HTTP, with nodes that ask for them over their own link."""

import asyncio
from typing import Any

import pytest

from muster.domain.command import Command, CommandStatus
from muster.domain.job import JobStatus, Progress
from muster.domain.node import NodeFacts
from muster.ids import CommandId, NodeId
from muster.wire import CommandPoll, CommandReport, CommandReports
from tests.integration.api.conftest import Served
from tests.integration.api.test_api import get, post
from tests.waiting import eventually


async def polled(served: Served, node: str = "n1", wait_s: float = 0.0) -> tuple[Command, ...]:
    poll = CommandPoll(node_id=NodeId(node), boot_id=f"{node}-boot", wait_s=wait_s)
    return (await served.plane.ingest.next_commands(poll)).commands


async def reported(served: Served, command_id: str, status: CommandStatus, node: str = "n1", **more: Any) -> None:
    report = CommandReport(command_id=CommandId(command_id), status=status, **more)
    await served.plane.ingest.report_commands(CommandReports(node_id=NodeId(node), reports=(report,)))


async def test_a_command_goes_to_its_node_and_its_result_comes_back(served: Served) -> None:
    await served.plane.heartbeat("n1")
    waiting = asyncio.create_task(polled(served, wait_s=30))
    sent = await post(served, "/api/v1/command", {"node_id": "n1", "command": "status"}, status=202)
    assert (sent["success"], sent["state"], sent["created"]) == (True, "created", True)
    (command,) = await waiting
    assert (command.command, command.boot_id, command.issued_by) == ("status", "n1-boot", "anybody")
    path = f"/api/v1/commands/{sent['command_id']}"
    assert (await get(served, path))["state"] == "sent"
    await reported(served, command.command_id, CommandStatus.ACKED, progress=Progress(fraction=0.5, message="half"))
    running = await get(served, path)
    assert running["state"] == "acked"
    assert running["commands"][0]["progress"] == {"fraction": 0.5, "message": "half"}
    assert await polled(served) == ()
    await reported(served, command.command_id, CommandStatus.DONE, result={"phase": "ready"})
    done = await get(served, path)
    assert (done["state"], done["result"], done["counts"]) == ("done", {"phase": "ready"}, {"done": 1})
    assert [kind for kind in await served.plane.recorded() if kind.startswith("command_")] == [
        "command_created", "command_sent", "command_acked", "command_done",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "names", [{"type": "COMMAND_TYPE_RESTART_SERVICE"}, {"command": "Restart-Service"}, {"type": "restart_service"}]
)
async def test_names_of_commands_are_taken_as_people_and_enums_write_them(
    served: Served, names: dict[str, str]
) -> None:
    await served.plane.heartbeat("n1")
    body = {"node_id": "n1", "args": {"service": "llama"}} | names
    sent = await post(served, "/api/v1/command", body, status=202)
    assert sent["command"] == "restart_service"


async def test_the_same_id_twice_is_one_command(served: Served) -> None:
    await served.plane.heartbeat("n1")
    body = {"node_id": "n1", "command": "status", "command_id": "mine-1"}
    assert (await post(served, "/api/v1/command", body, status=202))["created"] is True
    again = await post(served, "/api/v1/command", body)
    assert (again["created"], again["command_id"], len(again["commands"])) == (False, "mine-1", 1)
    assert len(await polled(served)) == 1
    await reported(served, "mine-1", CommandStatus.DONE, result=7)
    assert (await post(served, "/api/v1/command", body))["result"] == 7
    assert await polled(served) == ()


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"command": "status"}, 400, "node_id"),
        ({"node_id": "n1"}, 400, "command"),
        ({"node_id": "n1", "command": "explode"}, 400, "command"),
        ({"node_id": "n1", "command": "status", "type": "drain"}, 400, "type"),
        ({"node_id": "n1", "command": "status", "colour": "red"}, 400, "colour"),
        ({"node_id": "n1", "nodes": ["n1"], "command": "status"}, 400, "nodes"),
        ({"nodes": [], "command": "status"}, 400, "nodes"),
        ({"selector": "a=b=c", "command": "status"}, 400, "selector"),
        ({"selector": "zone=nowhere", "command": "status"}, 404, "selector"),
        ({"node_id": "unknown", "command": "status"}, 400, "node_id"),
        ({"node_id": "n9", "command": "status"}, 404, "node_id"),
        ({"nodes": ["n1", "n9"], "command": "status"}, 404, "node_id"),
        ({"node_id": "away", "command": "status"}, 502, "node_id"),
        ({"nodes": ["n1", "away"], "command": "status"}, 502, "node_id"),
        ({"node_id": "n1", "command": "status", "timeout": 0}, 400, "timeout"),
        ({"node_id": "n1", "command": "status", "timeout": 1e9}, 400, "timeout"),
        ({"node_id": "n1", "command": "status", "command_id": "no spaces"}, 400, "command_id"),
        ({"node_id": "n1", "command": "status", "command_id": "x" * 121}, 400, "command_id"),
        ({"node_id": "n1", "command": "status", "args": {"loud": True}}, 400, "args.loud"),
        ({"node_id": "n1", "command": "logs"}, 400, "args.service"),
        ({"node_id": "n1", "command": "logs", "args": {"service": ""}}, 400, "args.service"),
        ({"node_id": "n1", "command": "logs", "args": {"service": "a", "lines": 0}}, 400, "args.lines"),
        ({"node_id": "n1", "command": "logs", "args": {"service": "a", "lines": True}}, 400, "args.lines"),
        ({"node_id": "n1", "command": "exec", "args": {"name": "df", "args": "-h"}}, 400, "args.args"),
        ({"node_id": "n1", "command": "cancel_job", "args": {"job_id": "job-9"}}, 404, "job_id"),
    ],
)
async def test_what_cannot_be_is_refused_naming_the_field_and_nothing_is_issued(
    served: Served, body: dict[str, Any], status: int, field: str
) -> None:
    for node in ("n1", "away"):
        await served.plane.heartbeat(node)
    fleet = served.plane.fleet
    fleet.carry_out(fleet.book.link_changed(NodeId("away"), "http", served.plane.clock.now_ms(), connected=False))
    refused = await post(served, "/api/v1/command", body, status=status)
    assert refused.get("field") == field
    assert await get(served, "/api/v1/commands") == []
    assert await polled(served) == ()


async def test_a_group_is_followed_by_one_id(served: Served) -> None:
    for node, labels in (("n1", {"zone": "a"}), ("n2", {"zone": "a"}), ("n3", {"zone": "b"})):
        await served.plane.heartbeat(node, facts=NodeFacts(node_id=NodeId(node), labels=labels))
    sent = await post(
        served, "/api/v1/command", {"selector": "zone=a", "command": "status", "command_id": "g"}, status=202
    )
    assert [each["command_id"] for each in sent["commands"]] == ["g:n1", "g:n2"]
    assert await polled(served, "n3") == ()
    (first,) = await polled(served, "n1")
    await reported(served, first.command_id, CommandStatus.DONE, result=1)
    assert (await get(served, "/api/v1/commands/g"))["state"] == "created"
    (second,) = await polled(served, "n2")
    await reported(served, second.command_id, CommandStatus.FAILED, node="n2", error="no")
    ended = await get(served, "/api/v1/commands/g")
    assert (ended["state"], ended["counts"], ended["result"]) == ("failed", {"done": 1, "failed": 1}, None)
    assert (await post(served, "/api/v1/command", {"node_id": "*", "command": "status", "command_id": "g"}))[
        "created"
    ] is False
    everybody = await post(served, "/api/v1/command", {"node_id": "*", "command": "status"}, status=202)
    assert [each["node_id"] for each in everybody["commands"]] == ["n1", "n2", "n3"]
    named = await post(served, "/api/v1/command", {"nodes": ["n3", "n1", "n3"], "command": "status"}, status=202)
    assert [each["node_id"] for each in named["commands"]] == ["n3", "n1"]


async def test_nobody_there_is_no_group(served: Served) -> None:
    refused = await post(served, "/api/v1/command", {"node_id": "*", "command": "status"}, status=404)
    assert refused["code"] == "node_not_found"


async def test_a_drain_is_seen_at_once_and_told_with_every_heartbeat(served: Served) -> None:
    await served.plane.heartbeat("n1")
    await post(served, "/api/v1/command", {"node_id": "n1", "command": "drain"}, status=202)
    assert (await get(served, "/api/v1/nodes/n1"))["draining"] is True
    await post(served, "/api/v1/command", {"node_id": "n1", "command": "resume"}, status=202)
    assert (await get(served, "/api/v1/nodes/n1"))["draining"] is False


async def test_a_command_without_an_answer_expires_and_its_node_shows_it(served: Served) -> None:
    await served.plane.heartbeat("n1")
    sent = await post(served, "/api/v1/command", {"node_id": "n1", "command": "status", "timeout": 5}, status=202)
    served.plane.clock.advance(5.1)
    await served.plane.commands.tick()
    expired = await get(served, f"/api/v1/commands/{sent['command_id']}")
    assert (expired["state"], expired["error"]) == ("expired", "no answer by its deadline")
    node = await get(served, "/api/v1/nodes/n1")
    assert node["command_problem"] == f"status ({sent['command_id']}): no answer by its deadline"
    sent = await post(served, "/api/v1/command", {"node_id": "n1", "command": "status"}, status=202)
    await reported(served, sent["command_id"], CommandStatus.DONE)
    assert (await get(served, "/api/v1/nodes/n1"))["command_problem"] is None


async def test_a_cancelled_job_is_cancelled_before_its_node_hears_of_it(served: Served) -> None:
    await served.plane.heartbeat("n1")
    job_id = await served.plane.submit("job-1")
    body = {"node_id": "n1", "command": "cancel_job", "args": {"job_id": job_id}}
    await post(served, "/api/v1/command", body, status=202)
    assert await served.plane.status(job_id) is JobStatus.CANCELLED
    assert (await post(served, "/api/v1/command", body, status=409))["code"] == "invalid_transition"


async def test_commands_are_listed_newest_first_filtered_and_paged(served: Served) -> None:
    for number in range(5):
        node = f"n{number % 2}"
        await served.plane.heartbeat(node, seq=number + 1)
        body = {"node_id": node, "command": "status", "command_id": f"c{number}"}
        await post(served, "/api/v1/command", body, status=202)
        served.plane.clock.advance(1)
    await reported(served, "c1", CommandStatus.DONE, node="n1")
    assert [each["command_id"] for each in await get(served, "/api/v1/commands")] == ["c4", "c3", "c2", "c1", "c0"]
    assert [each["command_id"] for each in await get(served, "/api/v1/commands?node=n1")] == ["c3", "c1"]
    assert [each["command_id"] for each in await get(served, "/api/v1/commands?state=done")] == ["c1"]
    async with served.client.get("/api/v1/commands?page=2&limit=2") as answer:
        assert answer.headers["X-Total-Count"] == "5"
        assert [each["command_id"] for each in await answer.json()] == ["c2", "c1"]
    await get(served, "/api/v1/commands?state=lost", status=400)
    assert (await get(served, "/api/v1/commands/nothing", status=404))["code"] == "command_not_found"


async def test_an_answer_of_another_node_or_to_nothing_changes_nothing(served: Served) -> None:
    await served.plane.heartbeat("n1")
    sent = await post(served, "/api/v1/command", {"node_id": "n1", "command": "status"}, status=202)
    await reported(served, sent["command_id"], CommandStatus.DONE, node="n2")
    await reported(served, "nothing", CommandStatus.DONE)
    assert (await get(served, f"/api/v1/commands/{sent['command_id']}"))["state"] == "created"


async def test_who_waits_is_let_go_when_the_control_plane_stops(served: Served) -> None:
    await served.plane.heartbeat("n1")
    waiting = asyncio.create_task(polled(served, wait_s=30))
    await eventually(lambda: served.plane.commands._waiting)
    await served.plane.commands.stop()
    assert await waiting == ()

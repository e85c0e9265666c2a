"""Ollama's requests about models with an address: nodes fetch and delete them by command."""

import asyncio
import json
from typing import Any

import pytest

from muster.domain.artifact import Artifact
from muster.domain.command import CommandStatus
from muster.domain.job import Progress
from muster.domain.model import Model
from tests.integration.api.conftest import Served
from tests.integration.api.test_commands import polled, reported
from tests.integration.api.test_models import HUB, node, service


@pytest.fixture
async def fleet(served: Served) -> Served:
    """Only `n1` serves something, `n2` has a file that lies there, `n3` nothing."""
    await node(served, "n1", services=(service(models=(Model(name="m", resident=True),)),))
    await node(served, "n2", Artifact(name=HUB, digest="ab" * 32, size_bytes=7))
    await node(served, "n3")
    return served


async def told_to(fleet: Served, name: str) -> tuple[str, str, dict[str, Any]]:
    (command,) = await polled(fleet, name, wait_s=10.0)
    return command.command_id, command.command, command.args


async def done(fleet: Served, name: str, error: str | None = None) -> tuple[str, dict[str, Any]]:
    command_id, kind, args = await told_to(fleet, name)
    status = CommandStatus.DONE if error is None else CommandStatus.FAILED
    await reported(fleet, command_id, status, node=name, error=error)
    return kind, args


async def asked(fleet: Served, method: str, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    async with fleet.client.request(method, path, json=body) as answer:
        return answer.status, await answer.read()


async def test_a_model_with_an_address_is_fetched_by_the_node_that_is_named(fleet: Served) -> None:
    begun = asyncio.create_task(fleet.client.post("/api/pull?node=n3", json={"model": HUB}).__aenter__())
    command_id, kind, args = await told_to(fleet, "n3")
    assert (kind, args) == ("pull_model", {"model": HUB})
    progress = Progress(fraction=0.5, message="3.5 of 7.0 MB")
    await reported(fleet, command_id, CommandStatus.ACKED, node="n3", progress=progress)
    async with await begun as answer:
        assert json.loads(await answer.content.readline()) == {"status": "n3: 3.5 of 7.0 MB"}
        await reported(fleet, command_id, CommandStatus.DONE, node="n3")
        assert json.loads(await answer.content.readline()) == {"status": "success"}


@pytest.mark.parametrize(("model", "name"), [(HUB, "n2"), ("hf:org/new/m.gguf", "n1")])
async def test_it_is_renewed_where_it_is_or_goes_where_services_run(fleet: Served, model: str, name: str) -> None:
    pull = asyncio.create_task(asked(fleet, "POST", "/api/pull", {"model": model, "stream": False}))
    assert await done(fleet, name) == ("pull_model", {"model": model})
    assert await pull == (200, b'{"status":"success"}')


async def test_a_node_that_cannot_is_named(fleet: Served) -> None:
    pull = asyncio.create_task(asked(fleet, "POST", "/api/pull?node=n1", {"model": HUB, "stream": False}))
    await done(fleet, "n1", error="no room on the disk")
    assert await pull == (502, b'{"error":"n1: no room on the disk"}')
    status, body = await asked(fleet, "POST", "/api/pull?node=nowhere", {"model": HUB, "stream": False})
    assert status == 502
    assert b"nowhere" in body


async def test_it_is_deleted_wherever_it_is(fleet: Served) -> None:
    delete = asyncio.create_task(asked(fleet, "DELETE", "/api/delete", {"model": HUB}))
    assert await done(fleet, "n2") == ("remove_model", {"model": HUB})
    assert await delete == (200, b"")
    status, body = await asked(fleet, "DELETE", "/api/delete", {"model": "hf:org/new/m.gguf"})
    assert (status, json.loads(body)) == (404, {"error": "model 'hf:org/new/m.gguf' not found"})

"""Files and batches over HTTP: whose they are, how refusals look, pages."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import openai
import pytest

from muster.access.roles import Role
from muster.access.tokens import Wanted
from tests.integration.api.conftest import Served, serving

ADMIN = "the-admin"
CHAT: Final = "/v1/chat/completions"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(token=ADMIN, files=tmp_path) as made:
        yield made


async def client(served: Served, role: Role, name: str) -> openai.AsyncOpenAI:
    _, token = await served.plane.access.create(Wanted(name=name, role=role))
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=token, max_retries=0)


async def test_a_client_sees_its_own_and_nobody_elses(served: Served) -> None:
    anna, berta = [await client(served, Role.CLIENT, name) for name in ("anna", "berta")]
    operator = await client(served, Role.OPERATOR, "olga")
    file = await anna.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
    batch = await anna.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")

    assert [one.id async for one in anna.batches.list()] == [batch.id]
    assert [one.id async for one in operator.batches.list()] == [batch.id]
    assert [one.id async for one in berta.batches.list()] == []
    assert [one.id async for one in berta.files.list()] == []
    for refused in (
        berta.files.content(file.id),
        berta.files.retrieve(file.id),
        berta.files.delete(file.id),
        berta.batches.retrieve(batch.id),
        berta.batches.cancel(batch.id),
        berta.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"),
    ):
        with pytest.raises(openai.NotFoundError):
            await refused
    for one in (anna, berta, operator):
        await one.close()


async def test_refusals_are_told_in_openais_words(served: Served) -> None:
    viewer = await client(served, Role.VIEWER, "vera")
    with pytest.raises(openai.PermissionDeniedError, match="role"):
        await viewer.files.create(file=b"{}", purpose="batch")
    nobody = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        await nobody.batches.list()
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "authentication_error"
    await viewer.close()
    await nobody.close()


async def test_lists_are_paged_the_newest_first(served: Served) -> None:
    anna = await client(served, Role.CLIENT, "anna")
    made = []
    for number in range(5):
        made.append((await anna.files.create(file=(f"{number}.jsonl", b"{}\n"), purpose="batch")).id)
        served.plane.clock.advance(1)

    first = await anna.files.list(limit=2)
    assert [file.id for file in first.data] == [made[4], made[3]]
    assert first.has_more
    assert [file.id async for file in first] == made[::-1]
    assert [file.id async for file in anna.files.list(order="asc")] == made
    assert [file.id async for file in anna.files.list(purpose="batch_output")] == []
    with pytest.raises(openai.BadRequestError, match="after"):
        await anna.files.list(after="file-none")
    await anna.close()


async def test_a_file_over_the_limit_is_refused_and_not_kept(served: Served) -> None:
    anna = await client(served, Role.CLIENT, "anna")
    with pytest.raises(openai.APIStatusError) as caught:
        await anna.files.create(file=("big.jsonl", b"x" * 5_000_000), purpose="batch")
    assert caught.value.status_code == 413
    assert [file.id async for file in anna.files.list()] == []
    await anna.close()

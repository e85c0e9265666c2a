"""The ways that campaigns cut, tried on an echo."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.campaign.gate import Address, Gate


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Path]:
    async with await asyncio.start_unix_server(echo, tmp_path / "s"):
        yield tmp_path / "s"


Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[Gate], Awaitable[Way]]


@pytest.fixture
async def connect(make_gate: Callable[..., Gate]) -> AsyncIterator[Connect]:
    ways: list[Way] = []

    async def one(gate: Gate) -> Way:
        ways.append(await asyncio.open_connection("127.0.0.1", gate.port))
        return ways[-1]

    yield one
    for _, writer in ways:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in ways), return_exceptions=True)


@pytest.fixture
async def make_gate() -> AsyncIterator[Callable[..., Gate]]:
    gates: list[Gate] = []

    def make(*targets: Address) -> Gate:
        gates.append(Gate(*targets))
        return gates[-1]

    yield make
    for gate in gates:
        await gate.close()


async def say(way: Way, line: bytes) -> bytes:
    """Return the answer; nothing where the connection ends."""
    way[1].write(line)
    async with asyncio.timeout(5):
        try:
            return await way[0].readline()
        except OSError:
            return b""


async def test_what_a_silent_way_was_told_comes_through_when_it_is_open_again(
    target: Path, make_gate: Callable[..., Gate], connect: Connect
) -> None:
    gate = await make_gate(target).open()
    way = await connect(gate)
    assert await say(way, b"one\n") == b"one\n"
    gate.hush()
    way[1].write(b"two\n")
    late = await connect(gate)
    late[1].write(b"three\n")
    answers = [asyncio.create_task(one.readline()) for one, _ in (way, late)]
    done, _ = await asyncio.wait(answers, timeout=0.1)
    assert not done
    gate.heal()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*answers) == [b"two\n", b"three\n"]


async def test_a_cut_way_loses_its_connections_and_refuses_until_it_is_healed(
    target: Path, make_gate: Callable[..., Gate], connect: Connect
) -> None:
    gate = await make_gate(target).open()
    way = await connect(gate)
    assert await say(way, b"one\n") == b"one\n"
    gate.cut()
    for connection in (way, await connect(gate)):
        assert await say(connection, b"two\n") == b""
    gate.heal()
    assert await say(await connect(gate), b"three\n") == b"three\n"


async def test_a_target_that_is_gone_is_passed_over(
    target: Path, tmp_path: Path, make_gate: Callable[..., Gate], connect: Connect
) -> None:
    gate = await make_gate(tmp_path / "nobody", target).open()
    for _ in range(4):
        assert await say(await connect(gate), b"one\n") == b"one\n"
    nobody = await make_gate(tmp_path / "nobody").open()
    assert await say(await connect(nobody), b"one\n") == b""

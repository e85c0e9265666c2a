"""Artifacts from another node of the fleet: what it gives, to whom, and what is believed of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from muster.access import tickets
from muster.agent.artifacts.door import Door, DoorRules
from muster.agent.artifacts.store import Kept
from muster.errors import ArtifactFailed, StoreUnavailable
from muster.ids import NodeId
from muster.system import SystemClock
from muster.wire import ArtifactHolder, ArtifactReply
from tests.file_server import Fault, FileServer
from tests.unit.agent_artifacts.fetching import FetchBench, archive_of, sha

CONTENT = b"GGUF" + bytes(range(256)) * 500
SHA = sha(CONTENT)
KEY = "ticket-key"


class Peer:
    """Another node that gives away what it keeps."""

    def __init__(self, bench: FetchBench, **rules: Any) -> None:
        self.bench = bench
        self.door = Door(bench.store, DoorRules(**rules), "127.0.0.1", KEY, SystemClock())

    def holder(self, kept: Kept, *, key: str = KEY, validator: str | None = None) -> ArtifactHolder:
        ticket = tickets.issue(key, kept.digest, SystemClock().now_ms())
        return ArtifactHolder(
            node_id=NodeId("peer"),
            url=self.door.url or "http://127.0.0.1:1",
            ticket=ticket,
            digest=kept.digest,
            validator=validator,
        )


@pytest.fixture
async def peer(session: aiohttp.ClientSession, tmp_path: Path, server: FileServer) -> AsyncIterator[Peer]:
    made = Peer(FetchBench(session, tmp_path / "peer", hub=server.url()))
    await made.door.start()
    yield made
    await made.door.stop()


async def test_another_node_is_asked_before_the_source(bench: FetchBench, peer: Peer, server: FileServer) -> None:
    name = server.put("/m.gguf", CONTENT)
    theirs = await peer.bench.get(name)
    bench.replies = [ArtifactReply(holders=(peer.holder(theirs),))]
    with structlog.testing.capture_logs() as said:
        assert (await bench.get(name)).files == theirs.files
    assert server.count("/m.gguf") == 1
    assert bench.told("artifact_fetched")[0]["from"] == "node peer"
    (sent,) = [entry for entry in said if entry["event"] == "upload_done"]
    assert (sent["file"], sent["bytes"], sent["to"]) == ("m.gguf", len(CONTENT), "127.0.0.1")


async def test_several_files_and_bundles_come_from_there_too(bench: FetchBench, peer: Peer, server: FileServer) -> None:
    server.put_hub("org/repo", "c0ffee", {"a b.json": b"{}", "sub/m.bin": CONTENT})
    theirs = await peer.bench.get("hf:org/repo")
    name = server.put("/b.tgz", archive_of(run=b"1"))
    await peer.bench.bundle(name)
    bundle = peer.bench.store.find(name)
    assert bundle is not None
    before = len(server.asked)
    bench.replies = [ArtifactReply(holders=(peer.holder(theirs),)), ArtifactReply(holders=(peer.holder(bundle),))]
    assert (await bench.get("hf:org/repo")).digest == theirs.digest
    assert (await bench.bundle(name) / "run").read_bytes() == b"1"
    assert len(server.asked) == before


async def test_what_must_be_fresh_comes_from_a_node_only_if_that_has_the_newest(
    session: aiohttp.ClientSession, tmp_path: Path, peer: Peer, server: FileServer
) -> None:
    name = server.put("/b.tgz", archive_of(run=b"1"))
    await peer.bench.bundle(name)
    theirs, tag = peer.bench.store.find(name), server.tags["/b.tgz"]
    assert theirs is not None
    same = FetchBench(session, tmp_path / "same")
    same.replies = [ArtifactReply(holders=(peer.holder(theirs, validator=tag),))]
    await same.bundle(name, fresh=True)
    assert same.told("artifact_fetched")[0]["from"] == "node peer"
    await same.bundle(name, fresh=True)  # it knows the version that it was given
    assert server.sent["/b.tgz"] == 1
    server.put("/b.tgz", archive_of(run=b"22"))
    newer = FetchBench(session, tmp_path / "newer")
    newer.replies = [ArtifactReply(holders=(peer.holder(theirs, validator=tag), peer.holder(theirs)))]
    assert (await newer.bundle(name, fresh=True) / "run").read_bytes() == b"22"
    server.always["/b.tgz"] = Fault(status=500)  # nobody can say: then it is as good as any
    away = FetchBench(session, tmp_path / "away")
    away.replies = [ArtifactReply(holders=(peer.holder(theirs, validator=tag),))]
    assert (await away.bundle(name, fresh=True) / "run").read_bytes() == b"1"


async def test_who_wants_another_version_does_not_get_that_of_who_came_first(
    bench: FetchBench, server: FileServer
) -> None:
    name = server.put("/m.gguf", CONTENT)
    one, other = await asyncio.gather(
        bench.get(f"{name}#sha256={SHA}"), bench.get(f"{name}#sha256={'0' * 64}"), return_exceptions=True
    )
    assert isinstance(one, Kept)
    assert isinstance(other, ArtifactFailed)


async def test_a_node_that_is_gone_lies_or_refuses_is_passed_over(
    bench: FetchBench, peer: Peer, server: FileServer
) -> None:
    name = server.put("/m.gguf", CONTENT)
    theirs = await peer.bench.get(name)
    peer.bench.store.path_of(theirs).write_bytes(bytes(len(CONTENT)))  # damaged over there
    gone = ArtifactHolder(node_id=NodeId("gone"), url="http://127.0.0.1:1", ticket="t", digest=SHA)
    bench.replies = [ArtifactReply(holders=(gone, peer.holder(theirs, key="wrong"), peer.holder(theirs)))]
    kept = await bench.get(name)
    assert bench.store.path_of(kept).read_bytes() == CONTENT
    assert bench.told("artifact_fetched")[0]["from"] == name
    assert server.count("/m.gguf") == 2


async def test_a_node_that_tells_of_something_else_is_not_believed(
    bench: FetchBench, peer: Peer, server: FileServer
) -> None:
    name = server.put("/m.gguf", CONTENT)
    other = await peer.bench.get(server.put("/other.gguf", b"GGUF other"))
    lie = ArtifactHolder(node_id=NodeId("liar"), url=server.url("/liar"), ticket="t", digest=SHA)
    server.documents[f"/liar/artifacts/{SHA}"] = {
        "digest": SHA,
        "kind": "model",
        "files": [{"path": "m", "size_bytes": other.size_bytes, "sha256": other.digest}],
    }
    bench.replies = [ArtifactReply(holders=(lie,))]
    assert (await bench.get(name)).digest == SHA


async def test_only_from_the_fleet_means_never_from_the_source(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/m.gguf", CONTENT)
    with pytest.raises(ArtifactFailed, match="no other node that can be reached has"):
        await bench.get(name, from_fleet=True)
    gone = ArtifactHolder(node_id=NodeId("gone"), url="http://127.0.0.1:1", ticket="t", digest=SHA)
    bench.replies = [ArtifactReply(holders=(gone,))]
    with pytest.raises(ArtifactFailed, match=r"127\.0\.0\.1:1"):
        await bench.get(name, from_fleet=True)
    assert server.asked == []


async def test_a_control_plane_that_is_away_leaves_the_source(bench: FetchBench, server: FileServer) -> None:
    bench.replies = [StoreUnavailable("away")]
    assert (await bench.get(server.put("/m.gguf", CONTENT))).digest == SHA


async def test_a_node_that_fetches_the_same_is_waited_for_where_that_is_set(
    session: aiohttp.ClientSession, tmp_path: Path, peer: Peer, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.agent.artifacts.fetcher._FLEET_POLL_S", 0.001)
    name = server.put("/m.gguf", CONTENT)
    theirs = await peer.bench.get(name)
    busy = ArtifactReply(fetching=(NodeId("peer"),))
    patient = FetchBench(session, tmp_path / "patient", wait_for_fleet_s=60.0)
    patient.replies = [busy, busy, ArtifactReply(holders=(peer.holder(theirs),))]
    await patient.get(name)
    assert len(patient.asked) == 3
    hasty = FetchBench(session, tmp_path / "hasty")
    hasty.replies = [busy]
    await hasty.get(name)
    assert server.count("/m.gguf") == 2


async def test_only_so_many_fetch_at_a_time_and_the_next_is_told_to_come_again(
    session: aiohttp.ClientSession, peer: Peer, server: FileServer
) -> None:
    theirs = await peer.bench.get(server.put("/m.gguf", CONTENT))
    await peer.door.stop()
    busy = Peer(peer.bench, uploads_max=1)
    await busy.door.start()
    busy.door._uploads = 1
    holder = busy.holder(theirs)
    url, headers = f"{holder.url}/artifacts/{SHA}/m.gguf", {"Authorization": f"Bearer {holder.ticket}"}
    async with session.get(url, headers=headers) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
    busy.door._uploads = 0
    async with session.get(url, headers=headers) as response:
        assert response.status == 200
    await busy.door.stop()


@pytest.mark.parametrize(
    ("asked", "status", "begin"),
    [
        ({}, 200, 0),
        ({"Range": "bytes=100-"}, 206, 100),
        ({"Range": "bytes=100-", "If-Range": f'"{SHA}"'}, 206, 100),
        ({"Range": "bytes=100-", "If-Range": '"other"'}, 200, 0),
        ({"Range": f"bytes={len(CONTENT)}-"}, 416, 0),
        ({"Range": "lines=1-2"}, 200, 0),
        ({"Range": "bytes=-10"}, 206, len(CONTENT) - 10),
    ],
)
async def test_a_part_is_given_to_who_has_the_rest(
    session: aiohttp.ClientSession, peer: Peer, server: FileServer, asked: dict[str, str], status: int, begin: int
) -> None:
    holder = peer.holder(await peer.bench.get(server.put("/m.gguf", CONTENT)))
    headers = {"Authorization": f"Bearer {holder.ticket}"} | asked
    async with session.get(f"{holder.url}/artifacts/{SHA}/m.gguf", headers=headers) as response:
        assert response.status == status
        if status != 416:
            assert await response.read() == CONTENT[begin:]


@pytest.mark.parametrize(
    ("path", "ticket", "status"),
    [
        (f"/artifacts/{SHA}", "", 401),
        (f"/artifacts/{SHA}", "wrong", 401),
        (f"/artifacts/{SHA}/m.gguf", "wrong", 401),
        (f"/artifacts/{'0' * 64}", "good", 401),
        (f"/artifacts/{SHA}/kept.json", "good", 404),
        (f"/artifacts/{SHA}/..%2fkept.json", "good", 404),
        ("/", "good", 404),
    ],
)
async def test_nothing_else_is_given_away(
    session: aiohttp.ClientSession, peer: Peer, server: FileServer, path: str, ticket: str, status: int
) -> None:
    holder = peer.holder(await peer.bench.get(server.put("/m.gguf", CONTENT)))
    shown = holder.ticket if ticket == "good" else ticket
    async with session.get(f"{holder.url}{path}", headers={"Authorization": f"Bearer {shown}"}) as response:
        assert response.status == status


async def test_what_goes_out_is_no_faster_than_allowed(
    session: aiohttp.ClientSession, peer: Peer, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def noted(seconds: float) -> None:
        pauses.append(seconds)

    theirs = await peer.bench.get(server.put("/m.gguf", CONTENT))
    slow = Peer(peer.bench, bytes_per_s_max=1000)
    await slow.door.start()
    holder = slow.holder(theirs)
    monkeypatch.setattr("muster.agent.artifacts.door.asyncio.sleep", noted)
    headers = {"Authorization": f"Bearer {holder.ticket}"}
    async with session.get(f"{holder.url}/artifacts/{SHA}/m.gguf", headers=headers) as response:
        assert await response.read() == CONTENT
    monkeypatch.undo()
    await slow.door.stop()
    assert sum(pauses) == pytest.approx(len(CONTENT) / 1000, abs=1.0)


async def test_a_list_that_never_ends_is_not_read_to_its_end(
    bench: FetchBench, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.agent.artifacts.plan._LIST_BYTES_MAX", 100)
    server.put_hub("org/repo", "c0ffee", {"m.gguf": CONTENT})
    with pytest.raises(ArtifactFailed, match="more than 100 bytes"):
        await bench.get("hf:org/repo")


async def test_what_was_removed_meanwhile_is_not_found(
    session: aiohttp.ClientSession, peer: Peer, server: FileServer
) -> None:
    theirs = await peer.bench.get(server.put("/m.gguf", CONTENT))
    holder = peer.holder(theirs)
    peer.bench.store.remove(theirs.digest)
    async with session.get(
        f"{holder.url}/artifacts/{SHA}/m.gguf", headers={"Authorization": f"Bearer {holder.ticket}"}
    ) as response:
        assert response.status == 404


async def test_an_address_that_is_not_ours_is_no_door(bench: FetchBench) -> None:
    door = Door(bench.store, DoorRules(), "203.0.113.1", KEY, SystemClock())
    await door.start()
    assert door.url is None
    await door.stop()

"""Artifacts fetched once, from the fleet or their source, into a store that many processes share."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from muster.agent.artifacts.fetcher import fetchable
from muster.agent.artifacts.room import DiskLimits
from muster.errors import ArtifactFailed, DiskFull
from muster.wire import ArtifactReply
from tests.file_server import Fault, FileServer
from tests.unit.agent_artifacts.fetching import FetchBench, archive_of, sha
from tests.waiting import eventually

CONTENT = b"GGUF" + bytes(range(256)) * 500
SHA = sha(CONTENT)
KEY = "ticket-key"


async def test_an_artifact_is_fetched_and_told_of(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/m.gguf", CONTENT)
    kept = await bench.get(name)
    assert (kept.digest, kept.size_bytes) == (SHA, len(CONTENT))
    assert bench.store.path_of(kept).read_bytes() == CONTENT
    (told,) = bench.told("artifact_fetched")
    assert (told["name"], told["digest"], told["from"]) == (name, SHA, name)
    assert bench.progress[-1] == (len(CONTENT), len(CONTENT))
    assert bench.asked == [(name, None)]
    assert bench.fetcher.flights == []
    assert list((bench.store.folder / "partial").iterdir()) == []


async def test_eight_who_ask_at_once_make_one_fetch(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/m.gguf", CONTENT)
    kept = await asyncio.gather(*(bench.get(name) for _ in range(8)))
    assert len({each.digest for each in kept}) == 1
    assert await bench.get(name) == kept[0]
    assert server.count("/m.gguf") == 1
    assert len(bench.told("artifact_fetched")) == 1


async def test_two_processes_make_one_fetch_and_the_second_sees_how_far_it_is(
    bench: FetchBench, server: FileServer, session: aiohttp.ClientSession
) -> None:
    name = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(hold_at=50_000))
    other = FetchBench(session, bench.store.folder)  # with locks of its own, as another process has them
    first = asyncio.create_task(bench.get(name))
    await eventually(lambda: bench.progress and bench.progress[-1][0] == 50_000)
    second = asyncio.create_task(other.get(name))
    await eventually(lambda: other.progress)
    assert other.progress[-1][0] >= 50_000
    server.go_on()
    assert await first == await second
    assert server.count("/m.gguf") == 1


async def test_who_gives_up_does_not_end_it_for_the_others(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(hold_at=10_000))
    first, second = asyncio.create_task(bench.get(name)), asyncio.create_task(bench.get(name))
    await eventually(lambda: bench.progress and bench.progress[-1][0] == 10_000)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    server.go_on()
    assert (await second).digest == SHA
    assert server.count("/m.gguf") == 1


async def test_when_the_last_gives_up_it_ends_and_can_be_gone_on_with(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(hold_at=10_000))
    only = asyncio.create_task(bench.get(name))
    await eventually(lambda: bench.progress and bench.progress[-1][0] == 10_000)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    assert bench.fetcher.flights == []
    assert bench.events == []
    assert (await bench.get(name)).digest == SHA
    assert server.asked[-1].range == "bytes=10000-"


async def test_a_process_that_is_killed_leaves_nothing_broken_and_a_part_to_go_on_with(
    bench: FetchBench, server: FileServer
) -> None:
    name = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(hold_at=60_000))
    program = (
        "import asyncio, pathlib, sys, aiohttp\n"
        "from tests.unit.agent_artifacts.fetching import FetchBench\n"
        "async def main():\n"
        "    async with aiohttp.ClientSession() as session:\n"
        "        await FetchBench(session, pathlib.Path(sys.argv[1])).get(sys.argv[2])\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(bench.store.folder), name)
    part = bench.store.partial(name) / "0.part"
    await eventually(lambda: part.stat().st_size == 60_000, 20)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    assert bench.store.find(name) is None
    assert bench.store.clean() == 0
    assert (await bench.get(name)).digest == SHA
    assert server.asked[-1].range == "bytes=60000-"
    assert server.count("/m.gguf") == 2


async def test_a_failure_is_told_with_a_next_step_and_can_be_tried_again(bench: FetchBench, server: FileServer) -> None:
    name = server.url("/m.gguf")
    for _ in range(2):
        with pytest.raises(ArtifactFailed, match="404"):
            await bench.get(name)
    failures = bench.told("artifact_failed")
    assert len(failures) == 2
    assert failures[0]["next_step"]
    server.put("/m.gguf", CONTENT)
    assert (await bench.get(name)).digest == SHA


async def test_a_folder_that_cannot_be_written_is_named(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactFailed, match="cannot be kept") as refused:
        await FetchBench(session, tmp_path / "file").get(server.put("/m.gguf", CONTENT))
    assert "MUSTER_ARTIFACT_DIR" in refused.value.next_step


# --- versions ---------------------------------------------------------------------------------------------------------


async def test_another_checksum_than_what_is_here_is_fetched_again(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/m.gguf", CONTENT)
    await bench.get(name)
    newer = CONTENT[::-1]
    server.put("/m.gguf", newer)
    assert (await bench.get(f"{name}#sha256={SHA}")).digest == SHA
    assert server.count("/m.gguf") == 1
    kept = await bench.get(f"{name}#sha256={sha(newer)}")
    assert kept.digest == sha(newer)
    assert bench.store.find(name) == kept
    assert bench.asked[-1] == (name, sha(newer))


async def test_what_must_be_fresh_is_compared_with_its_source(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/b.tgz", archive_of(run=b"1"))
    assert (await bench.bundle(name) / "run").read_bytes() == b"1"
    await bench.bundle(name, fresh=True)
    assert "if-none-match" in server.asked[-1].headers
    assert len(bench.told("artifact_fetched")) == 1
    server.put("/b.tgz", archive_of(run=b"22"))
    assert (await bench.bundle(name) / "run").read_bytes() == b"1"
    assert (await bench.bundle(name, fresh=True) / "run").read_bytes() == b"22"
    (entry,) = bench.store.entries()  # the older one is gone
    assert entry.names == [name]


async def test_the_older_one_stays_while_it_is_in_use(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/b.tgz", archive_of(run=b"1"))
    path = await bench.bundle(name)
    older = bench.store.find(name)
    assert older is not None
    lease = bench.store.lease(older.digest)
    server.put("/b.tgz", archive_of(run=b"22"))
    await bench.bundle(name, fresh=True)
    assert (path / "run").read_bytes() == b"1"
    lease.release()


async def test_a_source_that_is_away_is_no_reason_to_do_without(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/b.tgz", archive_of(run=b"1"))
    await bench.bundle(name)
    server.always["/b.tgz"] = Fault(status=503)
    assert (await bench.bundle(name, fresh=True) / "run").read_bytes() == b"1"


async def test_what_was_damaged_since_is_fetched_again_by_who_wants_it_fresh(
    bench: FetchBench, server: FileServer
) -> None:
    name = server.put("/m.gguf", CONTENT)
    kept = await bench.get(name)
    bench.store.path_of(kept).write_bytes(bytes(len(CONTENT)))
    again = await bench.get(name, fresh=True)
    assert bench.store.path_of(again).read_bytes() == CONTENT


async def test_a_pinned_version_needs_no_question(bench: FetchBench, server: FileServer) -> None:
    name = f"{server.put('/m.gguf', CONTENT)}#sha256={SHA}"
    await bench.get(name)
    await bench.get(name, fresh=True)
    assert server.count("/m.gguf") == 1


# --- bundles ----------------------------------------------------------------------------------------------------------


async def test_a_bundle_that_leads_outside_is_not_kept(bench: FetchBench, server: FileServer) -> None:
    name = server.put("/b.tgz", archive_of(**{"../escaped": b"1"}))
    with pytest.raises(ArtifactFailed, match="outside of its folder"):
        await bench.bundle(name)
    assert bench.store.entries() == []
    assert not list(bench.store.folder.rglob("escaped"))


# --- a model hub ------------------------------------------------------------------------------------------------------


async def test_one_file_of_a_repository(bench: FetchBench, server: FileServer) -> None:
    server.put_hub("org/repo", "c0ffee", {"m.gguf": CONTENT, "other.gguf": b"GGUF2", "README.md": b"#"})
    kept = await bench.get("hf:org/repo/m.gguf")
    assert kept.digest == SHA
    assert bench.store.path_of(kept).name == "m.gguf"
    assert server.count("/org/repo/resolve/c0ffee/m.gguf") == 1
    assert server.asked[0].headers["authorization"] == "Bearer hub-token"
    assert len(server.asked) == 2


async def test_a_whole_repository_is_one_artifact(bench: FetchBench, server: FileServer) -> None:
    files = {"config.json": b"{}", "sub/model.safetensors": CONTENT, ".gitattributes": b"x"}
    server.put_hub("org/repo", "c0ffee", files, revision="v1")
    kept = await bench.get("hf:org/repo@v1")
    path = bench.store.path_of(kept)
    assert (path / "config.json").read_bytes() == b"{}"
    assert (path / "sub" / "model.safetensors").read_bytes() == CONTENT
    assert not (path / ".gitattributes").exists()
    assert bench.progress[-1] == (len(CONTENT) + 2, len(CONTENT) + 2)
    assert bench.store.named("hf:org/repo@v1").validator == "c0ffee"  # type: ignore[union-attr]  # it is there


async def test_further_parts_of_a_model_come_with_the_first(bench: FetchBench, server: FileServer) -> None:
    parts = {f"m-0000{number}-of-00003.gguf": CONTENT + bytes([number]) for number in (1, 2, 3)}
    server.put_hub("org/repo", "c0ffee", parts | {"x-00002-of-00003.gguf": b"GGUF", "other.gguf": b"GGUF"})
    kept = await bench.get("hf:org/repo/m-00001-of-00003.gguf")
    assert sorted(path.name for path in bench.store.path_of(kept).iterdir()) == sorted(parts)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hf:org/repo", "has several models: a.gguf, b.gguf"),
        ("hf:org/repo/a.ggu", "did you mean a.gguf"),
        ("hf:org/repo/zzz", "it has a.gguf, b.gguf, mmproj.gguf"),
        ("hf:org/none", "404"),
        ("hf:org/repo@v9", "404"),
        ("hf:org/empty", "has no files"),
    ],
)
async def test_what_a_repository_does_not_have(bench: FetchBench, server: FileServer, name: str, why: str) -> None:
    server.put_hub("org/repo", "c0ffee", {"a.gguf": b"1", "b.gguf": b"2", "mmproj.gguf": b"3"})
    server.put_hub("org/empty", "c0ffee", {})
    with pytest.raises(ArtifactFailed, match=why):
        await bench.get(name)


async def test_a_newer_commit_is_fetched_when_asked_for(bench: FetchBench, server: FileServer) -> None:
    server.put_hub("org/repo", "aaa", {"m.gguf": CONTENT})
    await bench.get("hf:org/repo/m.gguf")
    await bench.get("hf:org/repo/m.gguf", fresh=True)
    assert server.count("/org/repo/resolve/aaa/m.gguf") == 1
    server.put_hub("org/repo", "bbb", {"m.gguf": CONTENT + b"!"})
    assert (await bench.get("hf:org/repo/m.gguf", fresh=True)).size_bytes == len(CONTENT) + 1


@pytest.mark.parametrize("document", ["nonsense", {"sha": 1}, {"siblings": []}])
async def test_a_hub_that_answers_something_else_is_told_of(
    bench: FetchBench, server: FileServer, document: Any
) -> None:
    server.documents["/api/models/org/repo/revision/main"] = document
    with pytest.raises(ArtifactFailed, match="was not understood"):
        await bench.get("hf:org/repo")


async def test_a_hub_that_is_busy_is_asked_again(bench: FetchBench, server: FileServer) -> None:
    server.put_hub("org/repo", "c0ffee", {"m.gguf": CONTENT})
    server.fail("/api/models/org/repo/revision/main", Fault(status=429, headers={"Retry-After": "1"}))
    assert (await bench.get("hf:org/repo")).digest == SHA
    server.always["/api/models/org/repo/revision/main"] = Fault(status=500)
    with pytest.raises(ArtifactFailed, match="500"):
        await bench.get("hf:org/repo/m.gguf")


# --- room -------------------------------------------------------------------------------------------------------------


async def test_room_is_made_by_what_the_fleet_misses_least(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    bench = FetchBench(
        session,
        tmp_path / "store",
        disk=DiskLimits(disk_bytes_max=22_000),
        is_wanted=lambda entry: entry.names[0].endswith("wanted"),
    )
    kept = {}
    for name in ("only", "spare", "wanted"):  # of these the spare one is not the oldest
        kept[name] = await bench.get(server.put(f"/{name}", name.encode() * 1000))
    bench.copies = ArtifactReply(in_pool=(kept["spare"].digest,))
    await bench.get(server.put("/new", b"n" * 10_000))
    (removed,) = bench.told("artifact_removed")
    assert removed["names"] == [server.url("/spare")]
    assert removed["reason"] == f"to make room for {server.url('/new')}"
    await bench.get(server.put("/newer", b"m" * 8_000))
    assert bench.told("artifact_removed")[1]["names"] == [server.url("/only")]


async def test_what_is_in_use_stays_and_the_new_one_is_refused(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    bench = FetchBench(session, tmp_path / "store", disk=DiskLimits(disk_bytes_max=15_000))
    kept = await bench.get(server.put("/used", b"u" * 10_000))
    lease = bench.store.lease(kept.digest)
    with pytest.raises(DiskFull, match="artifact_disk_bytes_max is 15000") as refused:
        await bench.get(server.put("/new", b"n" * 10_000))
    assert "muster model rm" in refused.value.next_step
    assert bench.told("artifact_failed")[0]["reason"] == refused.value.message
    assert bench.store.find(server.url("/used")) == kept
    lease.release()
    assert (await bench.get(server.url("/new"))).size_bytes == 10_000


async def test_what_is_left_free_is_left_free(
    session: aiohttp.ClientSession, tmp_path: Path, server: FileServer
) -> None:
    bench = FetchBench(session, tmp_path / "store", disk=DiskLimits(free_bytes_min=10**18))
    with pytest.raises(DiskFull, match="artifact_free_bytes_min"):
        await bench.get(server.put("/m", CONTENT))


SMALL_DISK = """
import asyncio, pathlib, sys, aiohttp
from muster.errors import DiskFull
from tests.unit.agent_artifacts.fetching import FetchBench
async def main():
    folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    async with aiohttp.ClientSession() as session:
        bench = FetchBench(session, folder)
        try:
            await bench.get(name)
        except DiskFull as error:
            print(error.message)
        else:
            raise SystemExit("it fitted")
        assert bench.store.find(name) is None
        part = bench.store.partial(name) / "0.part"
        assert part.stat().st_size > 100_000, part.stat().st_size
        (folder / "filler").unlink()
        kept = await bench.get(name)
        print(kept.size_bytes, bench.kinds())
asyncio.run(main())
"""


def test_a_disk_that_really_gets_full_keeps_the_part_and_serves_nothing_broken(
    tmp_path: Path, server: FileServer
) -> None:
    """The length is not told, so that the disk is the first to notice; others fill it while it comes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    content = bytes(range(256)) * 4 * 1024  # 1 MiB on a disk of 1.2 with a filler of 0.8
    name = server.put("/m.gguf", content)
    server.fail("/m.gguf", Fault(unsized=True))
    script = tmp_path / "fetch.py"
    script.write_text(SMALL_DISK)
    inside = (
        f'mount -t tmpfs -o size=1228k tmpfs "{disk}" && head -c 800000 /dev/zero > "{disk}/filler" '
        f'&& exec "{sys.executable}" "{script}" "{disk}" "{name}"'
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", inside],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": f"{Path(__file__).parents[3]}:{Path(__file__).parents[3] / 'src'}", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "[info" not in line and "[warn" not in line]
    assert "disk is full" in said[0]
    assert said[1] == f"{len(content)} ['artifact_failed', 'artifact_fetched']"
    assert server.asked[-1].range is not None


def test_only_what_we_fetch_ourselves_is_fetched_here() -> None:
    assert fetchable("ollama:qwen") is None
    assert fetchable("smollm2-135m") is None
    assert fetchable("hf:o/r") is not None

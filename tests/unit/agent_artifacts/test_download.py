"""One file over real HTTP, from a server that fails in every way that servers and networks have."""

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from muster.agent.artifacts import part as parts
from muster.agent.artifacts.download import Downloads, Got, Limits, Wanted
from muster.agent.artifacts.part import Part
from muster.agent.artifacts.patience import Patience
from muster.agent.backoff import Backoff
from muster.errors import ArtifactFailed, DiskFull
from muster.system import SystemClock
from tests.chance import FixedChance
from tests.file_server import Fault, FileServer
from tests.waiting import eventually

CONTENT = bytes(range(256)) * 800
SHA = hashlib.sha256(CONTENT).hexdigest()
PATIENT = Patience(attempts_max=3, backoff=Backoff(base_s=0.001, max_s=0.002, jitter=0.0))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


class Bench:
    """A downloader whose waits take no time but are noted."""

    def __init__(self, session: aiohttp.ClientSession, folder: Path) -> None:
        self.part = Part(folder / "0.part")
        self.waits_s: list[float] = []
        self.progress: list[tuple[int, int | None]] = []
        self.asked_room: list[int] = []
        self.room_error: Exception | None = None
        limits = Limits(connect_s=5.0, idle_s=5.0, patience=PATIENT)
        self.session = session
        self.downloads = Downloads(session, limits, SystemClock(), FixedChance(), self._pause)

    async def _pause(self, seconds: float) -> None:
        self.waits_s.append(seconds)

    async def _room(self, more: int) -> None:
        self.asked_room.append(more)
        if self.room_error is not None:
            raise self.room_error

    async def get(self, url: str, **known: Any) -> Got:
        wanted = Wanted(path="m.gguf", url=url, shown=url.partition("?")[0], **known)
        return await self.downloads.fetch(
            wanted, self.part, lambda done, total: self.progress.append((done, total)), self._room
        )


@pytest.fixture
async def bench(server: FileServer, tmp_path: Path) -> AsyncIterator[Bench]:
    async with aiohttp.ClientSession() as session:
        made = Bench(session, tmp_path)
        server.has_arrived = lambda count: made.part.size >= count
        yield made


async def test_a_file_comes_whole_and_with_its_checksum(server: FileServer, bench: Bench) -> None:
    got = await bench.get(server.put("/m.gguf", CONTENT))
    assert (got.file.path, got.file.size_bytes, got.file.sha256) == ("m.gguf", len(CONTENT), SHA)
    assert got.validator == server.tags["/m.gguf"]
    assert bench.part.path.read_bytes() == CONTENT
    assert bench.progress[0] == (0, len(CONTENT))
    assert bench.progress[-1] == (len(CONTENT), len(CONTENT))
    assert bench.asked_room == [len(CONTENT)]
    assert "authorization" not in server.asked[0].headers


async def test_a_cut_in_the_middle_is_gone_on_with(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(cut_at=50_000), Fault(cut_at=60_000))
    got = await bench.get(url)
    assert got.file.sha256 == SHA
    first, second, third = server.asked
    assert first.range is None
    assert second.range == "bytes=50000-"
    assert second.headers["if-range"] == server.tags["/m.gguf"]
    assert third.range == "bytes=110000-"
    assert len(bench.waits_s) == 2


async def test_it_goes_on_though_it_fails_often_as_long_as_something_comes(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", *[Fault(cut_at=10_000)] * 8)
    assert (await bench.get(url)).file.sha256 == SHA


async def test_what_another_process_has_begun_is_gone_on_with(server: FileServer, tmp_path: Path, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", *[Fault(cut_at=40_000), *[Fault(status=500)] * 3])
    with pytest.raises(ArtifactFailed, match="the server answered 500"):
        await bench.get(url)
    assert bench.part.size == 40_000
    got = await Bench(bench.session, tmp_path).get(url)
    assert server.asked[-1].range == "bytes=40000-"
    assert got.file.sha256 == SHA


async def test_a_file_that_has_changed_meanwhile_comes_anew(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", *[Fault(cut_at=40_000), *[Fault(status=500)] * 3])
    with pytest.raises(ArtifactFailed):
        await bench.get(url)
    newer = CONTENT[::-1]
    server.put("/m.gguf", newer)
    got = await bench.get(url)
    assert server.asked[-1].range == "bytes=40000-"
    assert bench.part.path.read_bytes() == newer
    assert got.file.sha256 == hashlib.sha256(newer).hexdigest()


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
async def test_without_a_word_on_its_version_a_part_is_not_gone_on_with(
    server: FileServer, bench: Bench, tag: str | None
) -> None:
    url = server.put("/m.gguf", CONTENT, tag=tag)
    server.fail("/m.gguf", Fault(cut_at=50_000))
    assert (await bench.get(url)).file.sha256 == SHA
    assert server.asked[-1].range is None


async def test_with_a_checksum_it_is_because_that_would_tell(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT, tag=None)
    server.fail("/m.gguf", Fault(cut_at=50_000))
    assert (await bench.get(url, sha256=SHA)).file.sha256 == SHA
    assert server.asked[-1].range == "bytes=50000-"


async def test_a_server_without_ranges_sends_it_from_the_start(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(cut_at=50_000), Fault(no_ranges=True))
    assert (await bench.get(url)).file.sha256 == SHA
    assert bench.part.path.read_bytes() == CONTENT


async def test_another_part_than_was_asked_for_is_not_put_in(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    wrong = {"Content-Range": f"bytes 0-9/{len(CONTENT)}"}
    server.fail("/m.gguf", Fault(cut_at=50_000), Fault(headers=wrong))
    assert (await bench.get(url)).file.sha256 == SHA


@pytest.mark.parametrize("status", [403, 429, 503])
async def test_who_says_when_to_come_again_is_obeyed(server: FileServer, bench: Bench, status: int) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(status=status, headers={"Retry-After": "7"}))
    assert (await bench.get(url)).file.sha256 == SHA
    assert bench.waits_s == [7.0]


async def test_who_says_it_too_often_is_given_up_with_a_next_step(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.always["/m.gguf"] = Fault(status=429, headers={"Retry-After": "7"})
    with pytest.raises(ArtifactFailed, match="429 and asks to be left alone for 7 s") as refused:
        await bench.get(url)
    assert refused.value.next_step
    assert bench.waits_s == [7.0, 7.0]
    assert server.count("/m.gguf") == 3


async def test_who_asks_for_an_hour_is_not_waited_for(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.always["/m.gguf"] = Fault(status=503, headers={"Retry-After": "3600"})
    with pytest.raises(ArtifactFailed, match="left alone for 3600 s"):
        await bench.get(url)
    assert bench.waits_s == []


@pytest.mark.parametrize(
    ("status", "step"),
    [(404, "check the name"), (410, "check the name"), (401, "HF_TOKEN"), (400, "check the address")],
)
async def test_what_will_not_pass_is_not_tried_again(server: FileServer, bench: Bench, status: int, step: str) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.always["/m.gguf"] = Fault(status=status)
    with pytest.raises(ArtifactFailed, match=str(status)) as refused:
        await bench.get(f"{url}?token=s3cret")
    assert step in refused.value.next_step
    assert "s3cret" not in refused.value.message
    assert server.count("/m.gguf") == 1


async def test_a_refusal_for_good_says_what_may_help(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.always["/m.gguf"] = Fault(status=403)
    with pytest.raises(ArtifactFailed) as refused:
        await bench.get(url)
    assert "HF_TOKEN" in refused.value.next_step


async def test_a_wrong_checksum_leaves_nothing(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    with pytest.raises(ArtifactFailed, match="thrown away: its checksum is"):
        await bench.get(url, sha256="0" * 64)
    assert not bench.part.path.exists()
    assert server.count("/m.gguf") == 1


async def test_a_part_of_something_else_is_thrown_away_and_it_comes_anew(server: FileServer, bench: Bench) -> None:
    bench.part.path.write_bytes(b"x" * 1000)
    bench.part.begin(parts.Begun(source="elsewhere"))
    got = await bench.get(server.put("/m.gguf", CONTENT), sha256=SHA)
    assert got.file.sha256 == SHA
    assert [asked.range for asked in server.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
async def test_a_wrong_size_is_seen_before_it_is_fetched(server: FileServer, bench: Bench, size: int) -> None:
    with pytest.raises(ArtifactFailed, match=f"has {len(CONTENT)} bytes there and must have {size}"):
        await bench.get(server.put("/m.gguf", CONTENT), size_bytes=size)
    assert bench.part.size == 0


async def test_more_than_can_be_is_cut_off(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.always["/m.gguf"] = Fault(unsized=True, instead=CONTENT * 2)
    with pytest.raises(ArtifactFailed, match=f"must have {len(CONTENT)}"):
        await bench.get(url, size_bytes=len(CONTENT))
    assert not bench.part.path.exists()


async def test_less_than_was_announced_is_not_taken_for_the_whole(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(cut_at=len(CONTENT) - 1))
    assert (await bench.get(url)).file.sha256 == SHA
    assert server.count("/m.gguf") == 2


async def test_a_file_without_a_length_comes_in_chunks(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.always["/m.gguf"] = Fault(unsized=True)
    assert (await bench.get(url)).file.sha256 == SHA
    assert bench.progress[-1] == (len(CONTENT), None)


async def test_what_is_whole_already_is_only_read(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    bench.part.path.write_bytes(CONTENT)
    bench.part.begin(parts.Begun(source="anywhere", validator='"x"'))
    got = await bench.get(url, size_bytes=len(CONTENT), sha256=SHA)
    assert (got.file.sha256, got.validator) == (SHA, '"x"')
    assert server.asked == []


async def test_a_part_that_is_as_long_as_the_file_but_was_another_is_begun_anew(
    server: FileServer, bench: Bench
) -> None:
    url = server.put("/m.gguf", CONTENT)
    bench.part.path.write_bytes(b"x" * (len(CONTENT) + 5))
    bench.part.begin(parts.Begun(source=parts.mark_of(url), validator=server.tags["/m.gguf"]))
    assert (await bench.get(url)).file.sha256 == SHA  # the server says 416 first


async def test_silence_ends_an_attempt(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(hang_at=30_000))
    bench.downloads = Downloads(
        bench.session, Limits(idle_s=0.2, patience=PATIENT), SystemClock(), FixedChance(), bench._pause
    )
    assert (await bench.get(url)).file.sha256 == SHA
    assert server.asked[-1].range == "bytes=30000-"


async def test_nobody_there_is_told_in_words(bench: Bench) -> None:
    with pytest.raises(ArtifactFailed, match="cannot be fetched: ") as refused:
        await bench.get("http://127.0.0.1:1/m.gguf")
    assert "check the network" in refused.value.next_step
    assert len(bench.waits_s) == 2


async def test_who_waits_no_longer_leaves_a_part_to_go_on_with(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    server.fail("/m.gguf", Fault(hold_at=50_000))
    fetching = asyncio.create_task(bench.get(url))
    await eventually(lambda: bench.part.size == 50_000)
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    assert (await bench.get(url)).file.sha256 == SHA
    assert server.asked[-1].range == "bytes=50000-"


async def test_where_there_is_no_room_nothing_is_written(server: FileServer, bench: Bench) -> None:
    bench.room_error = DiskFull("no room", next_step="make some")
    with pytest.raises(DiskFull):
        await bench.get(server.put("/m.gguf", CONTENT))
    assert bench.part.size == 0


async def test_a_disk_that_gets_full_leaves_what_has_come(
    server: FileServer, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.put("/m.gguf", CONTENT)
    write = parts.Sink.write

    def full(sink: parts.Sink, chunk: bytes) -> None:
        if sink.size + len(chunk) > 100_000:
            write(sink, chunk[: 100_000 - sink.size])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(sink, chunk)

    monkeypatch.setattr(parts.Sink, "write", full)
    with pytest.raises(DiskFull, match="the disk is full") as refused:
        await bench.get(url)
    assert "muster model rm" in refused.value.next_step
    have = bench.part.size
    assert have == 100_000
    monkeypatch.undo()
    assert (await bench.get(url)).file.sha256 == SHA
    assert server.asked[-1].range == f"bytes={have}-"


async def test_a_token_stays_with_the_server_that_it_is_for(bench: Bench) -> None:
    with FileServer() as hub, FileServer() as store:
        target = store.put("/cdn/m.gguf", CONTENT)
        hub.always["/m.gguf"] = Fault(status=302, headers={"Location": target})
        got = await bench.get(hub.url("/m.gguf"), headers={"Authorization": "Bearer s3cret"})
        assert got.file.sha256 == SHA
        assert hub.asked[0].headers["authorization"] == "Bearer s3cret"
        assert "authorization" not in store.asked[0].headers


async def test_a_peer_may_not_send_us_elsewhere(server: FileServer, bench: Bench) -> None:
    server.always["/m.gguf"] = Fault(status=302, headers={"Location": server.put("/x", CONTENT)})
    with pytest.raises(ArtifactFailed, match="302"):
        await bench.get(server.url("/m.gguf"), moves=False)


async def test_whether_a_file_has_changed_is_asked_without_fetching_it(server: FileServer, bench: Bench) -> None:
    url = server.put("/m.gguf", CONTENT)
    wanted = Wanted(path="m.gguf", url=url, shown=url)
    assert await bench.downloads.is_unchanged(wanted, server.tags["/m.gguf"] or "")
    assert not await bench.downloads.is_unchanged(wanted, '"older"')
    assert not await bench.downloads.is_unchanged(wanted, "Thu, 01 Jan 1970 00:00:00 GMT")
    assert server.asked[-1].headers["if-modified-since"]
    for status in (404, 503):
        server.always["/m.gguf"] = Fault(status=status)
        with pytest.raises(ArtifactFailed):
            await bench.downloads.is_unchanged(wanted, '"x"')
    with pytest.raises(ArtifactFailed):
        await bench.downloads.is_unchanged(Wanted(path="", url="http://127.0.0.1:1/", shown=""), '"x"')

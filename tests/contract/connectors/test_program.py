"""Programs of the node's file: their words, their limits, and that nothing of them is left."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from muster.connectors.program.cgroup import Cgroup
from muster.connectors.program.config import Limits, Program
from muster.connectors.program.connector import ProgramConnector, ProgramFailed
from muster.domain.job import Progress
from muster.errors import InvalidInput, PayloadTooLarge, SetupError, UpstreamFailed, UpstreamTimeout
from tests.contract.connectors.makers import NO_FILES, KeptFiles, claimed, unheard
from tests.waiting import eventually

UNIFIED = Path("/sys/fs/cgroup/unified")


def python(code: str, *words: str, **more: Any) -> Program:
    return Program(name="it", command=(sys.executable, "-c", code, *words), **more)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "attempts"
    folder.mkdir()
    return folder


async def run(program: Program, root: Path, payload: Any = None, report: Any = unheard, files: Any = NO_FILES) -> Any:
    return await ProgramConnector(program, root).run(claimed(payload, "command:it"), None, report, files)


async def test_its_last_line_is_the_result_as_json_or_text(root: Path) -> None:
    assert await run(python("print('a'); print('{\"n\": 1}')"), root) == {"n": 1}
    assert await run(python("print('two words')"), root) == "two words"
    assert await run(python("pass"), root) is None


async def test_lines_of_progress_are_told_and_no_part_of_the_result(root: Path) -> None:
    code = """print('{"progress": 0.5, "message": "half"}'); print('{"n": 1}'); print('{"progress": 1.0}')"""
    heard: list[Progress] = []
    assert await run(python(code), root, None, heard.append) == {"n": 1}
    assert heard == [Progress(fraction=0.5, message="half"), Progress(fraction=1.0)]


async def test_the_payload_takes_the_place_of_words_and_no_shell_reads_them(root: Path) -> None:
    program = python("import sys, json; print(json.dumps(sys.argv[1:]))", "{text}", "-n={n:int}", "{mode:fast|good}")
    payload = {"args": {"text": "$(id); `id` > x", "n": 3, "mode": "good"}}
    assert await run(program, root, payload) == ["$(id); `id` > x", "-n=3", "good"]


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"text": "x", "n": 3}, "payload.args.mode"),
        ({"text": "x", "n": "3", "mode": "good"}, "payload.args.n"),
        ({"text": "x", "n": True, "mode": "good"}, "payload.args.n"),
        ({"text": "x", "n": 3, "mode": "best"}, "payload.args.mode"),
        ({"text": "--exec=id", "n": 3, "mode": "good"}, "payload.args.text"),
        ({"text": "a\0b", "n": 3, "mode": "good"}, "payload.args.text"),
        ({"text": "x", "n": 3, "mode": "good", "more": 1}, "payload.args.more"),
    ],
)
async def test_words_that_do_not_fit_are_refused(root: Path, args: dict[str, Any], field: str) -> None:
    program = python("pass", "{text}", "-n={n:int}", "{mode:fast|good}")
    with pytest.raises(InvalidInput) as refused:
        await run(program, root, {"args": args})
    assert refused.value.field == field


async def test_it_reads_its_input_and_works_in_a_directory_that_is_gone_afterwards(root: Path) -> None:
    code = "import os, sys; open('x', 'w').write('1'); print(os.getcwd(), '{dir}' == '', sys.stdin.read(), sys.argv[1])"
    where, _, said, told = (await run(python(code, "{dir}"), root, {"stdin": "hello"})).split()
    assert said == "hello"
    assert where == told
    assert Path(where).parent == root
    assert not _left_in(root)


async def test_a_file_holds_the_result_and_others_are_kept(root: Path) -> None:
    code = "open('r.json','w').write('[1]'); open('a.png','w').write('p'); open('b.txt','w'); print('no')"
    files = KeptFiles()
    result = await run(python(code, result="r.json", keep=("*.png",)), root, None, unheard, files)
    assert result["result"] == [1]
    assert [kept.name for kept in result["files"]] == ["a.png"]
    assert files.kept == {"a.png": b"p"}
    with pytest.raises(ProgramFailed, match=r"wrote no r\.json"):
        await run(python("pass", result="r.json"), root)


async def test_a_link_is_no_file_of_its_own(root: Path) -> None:
    code = "import os; os.symlink('/etc/passwd', 'a.png'); os.symlink('/etc/passwd', 'r.json'); print(1)"
    files = KeptFiles()
    assert (await run(python(code, keep=("*.png",)), root, None, unheard, files))["files"] == []
    with pytest.raises(ProgramFailed):
        await run(python(code, result="r.json"), root)


async def test_a_file_of_the_fleet_is_fetched_first(root: Path) -> None:
    files = KeptFiles({"/api/files/~~file-1/in.txt": b"content"})
    program = python("import sys; print(open(sys.argv[1]).read())", "{source:file}", keep=("*",))
    result = await run(program, root, {"args": {"source": "/api/files/~~file-1/in.txt"}}, unheard, files)
    assert result == {"result": "content", "files": []}
    with pytest.raises(InvalidInput, match=r"payload\.args\.source must be the url of a file"):
        await run(program, root, {"args": {"source": "/etc/passwd"}}, unheard, files)


async def test_its_exit_says_whether_it_is_worth_another_try(root: Path) -> None:
    with pytest.raises(ProgramFailed, match="exited with code 3: oh no") as failed:
        await run(python("import sys; sys.stderr.write('oh no'); sys.exit(3)"), root)
    assert not failed.value.retriable
    with pytest.raises(UpstreamFailed, match="exited with code 75"):
        await run(python("import sys; sys.exit(75)"), root)
    with pytest.raises(UpstreamFailed, match="ended by SIGKILL"):
        await run(python("import os; os.kill(os.getpid(), 9)"), root)


async def test_our_secrets_are_not_its_business(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_TOKEN", "secret")
    code = "import os; print(os.environ.get('MUSTER_TOKEN', 'none'), os.environ['MINE'])"
    assert await run(python(code, env={"MINE": "yes"}), root) == "none yes"


async def test_its_output_is_bounded(root: Path) -> None:
    with pytest.raises(PayloadTooLarge, match="more than 2000 bytes"):
        await run(python("while True: print('x' * 100)", output_bytes_max=2000), root)
    with pytest.raises(PayloadTooLarge, match="a line of more than"):
        await run(python("print('x' * 3000000)"), root)


async def test_its_time_and_memory_are_bounded(root: Path) -> None:
    forever = "import signal; signal.pause()"
    with pytest.raises(UpstreamTimeout, match=r"did not end within 0\.3 s"):
        await run(python(forever, timeout_s=0.3), root)
    with pytest.raises(ProgramFailed, match="MemoryError"):
        await run(python("x = bytearray(1_000_000_000)", limits=Limits(memory_mb=300)), root)
    with pytest.raises(UpstreamFailed, match=r"ended by SIG(KILL|XCPU)"):
        await run(python("while True: pass", limits=Limits(cpu_s=1)), root)


FAMILY = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"])
print('{"message": "%d %d"}' % (os.getpid(), child.pid), flush=True)
signal.pause()
"""


async def test_a_cancel_ends_it_and_its_children_within_a_second(root: Path) -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hear(progress: Progress) -> None:
        told.set_result(progress.message or "")

    task = asyncio.create_task(run(python(FAMILY), root, None, hear))
    pids = [int(pid) for pid in (await asyncio.wait_for(told, 20)).split()]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1.0)
    await eventually(lambda: not any(_lives(pid) for pid in pids), 10)
    assert not _left_in(root)


async def test_a_polite_program_may_clean_up(root: Path, tmp_path: Path) -> None:
    note, heard = tmp_path / "note", asyncio.Event()
    code = f"""
import signal, sys
def bye(*_): open({str(note)!r}, "w").write("bye"); sys.exit(0)
signal.signal(signal.SIGTERM, bye); print('{{"message": "here"}}', flush=True); signal.pause()
"""
    task = asyncio.create_task(run(python(code, stop_s=10), root, None, lambda _: heard.set()))
    await asyncio.wait_for(heard.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert note.read_text() == "bye"


async def test_what_it_leaves_behind_is_ended_too(root: Path) -> None:
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdout=subprocess.DEVNULL)
print(child.pid)
"""
    pid = await run(python(code), root)
    await eventually(lambda: not _lives(pid), 10)


async def test_a_child_that_fled_with_the_pipe_is_not_waited_for(root: Path) -> None:
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
print(child.pid)
"""
    pid = await asyncio.wait_for(run(python(code), root), 10)
    os.kill(pid, signal.SIGKILL)


def _left_in(root: Path) -> list[Path]:
    return list(root.iterdir())


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_program_that_is_not_there_is_not_offered(root: Path) -> None:
    connector = ProgramConnector(Program(name="it", command=("no-such-program",)), root)
    assert connector.missing == "there is no program 'no-such-program' on this machine"
    with pytest.raises(UpstreamFailed, match="cannot be started"):
        await connector.run(claimed(None, "command:it"), None, unheard, NO_FILES)
    assert ProgramConnector(python("pass"), root).missing is None


@pytest.mark.parametrize("command", [("a", "{x:whatever}"), ("{a}",)])
def test_placeholders_that_nobody_can_fill_in_are_refused_at_start(root: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(SetupError, match="placeholder"):
        ProgramConnector(Program(name="it", command=command), root)


# --- cgroups ----------------------------------------------------------------------------------------------------------


def test_limits_are_written_where_a_cgroup_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Path.mkdir

    def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
        made(path, *args, **kwargs)
        for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max"):
            (path / name).write_text("max")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    cgroup = Cgroup.make(str(tmp_path), "job-1", Limits(memory_mb=2, cpu_percent=150))
    assert cgroup is not None
    assert cgroup.limits_memory
    assert (tmp_path / "job-1" / "memory.max").read_text() == str(2 * 1024 * 1024)
    assert (tmp_path / "job-1" / "cpu.max").read_text() == "150000 100000"


def test_without_delegation_there_is_none_and_the_log_says_why(tmp_path: Path) -> None:
    assert Cgroup.make(str(tmp_path / "not there"), "job-1", Limits()) is None


@pytest.mark.skipif(not os.access(UNIFIED, os.W_OK), reason="needs a cgroup v2 tree that this user may write to")
async def test_a_child_that_leaves_the_group_of_processes_does_not_leave_the_cgroup(root: Path) -> None:
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"],
    stdout=subprocess.DEVNULL, start_new_session=True)
print(child.pid)
"""
    pid = await run(python(code, cgroup=str(UNIFIED), limits=Limits(memory_mb=500)), root)
    await eventually(lambda: not _lives(pid), 10)
    await eventually(lambda: not (UNIFIED / "job-job-1-1").exists(), 10)

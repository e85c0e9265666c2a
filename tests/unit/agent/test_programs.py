"""Programs that a node's file allows by name, as real processes."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from muster.agent.programs import AllowedPrograms
from muster.domain.job import Progress
from muster.errors import Forbidden, InvalidInput, UpstreamFailed
from tests.waiting import eventually

PYTHON = sys.executable


def unheard(_: Progress) -> None:
    raise AssertionError("programs tell no progress")


async def run(tmp_path: Path, program: list[str], *words: str) -> dict[str, Any]:
    return await AllowedPrograms({"it": program}, tmp_path).run({"name": "it", "args": list(words)}, unheard)


async def test_output_and_exit_code_come_back(tmp_path: Path) -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    found = await run(tmp_path, [PYTHON, "-u", "-c", script])
    assert found == {"exit_code": 3, "output": "out\nerr\n", "output_cut": False}


async def test_words_take_the_place_that_the_file_gives_them_and_no_shell_reads_them(tmp_path: Path) -> None:
    show = [PYTHON, "-c", "import sys; print(sys.argv[1:])", "a", "{args}", "z"]
    found = await run(tmp_path, show, "$(id)", "; rm -rf /", "{args}")
    assert found["output"] == "['a', '$(id)', '; rm -rf /', '{args}', 'z']\n"
    assert (await run(tmp_path, show))["output"] == "['a', 'z']\n"


async def test_words_are_refused_where_the_file_has_no_place_for_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="takes no further words"):
        await run(tmp_path, [PYTHON, "-V"], "-c", "print(1)")


async def test_what_the_file_does_not_list_is_refused_with_what_it_does(tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match="it allows nothing"):
        await AllowedPrograms({}, tmp_path).run({"name": "sh"}, unheard)
    with pytest.raises(Forbidden, match="it allows df, uptime"):
        await AllowedPrograms({"uptime": ["uptime"], "df": ["df"]}, tmp_path).run({"name": "sh"}, unheard)


async def test_output_is_bounded_and_a_loud_program_ends_all_the_same(tmp_path: Path) -> None:
    found = await run(tmp_path, [PYTHON, "-c", "print('x' * 1_000_000)"])
    assert (found["exit_code"], len(found["output"]), found["output_cut"]) == (0, 32_768, True)


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UpstreamFailed, match="there is no command 'no-such-program'"):
        await run(tmp_path, ["no-such-program"])


async def test_our_own_settings_are_none_of_its_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_TOKEN", "secret")
    found = await run(tmp_path, [PYTHON, "-c", "import os; print(os.environ.get('MUSTER_TOKEN'), os.getcwd())"])
    assert found["output"] == f"None {tmp_path}\n"


async def test_who_waits_no_longer_ends_it_and_its_children(tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('pid.part').write_text(str(child.pid))\n"
        "pathlib.Path('pid.part').rename('pid')\n"
        "time.sleep(600)\n"
    )
    running = asyncio.create_task(run(tmp_path, [PYTHON, str(script)]))
    await eventually((tmp_path / "pid").exists, 30)
    child = psutil.Process(int((tmp_path / "pid").read_text()))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    await eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 30)

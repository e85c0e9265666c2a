"""Services whose agent is killed, restarted or never comes back; and their keeper, which may be killed as well."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest

from muster.agent.config import ServiceTemplate
from muster.agent.services import keeper, keeping
from muster.agent.services import supervisor as supervisors
from muster.agent.services.figures import ProcessMonitor, Watched
from muster.agent.services.keeper import MARKER
from muster.agent.services.keeping import KeeperClient, Kept
from muster.agent.services.sockets import free_port
from muster.agent.services.template import instances
from muster.domain.process import ProcessFigures
from muster.domain.service import ServiceStatus
from tests.integration.agent.conftest import Open
from tests.integration.agent.services import Site, alive, still, web
from tests.integration.agent.supervisor_process import SupervisorProcess
from tests.waiting import eventually, eventually_sync

LONG_S = 60.0
SOURCE = Path(keeper.__file__).read_text()


def keepers(data_dir: Path) -> list[psutil.Process]:
    """Return the keepers of a data directory."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(data_dir / "services") in (process.info["cmdline"] or ())
    ]


@pytest.fixture(autouse=True)
def nothing_remains(tmp_path: Path) -> Iterator[None]:
    yield
    for left in keepers(tmp_path):
        left.terminate()
    eventually_sync(lambda: not keepers(tmp_path), 20)


async def fled(site: Site, url: str | None) -> int:
    async with site.session.get(f"{url}/flee") as answer:
        return int(await answer.text())


async def test_services_of_a_killed_agent_are_taken_over_by_the_next(site: Open, tmp_path: Path) -> None:
    templates = web("one"), web("two", adopt="after_stop")
    with SupervisorProcess(tmp_path, *templates, adopt_within_s=LONG_S) as agent:
        agent.kill()
        assert all(alive(pid) for pid in agent.pids.values())
    opened = site(*templates, adopt_within_s=LONG_S)
    await opened.supervisor.start()
    for name, pid in agent.pids.items():
        service = opened.service(name)
        assert (service.pid, service.status, service.restarts) == (pid, ServiceStatus.RUNNING, 0)
        assert await opened.get("/", name) == "ok"
    assert [told["adopted"] for told in opened.told("service_started")] == [True, True]


async def after_one_that_vanished(site: Open, *templates: ServiceTemplate, **more: Any) -> dict[str, int | None]:
    """Have an agent start services and be gone; return their pids."""
    before = site(*templates, **({"adopt_within_s": LONG_S} | more))
    await before.supervisor.start()
    return await before.vanish()


async def test_one_that_was_taken_over_is_looked_after_as_any_other(site: Open, tmp_path: Path) -> None:
    pids = await after_one_that_vanished(site, web())
    opened = site(web(), adopt_within_s=LONG_S)
    await opened.supervisor.start()
    assert opened.service().pid == pids["web"]
    with suppress(aiohttp.ClientError):
        await opened.get("/crash")
    await eventually(lambda: opened.service().restarts == 1 and opened.service().status is ServiceStatus.RUNNING)
    assert "it exited with code 3; its last words: about to crash" in opened.told("service_restarting")[0]["reason"]
    assert opened.service().pid not in {None, pids["web"]}
    second = opened.service().pid
    await opened.supervisor.stop()
    assert not alive(second)
    await eventually(lambda: not keepers(tmp_path))


async def test_when_no_agent_comes_back_services_end_in_time_with_all_they_started(site: Open, tmp_path: Path) -> None:
    with SupervisorProcess(tmp_path, web(port=(port := free_port("127.0.0.1"))), adopt_within_s=0.5) as agent:
        child = await fled(site(), f"http://127.0.0.1:{port}")
        agent.kill()
        assert alive(agent.pids["web"])
        await eventually(lambda: not alive(agent.pids["web"]) and not alive(child))
        await eventually(lambda: not keepers(tmp_path))


@pytest.mark.parametrize(("adopt", "within_s"), [("never", LONG_S), ("after_crash", 0.0)])
async def test_services_that_are_not_to_outlive_their_agent_end_with_it(
    site: Open, tmp_path: Path, adopt: str, within_s: float
) -> None:
    pids = await after_one_that_vanished(site, still(adopt=adopt), adopt_within_s=within_s)
    await eventually(lambda: not alive(pids["still"]))
    await eventually(lambda: not keepers(tmp_path))


async def test_a_stop_ends_services_but_for_those_that_are_to_await_the_next_agent(site: Open, tmp_path: Path) -> None:
    templates = still("one"), still("two", adopt="after_stop")
    before = site(*templates, adopt_within_s=LONG_S)
    await before.supervisor.start()
    pids = {service.name: service.pid for service in before.board.services()}
    await before.supervisor.stop()
    assert not alive(pids["one"])
    assert alive(pids["two"])
    opened = site(*templates, adopt_within_s=LONG_S)
    await opened.supervisor.start()
    assert opened.service("one").pid != pids["one"]
    assert opened.service("two").pid == pids["two"]


async def test_a_service_that_would_be_started_otherwise_now_is_started_anew(site: Open, tmp_path: Path) -> None:
    pids = await after_one_that_vanished(site, web())
    opened = site(web(env={"FLAVOUR": "new"}), adopt_within_s=LONG_S)
    await opened.supervisor.start()
    assert not alive(pids["web"])
    assert "FLAVOUR" in await opened.get("/env")
    assert opened.told("service_not_adopted")[0]["pid"] == pids["web"]


async def test_a_service_that_cannot_be_started_now_does_not_go_on_unseen(site: Open, tmp_path: Path) -> None:
    template = still("still", "sh", "-c", "sleep 600", "{model:m}")
    pids = await after_one_that_vanished(site, template, models={"m": "/m"})
    opened = site(template, missing_models={"m": "no network"})
    await opened.supervisor.start()
    assert opened.service("still").status is ServiceStatus.FAILED
    assert not alive(pids["still"])


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8), (3, 2)])
async def test_another_number_of_instances_leaves_nothing_of_the_one_before(
    site: Open, tmp_path: Path, before: int, after: int
) -> None:
    template = still("llama", per="gpu")
    pids = await after_one_that_vanished(site, template, gpus=range(before))
    assert list(pids) == [f"llama-gpu{gpu}" for gpu in range(before)]
    opened = site(template, gpus=range(after), adopt_within_s=LONG_S)
    await opened.supervisor.start()
    now = {service.name: service.pid for service in opened.board.services()}
    assert list(now) == [f"llama-gpu{gpu}" for gpu in range(after)]
    both = min(before, after)
    assert list(now.values())[:both] == list(pids.values())[:both]
    assert not any(alive(pid) for pid in list(pids.values())[both:])
    await opened.supervisor.stop()
    assert not any(alive(pid) for pid in now.values())


async def test_services_of_a_killed_keeper_die_with_it_and_are_started_again(site: Open, tmp_path: Path) -> None:
    opened = site(web(), adopt_within_s=LONG_S)
    await opened.supervisor.start()
    first, child = opened.service().pid, await fled(opened, opened.service().url)
    (owner,) = keepers(tmp_path)
    owner.kill()
    await eventually(lambda: opened.service().pid not in {None, first} and await_running(opened), 30)
    assert not alive(first)
    await eventually(lambda: not alive(child))
    assert "ended with its keeper" in opened.told("service_restarting")[0]["reason"]


def await_running(site: Site) -> bool:
    return site.service().status is ServiceStatus.RUNNING


async def test_what_a_killed_keeper_and_agent_left_behind_is_ended_by_the_next(site: Open, tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    with SupervisorProcess(tmp_path, web(port=port), adopt_within_s=LONG_S) as agent:
        child = await fled(site(), f"http://127.0.0.1:{port}")
        (owner,) = keepers(tmp_path)
        owner.kill()
        agent.kill()
    await eventually(lambda: not alive(agent.pids["web"]))
    assert alive(child)
    opened = site(still())
    await opened.supervisor.start()
    assert not alive(child)


async def test_two_agents_do_not_look_after_the_same_services(site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_TURN_S", 0.05)
    first = site(still())
    await first.supervisor.start()
    second = site(still(restarts_max=0))
    await second.supervisor.start()
    assert f"another agent (pid {os.getpid()}) looks after" in (second.service("still").error or "")
    assert alive(first.service("still").pid)


async def test_a_service_is_known_by_more_than_its_pid(tmp_path: Path) -> None:
    client = KeeperClient(tmp_path)
    order = keeping.Order(
        name="still",
        command=["sleep", "600"],
        env={},
        directory=str(tmp_path),
        output=str(tmp_path / "log"),
        cgroup=None,
        keep_s=0.0,
        stop_s=1.0,
        note=None,
    )
    kept = await client.spawn(order)
    assert client.runs(kept)
    assert not client.runs(Kept(name="still", pid=kept.pid, started=(kept.started or 0) - 1))
    assert not client.runs(Kept(name="other", pid=kept.pid, started=kept.started))
    await client.stop("still", 1.0)
    assert not client.runs(kept)
    await client.close()


async def test_a_keeper_of_another_version_ends_its_services(
    site: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = await after_one_that_vanished(site, still())
    monkeypatch.setattr(keeper, "VERSION", keeper.VERSION + 1)
    client = KeeperClient(tmp_path)
    assert await client.find() == []
    assert not alive(pids["still"])
    await client.close()


async def test_who_cannot_have_a_keeper_says_why(site: Open, tmp_path: Path) -> None:
    (tmp_path / "services").write_text("a file where the keeper's folder should be")
    opened = site(still(restarts_max=0))
    await opened.supervisor.start()
    assert opened.service("still").status is ServiceStatus.FAILED
    assert str(tmp_path / "services") in (opened.service("still").error or "")


async def test_a_stranger_at_the_keepers_door_does_no_harm(site: Open, tmp_path: Path) -> None:
    client = KeeperClient(tmp_path)
    pids = await after_one_that_vanished(site, still())
    with keeping.address_of(tmp_path / "services") as address:
        _, writer = await asyncio.open_unix_connection(address)
    writer.write(b'nonsense\n{"do": "dance"}\n')
    with suppress(OSError):
        await writer.drain()
    writer.close()
    assert alive(pids["still"])
    assert [kept.name for kept in await client.find()] == ["still"]
    await client.close()


async def test_a_process_that_keeps_its_reader_waiting_costs_the_figures_and_no_more(
    site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = site(still())
    await opened.supervisor.start()
    asked, released = [], threading.Event()

    def hang(_: ProcessMonitor, watched: Sequence[Watched]) -> tuple[ProcessFigures, ...]:
        asked.append(watched)
        released.wait(30)
        return ()

    monkeypatch.setattr(ProcessMonitor, "read", hang)
    monkeypatch.setattr(supervisors, "_FIGURES_S", 0.05)
    assert await opened.supervisor.figures() == ()
    assert await opened.supervisor.figures() == ()
    assert len(asked) == 1
    released.set()


async def test_a_port_that_a_service_of_another_agent_holds_is_told_with_its_name(site: Open, tmp_path: Path) -> None:
    first = site(web("theirs"))
    await first.supervisor.start()
    port = urlsplit(first.service("theirs").url or "").port
    (tmp_path / "other").mkdir()
    second = site(web(port=port, restarts_max=0), data_dir=tmp_path / "other")
    await second.supervisor.start()
    pid = first.service("theirs").pid
    assert f"port {port} is held by pid {pid} (" in (second.service().error or "")
    assert "the service theirs of an agent)" in (second.service().error or "")


async def test_a_start_that_is_broken_off_leaves_nothing(site: Open, tmp_path: Path) -> None:
    """However far it has come when it is cancelled."""
    opened = site(*(still(f"still-{number}") for number in range(8)))
    for steps in range(1, 40, 3):
        starting = asyncio.create_task(opened.supervisor.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await opened.supervisor.stop()
        assert opened.supervisor._keeper.kept == frozenset()
        for service in opened.supervisor._supervised.values():
            service._task = None


async def test_a_stop_before_services_are_taken_over_ends_them(site: Open, tmp_path: Path) -> None:
    pids = await after_one_that_vanished(site, still())
    opened = site(still())
    kept = await opened.supervisor._find_kept()
    assert [each.pid for each in kept] == [pids["still"]]
    await opened.supervisor.stop()
    assert not alive(pids["still"])


async def test_a_folder_with_a_long_name_is_no_obstacle(site: Open, tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30)
    data_dir.mkdir()
    opened = site(web(), data_dir=data_dir)
    await opened.supervisor.start()
    assert opened.service().status is ServiceStatus.RUNNING


async def test_what_hides_from_its_service_is_ended_all_the_same(site: Open, tmp_path: Path) -> None:
    """It left its session and its environment: only that it comes from below the keeper is left."""
    opened = site(still("still", "sh", "-c", f"env -u {MARKER} setsid sleep 601 & echo $! >hidden; exec sleep 600"))
    await opened.supervisor.start()
    hidden = await eventually(lambda: int((tmp_path / "hidden").read_text()))
    assert alive(hidden)
    await opened.supervisor.stop()
    await eventually(lambda: not alive(hidden))


async def test_a_hundred_services_start_are_looked_at_and_stop_without_a_trace(site: Open, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    opened = site(still("sleeper", per="gpu"), gpus=range(100))
    began_s = loop.time()
    await opened.supervisor.start()
    started_s = loop.time()
    pids = [service.pid for service in opened.board.services()]
    assert all(alive(pid) for pid in pids)
    assert len(await opened.supervisor.figures()) == 100
    looked_s = loop.time()
    await opened.supervisor.stop()
    stopped_s = loop.time()
    assert not any(alive(pid) for pid in pids)
    await eventually(lambda: not keepers(tmp_path))
    sys.stdout.write(
        f"100 services: started in {started_s - began_s:.2f} s, "
        f"looked at in {1000 * (looked_s - started_s):.0f} ms, stopped in {stopped_s - looked_s:.2f} s\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_nothing_of_a_service_outlives_its_keeper(site: Open, tmp_path: Path, number: signal.Signals) -> None:
    pids = await after_one_that_vanished(site, still())
    (owner,) = keepers(tmp_path)
    os.kill(owner.pid, number)
    await eventually(lambda: not alive(pids["still"]))


def test_a_process_is_there_until_the_last_of_its_threads_is_gone() -> None:
    code = (
        "import ctypes, platform, threading\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[platform.machine()], 0)  # ends this thread alone\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        eventually_sync(lambda: not alive(process.pid))
        found = keeper.read_process(process.pid)
        assert found is not None
        keeper.kill(found)
        eventually_sync(lambda: keeper.read_process(process.pid) is None)
    assert process.returncode == -signal.SIGKILL


async def test_where_the_system_shows_no_processes_services_are_kept_all_the_same(
    site: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than on Linux there is no /proc, no tie between parent and child, no pidfd."""
    source = SOURCE.replace('PROC = Path("/proc")', 'PROC = Path("/nowhere")')
    elsewhere = tmp_path / "keeper_elsewhere.py"
    elsewhere.write_text(source.replace('sys.platform.startswith("linux")', "False"))
    monkeypatch.setattr(keeper, "__file__", str(elsewhere))
    monkeypatch.setattr(keeper, "read_process", lambda _: None)
    monkeypatch.setattr(keeper, "PROC", Path("/nowhere"))
    pids = await after_one_that_vanished(site, web())
    opened = site(web(), adopt_within_s=LONG_S)
    await opened.supervisor.start()
    assert opened.service().pid == pids["web"]
    child = int(await opened.get("/fork"))
    await opened.supervisor.stop()
    assert not alive(pids["web"])
    await eventually(lambda: not alive(child))


def test_instances_are_named_and_counted_for_each_gpu() -> None:
    for count in range(1, 9):
        found = instances([still("llama", per="gpu")], range(count))
        assert [each.name for each in found] == [f"llama-gpu{gpu}" for gpu in range(count)]

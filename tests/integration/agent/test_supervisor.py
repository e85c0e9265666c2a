"""Services as real child processes."""

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress

import aiohttp
import psutil
import pytest

from muster.agent.config import ServiceTemplate
from muster.agent.services import supervisor as supervisors
from muster.agent.services.sockets import free_port, holder_of
from muster.domain.service import ServiceStatus
from tests.integration.agent.conftest import Open
from tests.integration.agent.services import SERVER, alive, web
from tests.waiting import eventually


async def test_a_service_is_started_and_said_to_run_once_it_answers(site: Open) -> None:
    opened = site(web())
    await opened.supervisor.start()
    service = opened.service()
    assert (service.status, service.managed, service.slots, service.error) == (ServiceStatus.RUNNING, True, 2, None)
    assert [model.name for model in service.models] == ["m"]
    assert alive(service.pid)
    assert await opened.get("/") == "ok"
    (started,) = opened.told("service_started")
    assert (started["service"], started["pid"]) == ("web", service.pid)
    assert "serving on" in (opened.data_dir / "logs" / "web.log").read_text()


async def test_each_gpu_has_its_instance_that_sees_no_other_gpu(site: Open) -> None:
    opened = site(web(per="gpu", env={"WHO": "{gpu}/{index}/{model:m}"}), gpus=[0, 3], models={"m": "/models/m"})
    await opened.supervisor.start()
    seen = json.loads(await opened.get("/env", "web-gpu3"))
    assert seen["CUDA_VISIBLE_DEVICES"] == "3"
    assert seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert seen["WHO"] == "3/1//models/m"
    assert opened.service("web-gpu0").gpu_index == 0


async def test_an_instance_of_a_split_gpu_is_seen_by_its_name(site: Open) -> None:
    opened = site(web(per="gpu", env={"WHO": "{gpu}"}), gpus=[1], gpu_names={1: "MIG-a"})
    await opened.supervisor.start()
    seen = json.loads(await opened.get("/env", "web-gpu1"))
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["WHO"]) == ("MIG-a", "1")


@pytest.mark.parametrize("name", ["MUSTER_TOKEN", "RABBITMQ_URL", "REDIS_URL"])
async def test_our_own_settings_are_no_business_of_a_service(
    site: Open, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "secret")
    opened = site(web())
    await opened.supervisor.start()
    assert "secret" not in await opened.get("/env")


async def test_a_crash_is_told_with_its_last_words_and_mended(site: Open) -> None:
    opened = site(web())
    await opened.supervisor.start()
    first = opened.service().pid
    with suppress(aiohttp.ClientError):
        await opened.get("/crash")
    await eventually(lambda: opened.service().status is ServiceStatus.RUNNING and opened.service().pid != first, 30)
    (told,) = opened.told("service_restarting")
    assert "it exited with code 3" in told["reason"]
    assert "about to crash" in told["reason"]
    assert opened.service().restarts == 1
    assert opened.service().error is None


async def test_a_killed_service_is_mended_too(site: Open) -> None:
    opened = site(web())
    await opened.supervisor.start()
    first = opened.service().pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: opened.service().status is ServiceStatus.RUNNING and opened.service().pid != first, 30)
    assert "it was ended by SIGKILL" in opened.told("service_restarting")[0]["reason"]


async def test_a_service_that_never_comes_up_is_given_up_with_the_reason(site: Open) -> None:
    opened = site(web("web", sys.executable, "-c", "import sys; print('no weights'); sys.exit(7)", restarts_max=2))
    await opened.supervisor.start()
    service = opened.service()
    assert (service.status, service.pid, service.restarts) == (ServiceStatus.FAILED, None, 2)
    assert service.error == "it exited with code 7; its last words: no weights"
    assert opened.kinds() == ["service_restarting", "service_restarting", "service_failed"]


async def test_a_command_that_is_not_there_is_named(site: Open) -> None:
    opened = site(web("web", "no-such-server", restarts_max=0))
    await opened.supervisor.start()
    assert opened.service().error == "there is no command 'no-such-server' on this machine"


async def test_a_service_that_is_not_healthy_in_time_is_stopped_and_tried_again(site: Open) -> None:
    opened = site(web(health="/hang", start_timeout_s=0.3, restarts_max=0))
    await opened.supervisor.start()
    await eventually(lambda: opened.service().status is ServiceStatus.FAILED, 30)
    assert "it was not healthy within 0.3 s" in (opened.service().error or "")
    assert "/hang answered 503" in (opened.service().error or "")


async def test_while_it_comes_up_its_entry_says_what_keeps_it(site: Open) -> None:
    opened = site(web(health="/hang", start_timeout_s=60))
    starting = asyncio.create_task(opened.supervisor.start())
    await eventually(lambda: "/hang answered 503" in (opened.service().error or ""), 30)
    assert opened.service().status is ServiceStatus.STARTING
    await opened.supervisor.stop()
    await starting


async def test_a_slow_start_does_not_hold_up_the_others_for_ever(site: Open) -> None:
    sleeper = web("slow", sys.executable, "-c", "import time; time.sleep(600)", start_timeout_s=0.3)
    opened = site(web(), sleeper)
    await opened.supervisor.start()
    assert opened.service("slow").status is ServiceStatus.STARTING
    assert opened.service("web").status is ServiceStatus.RUNNING


async def test_a_service_that_stops_answering_is_silent_then_started_again(
    site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = site(web())
    await opened.supervisor.start()
    first = opened.service().pid
    await opened.get("/hang")
    await eventually(lambda: opened.service().status is ServiceStatus.UNHEALTHY)
    assert alive(first)
    assert [told["reason"] for told in opened.told("service_silent")] == [f"{opened.service().url} answered 503"]
    monkeypatch.setattr(supervisors, "_HANGS_AFTER_S", 0.1)
    await eventually(lambda: opened.service().status is ServiceStatus.RUNNING, 30)
    assert not alive(first)


async def test_a_port_that_is_taken_is_told_with_its_holder_and_used_when_it_is_free(site: Open) -> None:
    holder = socket.create_server(("127.0.0.1", 0))
    port = holder.getsockname()[1]
    opened = site(web(port=port, restarts_max=1000))
    starting = asyncio.create_task(opened.supervisor.start())
    with holder:
        told = await eventually(lambda: opened.told("service_restarting"))
        assert told[0]["reason"] == f"port {port} is held by pid {os.getpid()} ({psutil.Process().name()})"
    await starting
    assert opened.service().url == f"http://127.0.0.1:{port}"
    assert opened.service().status is ServiceStatus.RUNNING


async def test_a_stop_leaves_no_process_not_even_those_that_the_service_left_behind(site: Open) -> None:
    opened = site(web())
    await opened.supervisor.start()
    pid, child = opened.service().pid, int(await opened.get("/fork"))
    assert alive(child)
    await opened.supervisor.stop()
    assert not alive(pid)
    await eventually(lambda: not alive(child))
    assert opened.service().status is ServiceStatus.STOPPED
    assert opened.kinds()[-1] == "service_stopped"


async def test_children_of_a_crashed_service_do_not_outlive_it(site: Open) -> None:
    opened = site(web(restarts_max=0))
    await opened.supervisor.start()
    child = int(await opened.get("/fork"))
    with suppress(aiohttp.ClientError):
        await opened.get("/crash")
    await eventually(lambda: not alive(child))


async def test_a_service_that_ignores_a_polite_stop_is_ended_at_the_deadline(site: Open) -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SERVER}"
    opened = site(web("web", sys.executable, "-c", deaf, "{port}", stop_timeout_s=0.2))
    await opened.supervisor.start()
    pid = opened.service().pid
    await opened.supervisor.stop()
    assert not alive(pid)


async def test_a_stop_during_a_start_leaves_nothing(site: Open) -> None:
    opened = site(web("web", sys.executable, "-c", "import time; time.sleep(600)"))
    starting = asyncio.create_task(opened.supervisor.start())
    await eventually(lambda: opened.service().pid)
    pid = opened.service().pid
    await opened.supervisor.stop()
    await starting
    assert not alive(pid)


async def test_a_missing_model_or_connector_is_not_tried_again(site: Open) -> None:
    unknown = ServiceTemplate(name="paint", connector="paint", command=("x",))
    opened = site(web("web", "x", "{model:m}"), unknown, missing_models={"m": "no network"})
    await opened.supervisor.start()
    assert opened.service("web").error == "its model is not there (m: no network)"
    assert opened.service("paint").error == "there is no connector 'paint'; known are web, still"
    assert opened.kinds() == ["service_failed", "service_failed"]


async def test_a_restart_by_command_is_a_new_process_with_its_restarts_counted_afresh(site: Open) -> None:
    opened = site(web(restarts_max=1))
    await opened.supervisor.start()
    before = opened.service()
    with suppress(aiohttp.ClientError):
        await opened.get("/crash")
    await eventually(lambda: opened.service().restarts == 1 and opened.service().status is ServiceStatus.RUNNING)
    first, second = await asyncio.gather(opened.supervisor.restart("web"), opened.supervisor.restart("web"))
    assert (first.status, second.status) == (ServiceStatus.RUNNING, ServiceStatus.RUNNING)
    assert len({before.pid, first.pid, second.pid}) == 3
    assert opened.service().pid == second.pid
    assert not alive(first.pid)
    assert await opened.get("/") == "ok"
    assert opened.supervisor.log_file("web").tail(1, 1000)[0].startswith("serving on ")


async def test_a_restart_goes_on_though_nobody_waits_for_it(site: Open) -> None:
    opened = site(web())
    await opened.supervisor.start()
    before = opened.service().pid
    waiting = asyncio.create_task(opened.supervisor.restart("web"))
    await eventually(lambda: opened.service().status is not ServiceStatus.RUNNING)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await eventually(lambda: opened.service().status is ServiceStatus.RUNNING, 30)
    assert opened.service().pid != before


async def test_a_service_that_failed_for_good_may_be_restarted(site: Open) -> None:
    opened = site(web("web", sys.executable, "-c", "raise SystemExit(1)", restarts_max=0))
    await opened.supervisor.start()
    assert opened.service().status is ServiceStatus.FAILED
    again = await opened.supervisor.restart("web")
    assert again.status is ServiceStatus.FAILED
    assert opened.kinds().count("service_failed") == 2


def test_a_free_port_is_held_by_nobody() -> None:
    assert holder_of("127.0.0.1", free_port("127.0.0.1")) is None

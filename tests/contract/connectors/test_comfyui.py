"""ComfyUI jobs against a server that speaks its protocol, and against its faults."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from muster.connectors.catalog import identify
from muster.connectors.comfyui.connector import ComfyUIConnector
from muster.connectors.comfyui.server import ComfyLimits
from muster.domain.job import Progress
from muster.domain.service import Service, ServiceStatus
from muster.errors import InvalidInput, NotFound, PayloadTooLarge, UpstreamFailed, UpstreamTimeout
from tests.contract.connectors.comfyui_stub import PICTURE, ComfyStub, comfyui
from tests.contract.connectors.makers import KeptFiles, claimed, unheard
from tests.waiting import eventually

QUICK = ComfyLimits(look_every_s=0.05, lost_s=0.2, preview_every_s=0.01)
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "cat"}}
PICTURE_JOB = {"prompt": {"1": {"class_type": "EmptyImage", "inputs": {"width": 64}}, "2": SAVE}}
LONG_JOB = {"prompt": {"1": {"class_type": "Wait", "inputs": {}}, "2": SAVE}}


def steps(count: int) -> dict[str, Any]:
    return {"prompt": {"1": {"class_type": "Steps", "inputs": {"steps": count}}, "2": SAVE}}


@pytest.fixture
async def server() -> AsyncIterator[tuple[ComfyStub, str]]:
    async with comfyui() as found:
        yield found


@pytest.fixture
def stub(server: tuple[ComfyStub, str]) -> ComfyStub:
    return server[0]


@pytest.fixture
def service(server: tuple[ComfyStub, str]) -> Service:
    return Service(name="comfyui", connector="comfyui", status=ServiceStatus.RUNNING, url=server[1])


@pytest.fixture
def connector(session: aiohttp.ClientSession) -> ComfyUIConnector:
    return ComfyUIConnector(session, QUICK)


async def test_it_is_known_by_what_it_answers_and_says_what_it_has(
    session: aiohttp.ClientSession, server: tuple[ComfyStub, str]
) -> None:
    found = await identify(session, server[1])
    assert found is not None
    assert (found.connector, found.slots, found.slots_busy) == ("comfyui", 1, 0)
    assert [model.name for model in found.models] == ["sd15.safetensors"]
    assert found.memory_total_bytes == 24_000_000
    assert found.dialects == ()  # nobody chats with it


async def test_its_pictures_are_kept_and_the_result_says_where(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    files, heard = KeptFiles(), list[Progress]()
    result = await connector.run(claimed(PICTURE_JOB, "comfyui"), service, heard.append, files)
    (image,) = result["outputs"]["2"]["images"]
    assert image.url == "/api/files/job-1/1-cat_00001_.png"
    assert (image.type, image.bytes) == ("image/png", len(PICTURE) + len("cat_00001_.png"))
    assert files.kept == {"cat_00001_.png": PICTURE + b"cat_00001_.png"}
    (submit,) = stub.submits
    assert submit["client_id"] == "muster-job-1"
    assert submit["extra_data"]["muster"]["job_id"] == "job-1"


async def test_progress_follows_the_nodes_and_their_steps_and_never_goes_back(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    heard: list[Progress] = []
    job = {"prompt": {"0": {"class_type": "Wait", "inputs": {}}} | steps(4)["prompt"]}
    run = asyncio.create_task(connector.run(claimed(job, "comfyui"), service, heard.append, KeptFiles()))
    await eventually(lambda: bool(heard), 10)
    stub.let_go.set()
    await asyncio.wait_for(run, 10)
    fractions = [progress.fraction or 0.0 for progress in heard]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert "Steps (node 1): 4 of 4" in [progress.message for progress in heard]
    assert "SaveImage (node 2)" in [progress.message for progress in heard]


async def test_lesson_what_ended_before_anybody_listened_is_done_at_once(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    stub.deaf = True
    async with asyncio.timeout(10):
        result = await connector.run(claimed(PICTURE_JOB, "comfyui"), service, unheard, KeptFiles())
    assert result["outputs"]["2"]["images"]
    assert stub.listened == []


async def test_a_prompt_whose_every_node_is_cached_is_done_at_once(
    connector: ComfyUIConnector, service: Service
) -> None:
    for _ in range(2):
        async with asyncio.timeout(10):
            result = await connector.run(claimed(PICTURE_JOB, "comfyui"), service, unheard, KeptFiles())
        assert result["outputs"]["2"]["images"]


async def test_a_dropped_socket_in_mid_job_costs_nothing(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    run = asyncio.create_task(connector.run(claimed(LONG_JOB, "comfyui"), service, unheard, KeptFiles()))
    await asyncio.wait_for(stub.waiting.wait(), 10)
    await stub.drop_sockets()
    stub.let_go.set()
    result = await asyncio.wait_for(run, 10)
    assert result["outputs"]["2"]["images"]
    assert len(stub.submits) == 1


async def test_it_listens_again_after_a_drop(connector: ComfyUIConnector, service: Service, stub: ComfyStub) -> None:
    run = asyncio.create_task(connector.run(claimed(LONG_JOB, "comfyui"), service, unheard, KeptFiles()))
    await asyncio.wait_for(stub.waiting.wait(), 10)
    await stub.drop_sockets()
    await eventually(lambda: len(stub.listened) == 2, 10)
    assert set(stub.listened) == {"muster-job-1"}
    stub.let_go.set()
    await asyncio.wait_for(run, 10)


async def test_a_restart_in_mid_job_fails_it_for_another_attempt(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    run = asyncio.create_task(connector.run(claimed(LONG_JOB, "comfyui"), service, unheard, KeptFiles()))
    await asyncio.wait_for(stub.waiting.wait(), 10)
    await stub.restart()
    with pytest.raises(UpstreamFailed, match="does not know the prompt any more") as failed:
        await asyncio.wait_for(run, 10)
    assert failed.value.retriable


async def test_silence_of_what_runs_ends_and_it_is_interrupted(
    session: aiohttp.ClientSession, service: Service, stub: ComfyStub
) -> None:
    connector = ComfyUIConnector(session, ComfyLimits(look_every_s=0.02, silence_s=0.2))
    with pytest.raises(UpstreamTimeout, match="told nothing of the prompt") as failed:
        await connector.run(claimed(LONG_JOB, "comfyui"), service, unheard, KeptFiles())
    assert failed.value.retriable
    assert stub.interrupts == [{"prompt_id": "prompt-1"}]


async def test_what_waits_in_its_queue_may_be_silent(
    session: aiohttp.ClientSession, service: Service, stub: ComfyStub
) -> None:
    stub.held = True
    connector = ComfyUIConnector(session, ComfyLimits(look_every_s=0.02, silence_s=0.05))
    run = asyncio.create_task(connector.run(claimed(PICTURE_JOB, "comfyui"), service, unheard, KeptFiles()))
    now_s = asyncio.get_running_loop().time
    await eventually(lambda: bool(stub.pending), 10)
    begun_s = now_s()
    await eventually(lambda: now_s() - begun_s > 0.3, 10)
    assert not run.done()
    stub.release()
    await asyncio.wait_for(run, 10)


async def test_a_cancel_interrupts_what_runs_within_a_second(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    run = asyncio.create_task(connector.run(claimed(LONG_JOB, "comfyui"), service, unheard, KeptFiles()))
    await asyncio.wait_for(stub.waiting.wait(), 10)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 1.0)
    assert stub.interrupts == [{"prompt_id": "prompt-1"}]
    await eventually(lambda: not stub.running, 10)


async def test_a_cancel_takes_what_waits_out_of_the_queue_and_leaves_what_runs(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    stub.held = True
    run = asyncio.create_task(connector.run(claimed(PICTURE_JOB, "comfyui"), service, unheard, KeptFiles()))
    await eventually(lambda: bool(stub.pending), 10)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 1.0)
    await eventually(lambda: not stub.pending, 10)
    assert stub.interrupts == []


async def test_a_cancel_interrupts_what_began_while_it_was_taken_out_of_the_queue(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    stub.held = stub.begins_meanwhile = True
    run = asyncio.create_task(connector.run(claimed(LONG_JOB, "comfyui"), service, unheard, KeptFiles()))
    await eventually(lambda: bool(stub.pending), 10)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 1.0)
    assert stub.interrupts == [{"prompt_id": "prompt-1"}]
    await eventually(lambda: not stub.running, 10)


async def test_who_interrupts_it_in_comfyui_is_told_of(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub, session: aiohttp.ClientSession
) -> None:
    run = asyncio.create_task(connector.run(claimed(LONG_JOB, "comfyui"), service, unheard, KeptFiles()))
    await asyncio.wait_for(stub.waiting.wait(), 10)
    async with session.post(f"{service.url}/interrupt"):
        pass
    with pytest.raises(UpstreamFailed, match="somebody interrupted"):
        await asyncio.wait_for(run, 10)


async def test_lesson_a_lost_answer_to_the_submit_does_not_make_it_run_twice(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    stub.loses_answers = True
    result = await connector.run(claimed(PICTURE_JOB, "comfyui"), service, unheard, KeptFiles())
    assert result["prompt_id"] == "prompt-1"
    assert len(stub.submits) == 1


@pytest.mark.parametrize("still_runs", [True, False])
async def test_lesson_a_second_attempt_takes_up_what_the_first_left_behind(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub, *, still_runs: bool
) -> None:
    async with aiohttp.ClientSession() as other:
        mark = {"job_id": "job-1", "created_at": 0}
        body = {"prompt": LONG_JOB["prompt"], "client_id": "muster-job-1", "extra_data": {"muster": mark}}
        async with other.post(f"{service.url}/prompt", json=body):
            pass
    await asyncio.wait_for(stub.waiting.wait(), 10)
    if not still_runs:
        stub.let_go.set()
        await eventually(lambda: bool(stub.history), 10)
    run = asyncio.create_task(connector.run(claimed(LONG_JOB, "comfyui", attempt=2), service, unheard, KeptFiles()))
    stub.let_go.set()
    assert (await asyncio.wait_for(run, 10))["outputs"]["2"]["images"]
    assert len(stub.submits) == 1


async def test_what_failed_before_is_submitted_again(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    job = {"prompt": {"1": {"class_type": "Fails", "inputs": {"type": "RuntimeError", "message": "CUDA"}}, "2": SAVE}}
    for attempt in (1, 2):
        with pytest.raises(UpstreamFailed, match=r"node 1 \(Fails\) failed with RuntimeError: CUDA"):
            await connector.run(claimed(job, "comfyui", attempt=attempt), service, unheard, KeptFiles())
    assert len(stub.submits) == 2


async def test_a_fault_of_the_graph_is_final(connector: ComfyUIConnector, service: Service) -> None:
    fails = {"class_type": "Fails", "inputs": {"type": "ValueError", "message": "no such sampler"}}
    with pytest.raises(InvalidInput, match="no such sampler") as failed:
        await connector.run(claimed({"prompt": {"1": fails, "2": SAVE}}, "comfyui"), service, unheard, KeptFiles())
    assert not failed.value.retriable


async def test_a_refused_graph_is_final_and_says_which_node_has_what(
    connector: ComfyUIConnector, service: Service
) -> None:
    job = {"prompt": {"3": {"class_type": "KSampler", "inputs": {}}}}
    with pytest.raises(InvalidInput) as refused:
        await connector.run(claimed(job, "comfyui"), service, unheard, KeptFiles())
    assert "Prompt outputs failed validation" in refused.value.message
    assert "node 3 (KSampler): Value not in list: sampler: 'x' not in ['euler']" in refused.value.message
    assert not refused.value.retriable


async def test_lesson_previews_are_kept_beside_the_progress_and_told_by_address(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    stub.preview_bytes = 1000
    job = {"prompt": steps(50)["prompt"] | {"3": {"class_type": "Wait", "inputs": {}}}}
    files, heard = KeptFiles(), list[Progress]()
    run = asyncio.create_task(connector.run(claimed(job, "comfyui"), service, heard.append, files))
    await eventually(lambda: any(progress.preview_url for progress in heard), 10)
    stub.let_go.set()
    await asyncio.wait_for(run, 10)
    urls = [progress.preview_url for progress in heard if progress.preview_url]
    assert urls[0] == "/api/files/job-1/1-preview.jpg?n=1"
    assert files.kept["preview.jpg"].startswith(b"\xff\xd8")
    assert files.puts < 50  # many pictures, of which the newest counts


@pytest.mark.parametrize("preview_bytes", [2_000_000, 70_000_000])
async def test_huge_previews_are_left_out_and_harm_nothing(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub, preview_bytes: int
) -> None:
    stub.preview_bytes = preview_bytes
    files, heard = KeptFiles(), list[Progress]()
    await asyncio.wait_for(connector.run(claimed(steps(1), "comfyui"), service, heard.append, files), 30)
    assert not any(progress.preview_url for progress in heard)
    assert list(files.kept) == ["cat_00001_.png"]


async def test_who_wants_no_previews_gets_none(connector: ComfyUIConnector, service: Service, stub: ComfyStub) -> None:
    stub.preview_bytes = 10
    files = KeptFiles()
    await connector.run(claimed(steps(5) | {"preview": False}, "comfyui"), service, unheard, files)
    assert list(files.kept) == ["cat_00001_.png"]


async def test_pictures_of_the_payload_are_given_to_it_under_names_of_the_job(
    connector: ComfyUIConnector, service: Service, stub: ComfyStub
) -> None:
    load = {"class_type": "LoadImage", "inputs": {"image": "in.png"}}
    job = {"prompt": {"1": load, "2": SAVE}, "images": {"in.png": "/api/files/~~file-1/photo.png"}}
    files = KeptFiles({"/api/files/~~file-1/photo.png": b"photo"})
    await connector.run(claimed(job, "comfyui"), service, unheard, files)
    assert stub.uploads == {"job-1-in.png": b"photo"}
    assert stub.submits[0]["prompt"]["1"]["inputs"]["image"] == "job-1-in.png"
    with pytest.raises(NotFound):
        await connector.run(claimed(job, "comfyui"), service, unheard, KeptFiles())


async def test_pictures_for_the_editor_are_kept_only_where_there_are_no_others(
    connector: ComfyUIConnector, service: Service
) -> None:
    preview = {"class_type": "PreviewImage", "inputs": {"filename_prefix": "temp"}}
    files = KeptFiles()
    await connector.run(claimed({"prompt": {"1": preview}}, "comfyui"), service, unheard, files)
    assert list(files.kept) == ["temp_00001_.png"]
    files = KeptFiles()
    await connector.run(claimed({"prompt": {"1": preview, "2": SAVE}}, "comfyui"), service, unheard, files)
    assert [name.partition("_")[0] for name in files.kept] == ["cat"]


async def test_a_file_that_is_too_large_ends_the_job(session: aiohttp.ClientSession, service: Service) -> None:
    connector = ComfyUIConnector(session, ComfyLimits(file_bytes_max=10))
    with pytest.raises(PayloadTooLarge, match="more than 10 bytes"):
        await connector.run(claimed(PICTURE_JOB, "comfyui"), service, unheard, KeptFiles())


async def test_without_comfyui_there_is_another_attempt(connector: ComfyUIConnector) -> None:
    with pytest.raises(UpstreamFailed, match="no ComfyUI runs here"):
        await connector.run(claimed(PICTURE_JOB, "comfyui"), None, unheard, KeptFiles())
    gone = Service(name="comfyui", connector="comfyui", status=ServiceStatus.RUNNING, url="http://127.0.0.1:9")
    with pytest.raises(UpstreamFailed, match="cannot connect") as failed:
        await asyncio.wait_for(connector.run(claimed(PICTURE_JOB, "comfyui"), gone, unheard, KeptFiles()), 10)
    assert failed.value.retriable


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({}, "payload.prompt"),
        ({"prompt": {}}, "payload.prompt"),
        ({"prompt": {"1": {"inputs": {}}}}, "payload.prompt[...].class_type"),
        ({"prompt": {"1": {"class_type": "A", "inputs": {"x": ["9", 0]}}}}, "payload.prompt.1.inputs.x"),
        ({"prompt": {"nodes": [], "links": []}}, "payload.prompt"),
        (PICTURE_JOB | {"images": {"a.png": "http://elsewhere/a.png"}}, "payload.images.a.png"),
        (PICTURE_JOB | {"images": {"../a": "/api/files/~~file-1/a.png"}}, "payload.images.../a"),
        (PICTURE_JOB | {"client_id": "x"}, "payload.client_id"),
    ],
)
def test_a_payload_that_cannot_run_is_refused_at_submit(payload: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ComfyUIConnector.check(payload)
    assert refused.value.field == field

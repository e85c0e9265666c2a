"""Webhooks of real control planes: killed in mid delivery, with receivers that were away."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.integration.webhooks.receiver import receiving
from tests.muster_process import ControlPlane, free_port
from tests.waiting import eventually

ENV = {
    "MUSTER_MODEL": "none",
    "MUSTER_DISCOVER": "false",
    "MUSTER_STOP_TIMEOUT_S": "1",
    "MUSTER_WEBHOOK_PRIVATE_ADDRESSES": "true",
    "MUSTER_WEBHOOK_RETRY_BASE_S": "0.2",
    "MUSTER_WEBHOOK_RETRY_MAX_S": "0.5",
    "MUSTER_WEBHOOK_ATTEMPTS_MAX": "50",
}


def cancelled_job(plane: ControlPlane, job_id: str) -> None:
    plane.post("/api/jobs", {"service_required": "simulation", "payload": {"duration_ms": 10}, "job_id": job_id})
    plane.post(f"/api/jobs/{job_id}/cancel")


async def test_a_control_plane_killed_in_mid_delivery_delivers_after_its_start(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, env=ENV)
    try:
        await asyncio.to_thread(plane.start)
        async with receiving() as receiver:
            made = await asyncio.to_thread(plane.post, "/api/webhooks", {"url": receiver.url})
            receiver.secret = made["secret"]
            receiver.open.clear()
            await asyncio.to_thread(cancelled_job, plane, "job-1")
            await eventually(lambda: receiver.got, 20)
            await asyncio.to_thread(plane.kill)
            receiver.open.set()
            await asyncio.to_thread(plane.start)
            await asyncio.to_thread(cancelled_job, plane, "job-2")
            await eventually(lambda: {told["data"]["job_id"] for told in receiver.got} == {"job-1", "job-2"}, 20)

            def rows() -> Any:
                return plane.get(f"/api/webhooks/{made['webhook']['id']}/deliveries")

            async def delivered() -> bool:
                return [row["status"] for row in await asyncio.to_thread(rows)] == ["delivered", "delivered"]

            await eventually(delivered, 20)
            assert receiver.forged == 0
            assert len(set(receiver.ids)) == 2
            assert receiver.ids.count(receiver.ids[0]) >= 2  # at least once: told twice, and known by its id
            assert all(told["data"]["job"]["status"] == "cancelled" for told in receiver.got)
    finally:
        plane.kill()


async def test_a_receiver_that_was_down_is_told_when_it_is_back(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, env=ENV)
    port = free_port()
    try:
        await asyncio.to_thread(plane.start)
        made = await asyncio.to_thread(plane.post, "/api/webhooks", {"url": f"http://127.0.0.1:{port}/in"})
        for number in range(5):
            await asyncio.to_thread(cancelled_job, plane, f"job-{number}")
        await asyncio.to_thread(plane.stop)
        await asyncio.to_thread(plane.start)
        async with receiving(port) as receiver:
            receiver.secret = made["secret"]
            await eventually(lambda: len(receiver.got) == 5, 20)
            assert {told["data"]["job_id"] for told in receiver.got} == {f"job-{number}" for number in range(5)}
            assert receiver.forged == 0
    finally:
        plane.kill()


async def test_the_own_address_of_a_job_is_told_and_knows_us_by_the_submitters_secret(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, env=ENV)
    try:
        await asyncio.to_thread(plane.start)
        async with receiving() as receiver:
            receiver.secret = (await asyncio.to_thread(plane.get, "/api/webhooks/jobs/secret"))["secret"]
            job = {"service_required": "simulation", "webhook_url": receiver.url, "job_id": "job-1"}
            await asyncio.to_thread(plane.post, "/api/jobs", job)
            await asyncio.to_thread(plane.post, "/api/jobs/job-1/cancel")
            await eventually(lambda: receiver.got, 20)
            assert [(told["type"], told["data"]["job_id"]) for told in receiver.got] == [("job_cancelled", "job-1")]
            assert receiver.forged == 0
    finally:
        plane.kill()


async def test_our_own_networks_are_refused_by_default(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, env=ENV | {"MUSTER_WEBHOOK_PRIVATE_ADDRESSES": "false"})
    try:
        await asyncio.to_thread(plane.start)
        with pytest.raises(AssertionError, match="webhook_private_addresses"):
            await asyncio.to_thread(plane.post, "/api/webhooks", {"url": "http://127.0.0.1:9/in"})
        job = {"service_required": "simulation", "webhook_url": "http://127.0.0.1:9/in"}
        with pytest.raises(AssertionError, match=r'400 .*"field":"webhook_url"'):
            await asyncio.to_thread(plane.post, "/api/jobs", job)
    finally:
        plane.kill()

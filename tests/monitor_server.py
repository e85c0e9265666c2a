"""A control plane for the monitor's tests: it serves the page, and says of the fleet whatever a test makes it say."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

import muster
from muster.api.site import PAGE_POLICY
from muster.domain.job import ACTIVE, TERMINAL, JobStatus

WEB = Path(muster.__file__).parent / "web"
POLICY = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}

_KEEP_ALIVE_S = 5.0
_LOG_LENGTH = 5000
_SHOWN_PER_STATE = 50

Json = dict[str, Any]


def now_ms() -> int:
    return round(time.time() * 1000)


class MonitorServer:
    """Scripted: `put_*` change the state and tell every reader; the switches make it behave badly."""

    def __init__(self, *, token: str | None = None) -> None:
        self.token = token
        self.lesser_token = "known, but not for this"
        self.version = "0.1.0"
        self.machines: dict[str, Json] = {}
        self.workers: dict[str, list[Json]] = {}
        self.jobs: dict[str, Json] = {}
        self.explanations: dict[str, Json] = {}
        self.files: dict[str, bytes] = {}
        self.gateway = {"in_flight": 0, "requests_total": 0, "errors_total": 0}
        self.requests: list[tuple[str, str]] = []
        self.last_event_ids: list[str | None] = []
        self.mute = False  # connections stay open and nothing comes, not even a comment
        self.stream_status = 200
        self._log: deque[tuple[int, str]] = deque(maxlen=_LOG_LENGTH)
        self._last_id = 0
        self._readers: set[asyncio.Queue[str | None]] = set()
        self._runner: web.AppRunner | None = None
        self._port = 0

    # --- life --------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def readers(self) -> int:
        return len(self._readers)

    async def start(self) -> None:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/_/ui", self._page),
                web.get("/api/monitor/state", self._state),
                web.get("/api/events/monitor", self._events),
                web.get("/api/v1/nodes/{id}/history", self._history),
                web.get("/api/jobs/{id}", self._job),
                web.get("/api/jobs/{id}/explain", self._explain),
                web.get("/api/files/{owner}/{name}", self._file),
                web.post("/api/jobs/{id}/{action:cancel|retry}", self._act),
                web.static("/web", WEB),
            ]
        )
        app.on_response_prepare.append(self._add_policy)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def cut(self) -> None:
        """Close every stream in the middle."""
        for reader in self._readers:
            reader.put_nowait(None)

    def forget_log(self) -> None:
        """After this no reader can resume."""
        self._log.clear()

    # --- what there is -----------------------------------------------------------------------------------------------

    def put_machine(self, machine: Json, workers: list[Json]) -> None:
        self.machines[machine["machine_id"]] = machine
        self.workers[machine["machine_id"]] = workers
        self.tell({"type": "machine_update", "machine": machine, "workers": workers})

    def remove_machine(self, machine_id: str) -> None:
        del self.machines[machine_id], self.workers[machine_id]
        self.tell({"type": "machine_removed", "machine_id": machine_id})

    def put_job(self, job: Json) -> None:
        self.jobs[job["job_id"]] = job
        self.tell({"type": "job_update", "job": slim(job)})

    def put_progress(self, job_id: str, fraction: float, message: str, preview_url: str | None = None) -> None:
        job = self.jobs[job_id]
        told = {"fraction": fraction, "message": message, "at_ms": now_ms()}
        job["progress"] = told | ({"preview_url": preview_url} if preview_url else {})
        self.tell({"type": "job_progress", "job_id": job_id, "progress": job["progress"]})

    def put_stats(self) -> None:
        self.tell({"type": "system_stats", "data": self.stats()})

    def resync(self, reason: str) -> None:
        self.tell({"type": "resync", "reason": reason, "timestamp": now_ms()})
        self.tell(self._snapshot())

    def tell(self, message: Json) -> None:
        self._last_id += 1
        frame = f"id: {self._last_id}\ndata: {json.dumps(message)}\n\n"
        self._log.append((self._last_id, frame))
        for reader in self._readers:
            reader.put_nowait(frame)

    def stats(self) -> Json:
        workers = [worker for group in self.workers.values() for worker in group]
        statuses = [_stored(job["status"]) for job in self.jobs.values()]
        return {
            "version": self.version,
            "started_at": now_ms(),
            "total_machines": len(self.machines),
            "healthy_machines": sum(m["health_status"] == "healthy" for m in self.machines.values()),
            "total_workers": len(workers),
            "busy_workers": sum(w["status"] == "busy" for w in workers),
            "total_gpus": sum(m["gpu_count"] for m in self.machines.values()),
            "models": len({model for m in self.machines.values() for model in m["models"]}),
            "jobs": {status.value: statuses.count(status) for status in JobStatus if status == _stored(status)},
            "gateway": self.gateway,
        }

    def state(self) -> Json:
        jobs = [slim(job) for job in self.jobs.values()]
        ended = sorted((j for j in jobs if j["status"] in TERMINAL), key=lambda j: -j["completed_at"])
        completed = [j for j in ended if j["status"] == JobStatus.COMPLETED]
        failed = [j for j in ended if j["status"] in {JobStatus.FAILED, JobStatus.TIMEOUT}]
        active = [j for j in jobs if j["status"] in ACTIVE]
        pending = [j for j in jobs if j["status"] not in TERMINAL | ACTIVE]
        pending.sort(key=lambda j: (-j["priority"], j["created_at"]))
        return {
            "machines": list(self.machines.values()),
            "workers": [worker for group in self.workers.values() for worker in group],
            "jobs": {
                "pending": pending[:_SHOWN_PER_STATE],
                "active": active[:_SHOWN_PER_STATE],
                "completed": completed[:_SHOWN_PER_STATE],
                "failed": failed[:_SHOWN_PER_STATE],
            },
            "system_stats": self.stats(),
        }

    def _snapshot(self) -> Json:
        return {"type": "full_state_snapshot", "data": self.state(), "timestamp": now_ms()}

    # --- HTTP --------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        offered = request.headers.get("Authorization", "")
        if self.token and request.path.startswith("/api/") and offered != f"Bearer {self.token}":
            if offered == f"Bearer {self.lesser_token}":
                return problem(403, "forbidden", "the token 'ci' has the role client; this needs viewer")
            said = "a token is needed" if not offered else "this token is not known"
            return problem(401, "unauthorized", said)
        response: web.StreamResponse = await handler(request)
        return response

    async def _add_policy(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(POLICY)

    async def _page(self, _request: web.Request) -> web.FileResponse:
        return web.FileResponse(WEB / "index.html")

    async def _state(self, _request: web.Request) -> web.Response:
        data = self.state()
        page = {"page": 1, "limit": len(self.machines), "total": len(self.machines)}
        return web.json_response({"success": True, "data": data, "timestamp": now_ms(), "pagination": page})

    async def _job(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return problem(404, "job_not_found", f"no job {request.match_info['id']}")
        return web.json_response({"success": True, "job": job, "timestamp": now_ms()})

    async def _history(self, request: web.Request) -> web.Response:
        return web.json_response({"node_id": request.match_info["id"], "at": [], "cpu_percent": [], "gpus": []})

    async def _file(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.path], content_type="image/png")

    async def _explain(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        plain = {"summary": "Every worker that can run it is busy.", "position": 0, "can_run": ["c1"], "candidates": []}
        explanation = {"job_id": job_id, "status": "pending"} | self.explanations.get(job_id, plain)
        return web.json_response({"success": True, "explanation": explanation})

    async def _act(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        if request.match_info["action"] == "cancel":
            if job["status"] in TERMINAL:
                return problem(409, "invalid_transition", f"the job is {job['status']} already")
            changed = job | {"status": "cancelled", "completed_at": now_ms()}
        else:
            changed = job | {"status": "pending", "completed_at": None, "started_at": None, "error": None}
        self.put_job(changed)
        return web.json_response({"success": True, "job": changed})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self.stream_status != 200:
            return problem(self.stream_status, "store_unavailable", "the store does not answer")
        last_id = request.headers.get("Last-Event-ID")
        self.last_event_ids.append(last_id)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"} | POLICY)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for frame in self._frames(last_id):
                await response.write(frame.encode())
        if request.transport is not None:
            request.transport.abort()
        return response

    async def _frames(self, last_id: str | None) -> AsyncIterator[str]:
        reader: asyncio.Queue[str | None] = asyncio.Queue()
        self._readers.add(reader)
        try:
            yield f"data: {json.dumps({'type': 'connected', 'timestamp': now_ms()})}\n\n"
            missed = [frame for number, frame in self._log if last_id and number > int(last_id)]
            if last_id and self._log and self._log[0][0] <= int(last_id):
                for frame in missed:
                    yield frame
            else:
                yield f"id: {self._last_id}\ndata: {json.dumps(self._snapshot())}\n\n"
            while (said := await self._next(reader)) is not None:
                if not self.mute:
                    yield said
        finally:
            self._readers.discard(reader)

    async def _next(self, reader: asyncio.Queue[str | None]) -> str | None:
        try:
            return await asyncio.wait_for(reader.get(), _KEEP_ALIVE_S)
        except TimeoutError:
            return ": keep-alive\n\n"


def _stored(status: str) -> str:
    """Return the status as it is counted: that nobody can run a job is found out when it is shown."""
    return JobStatus.PENDING if status == JobStatus.UNWORKABLE else status


def slim(job: Json) -> Json:
    return {name: value for name, value in job.items() if name not in {"payload", "result"}}


def problem(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message, "retriable": False}, status=status)

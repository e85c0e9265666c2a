"""A monitor as clients build one: it reads the live events and keeps the picture that they make."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from tests.waiting import eventually_sync

Message = dict[str, Any]

TERMINAL = {"completed", "failed", "cancelled", "timeout"}
_SILENCE_S = 30.0  # the server says something at least every 15 s


class Live:
    """One connection to GET /api/events/monitor, read by a thread into `messages`, each with its `event_id`."""

    def __init__(self, url: str, *, machines: str = "", last_event_id: str | None = None) -> None:
        self.messages: list[Message] = []
        self.arrived_s: list[float] = []
        self.broken = False
        self._closing = False
        self._reading = threading.Event()
        self._reading.set()
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_SILENCE_S)
        path = "/api/events/monitor" + ("?" + urlencode({"machines": machines}) if machines else "")
        headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        self._connection.request("GET", path, headers=headers)
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        assert self._answer.headers["Content-Type"].startswith("text/event-stream")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it from our side, as a lost network does: without a word."""
        self._closing = True
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_SILENCE_S)
        self._connection.close()

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Read nothing meanwhile, as a browser whose machine is busy."""
        self._reading.clear()
        try:
            yield
        finally:
            self._reading.set()

    def _read(self) -> None:
        event_id = None
        try:
            for line in self._answer:
                self._reading.wait(_SILENCE_S)
                if line.startswith(b"id: "):
                    event_id = line[4:].strip().decode()
                elif line.startswith(b"data: "):
                    self.arrived_s.append(time.monotonic())
                    self.messages.append(json.loads(line[6:]) | {"event_id": event_id})
                    event_id = None
        except (OSError, http.client.HTTPException, ValueError):
            pass
        self.broken = not self._closing

    # --- what came ----------------------------------------------------------------------------------------------------

    @property
    def last_event_id(self) -> str:
        return str(next(message["event_id"] for message in reversed(self.messages) if message["event_id"]))

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == kind]

    def jobs(self) -> list[Message]:
        return [message["job"] for message in self.of("job_update")]

    def ended(self) -> set[str]:
        """Return the jobs of which an end was told."""
        return {job["job_id"] for job in self.jobs() if job["status"] in TERMINAL}

    def wait_for(self, check: Callable[["Live"], object], timeout_s: float = 30.0) -> None:
        eventually_sync(lambda: check(self), timeout_s)

    def wait_for_snapshot(self) -> Message:
        """Return the first one: from here on nothing is missed."""
        self.wait_for(lambda live: live.of("full_state_snapshot"))
        return self.of("full_state_snapshot")[0]


class Picture:
    """What a client knows after some messages: every snapshot replaces it, every delta changes one thing."""

    def __init__(self, messages: list[Message]) -> None:
        self.machines: dict[str, Message] = {}
        self.workers: dict[str, Message] = {}
        self.jobs: dict[str, Message] = {}
        for message in messages:
            match message["type"]:
                case "full_state_snapshot":
                    self._replace(message["data"])
                case "machine_update":
                    self._forget(message["machine"]["machine_id"])
                    self._put([message["machine"]], message["workers"])
                case "machine_removed":
                    self._forget(message["machine_id"])
                case "job_update":
                    self.jobs[message["job"]["job_id"]] = message["job"]

    def _replace(self, data: Message) -> None:
        self.machines, self.workers, self.jobs = {}, {}, {}
        self._put(data["machines"], data["workers"])
        self.jobs = {job["job_id"]: job for jobs in data["jobs"].values() for job in jobs}

    def _put(self, machines: list[Message], workers: list[Message]) -> None:
        self.machines |= {machine["machine_id"]: machine for machine in machines}
        self.workers |= {worker["worker_id"]: worker for worker in workers}

    def _forget(self, machine_id: str) -> None:
        self.machines.pop(machine_id, None)
        self.workers = {name: worker for name, worker in self.workers.items() if worker["machine_id"] != machine_id}

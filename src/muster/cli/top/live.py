"""What comes from the control plane, on threads of their own: the keyboard never waits for the network."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from muster.cli.client import Answer, Client, Refused, Unreachable
from muster.cli.top.cells import span
from muster.cli.top.frame import Link
from muster.cli.top.screen import Deed
from muster.commands.lifecycle import ENDED
from muster.domain.command import CommandStatus
from muster.errors import MusterError, UpstreamFailed
from muster.sse import SNAPSHOT_BYTES_MAX, read_events

_STREAM = "/api/events/monitor"
_WHOLE_UP_TO = 200  # nodes; of a larger fleet only those on the screen come in full, beside a line about each
_SETTLED_S = 0.3  # who scrolls is not followed with each step
_SILENCE_S = 20.0  # figures come every 2 s, and when the store is away a sign of life every 15 s
_QUIET_S = 6.0  # from when on silence is told
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
_QUEUES_EVERY_S = 3.0
_FIRST = 50  # jobs in line
_WAITING = ("pending", "unworkable")
_LOOK_S = 0.3
_DEED_S = 60.0
_SERVER_ERROR = 500  # it starts or stops: as good as not there
_WAITING_MAX = 50_000  # events; more than that, and a snapshot is less to read


class Told(Struct, frozen=True):
    """How the queues stand and who is first in line, or what came of a deed."""

    queues: list[dict[str, Any]] | None = None
    waiting: list[dict[str, Any]] = []
    message: str = ""


class Stream:
    """The events of the monitor, for ever: a lost connection is taken up where it broke off."""

    def __init__(self, client: Client, wake: Callable[[], None]) -> None:
        self._client = client
        self._wake = wake
        self._stop = threading.Event()
        self._decode = msgspec.json.Decoder().decode
        self.events: queue.Queue[dict[str, Any]] = queue.Queue(_WAITING_MAX)
        self._heard_s: float | None = None
        self._live = False
        self._problem = ""
        self._next_s = 0.0
        self._last_id: str | None = None
        self._wished: tuple[frozenset[str], float] = (frozenset(), 0.0)  # nodes in full, and since when
        self._asked: frozenset[str] = frozenset()

    def start(self) -> None:
        threading.Thread(target=self._run, name="top-stream", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def want(self, machine_ids: frozenset[str], now_s: float) -> None:
        """Have these in full where the fleet is too large for all."""
        if machine_ids != self._wished[0]:
            self._wished = (machine_ids, now_s)

    def link(self, now_s: float) -> Link:
        quiet_s = 0.0 if self._heard_s is None else now_s - self._heard_s
        if self._live and quiet_s < _QUIET_S:
            return Link(live=True, words="LIVE")
        if self._live:
            return Link(live=False, words=f"SILENT for {span(quiet_s)}")
        if self._heard_s is None and not self._problem:
            return Link(live=False, words="CONNECTING")
        since = f" for {span(quiet_s)}" if self._heard_s is not None else ""
        again = f", again in {span(self._next_s - now_s)}" if self._next_s > now_s else ""
        return Link(live=False, words=f"NOT CONNECTED{since}{again}: {self._problem}")

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            headers = {"Accept": "text/event-stream"}
            if self._last_id is not None:
                headers["Last-Event-ID"] = self._last_id
            try:
                with self._client.open(
                    "GET", _STREAM, query=self._query(), headers=headers, silence_s=_SILENCE_S
                ) as answer:
                    for event in read_events(self._heard(answer), SNAPSHOT_BYTES_MAX):
                        failures = 0
                        self._last_id = event.id or self._last_id
                        self._take(event.data)
                if self._asked != self._wished[0]:
                    self._last_id = None  # what is wanted now begins with a snapshot
                    continue
                self._problem = "the stream ended"
            except (Refused, Unreachable, UpstreamFailed) as error:
                self._problem = _in_words(error)
            self._live = False
            pause_s = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
            failures += 1
            self._next_s = time.monotonic() + pause_s
            self._wake()
            self._stop.wait(pause_s)

    def _query(self) -> dict[str, Any]:
        self._asked, _ = self._wished
        return {"whole_up_to": _WHOLE_UP_TO, "all_jobs": "true", "machines": ",".join(sorted(self._asked)) or None}

    def _heard(self, answer: Answer) -> Iterator[bytes]:
        """Pass on the lines, the empty words among them: they tell that somebody is there."""
        for line in answer.lines():
            now_s = time.monotonic()
            wished, since_s = self._wished
            if self._stop.is_set() or (wished != self._asked and now_s - since_s >= _SETTLED_S):
                return
            self._heard_s = now_s
            self._live = True
            yield line

    def _take(self, data: bytes) -> None:
        try:
            self.events.put_nowait(self._decode(data))
        except queue.Full:
            self._last_id = None  # who cannot follow begins anew with a snapshot
            raise Unreachable("more came than could be shown", next_step="wait a moment") from None
        self._wake()


class Errands:
    """Everything that is asked now and then: how the queues stand, and what the person wants done."""

    def __init__(self, client: Client, wake: Callable[[], None]) -> None:
        self._client = client
        self._wake = wake
        self._deeds: queue.SimpleQueue[Deed | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self.told: queue.SimpleQueue[Told] = queue.SimpleQueue()

    def start(self) -> None:
        for work in (self._look, self._act):
            threading.Thread(target=work, name=f"top{work.__name__}", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        self._deeds.put(None)

    def do(self, deed: Deed) -> None:
        self._deeds.put(deed)

    def _tell(self, told: Told) -> None:
        self.told.put(told)
        self._wake()

    def _look(self) -> None:
        while not self._stop.is_set():
            with suppress(MusterError):  # the stream says how it stands with the connection
                pages = [self._client.get("/api/jobs", status=status, limit=_FIRST) for status in _WAITING]
                waiting = [job for page in pages for job in page["jobs"]]
                self._tell(Told(self._client.get("/api/queues")["queues"], waiting))
            self._stop.wait(_QUEUES_EVERY_S)

    def _act(self) -> None:
        while (deed := self._deeds.get()) is not None:
            self._tell(Told(message=f"{deed.verb} {deed.about}: under way"))
            try:
                outcome = self._cancel(deed) if deed.verb == "cancel" else self._command(deed)
            except MusterError as error:
                outcome = _in_words(error)
            self._tell(Told(message=f"{deed.verb} {deed.about}: {outcome}"))

    def _cancel(self, deed: Deed) -> str:
        return str(self._client.post(f"/api/jobs/{deed.about}/cancel")["job"]["status"])

    def _command(self, deed: Deed) -> str:
        answer = self._client.post("/api/v1/command", {"node_id": deed.about, "command": deed.verb})
        until_s = time.monotonic() + _DEED_S
        while answer["state"] not in ENDED and time.monotonic() < until_s and not self._stop.wait(_LOOK_S):
            answer = self._client.get(f"/api/v1/commands/{answer['command_id']}")
        (command,) = answer["commands"]
        if answer["state"] == CommandStatus.DONE:
            return "done"
        return f"{answer['state']}{': ' + command['error'] if command.get('error') else ''}"


def _in_words(error: MusterError) -> str:
    step = getattr(error, "next_step", None)
    server = isinstance(error, Refused) and error.status >= _SERVER_ERROR
    return f"{error.message}; {step}" if step and not server else error.message

"""Questions of our own to workers that are quarantined: a few tokens, on the way that callers' requests take."""

import asyncio
from itertools import islice

import msgspec

from muster.domain.service import Dialect
from muster.errors import UpstreamFailed
from muster.gateway.dialects import ollama, openai
from muster.gateway.dialects.ending import has_told_its_end, tells_its_end
from muster.gateway.http.upstream import AnswerHead, Endpoint, UpstreamConnection
from muster.gateway.metering.counted import Counted
from muster.gateway.relay import Relay
from muster.gateway.trust.quarantine import Now, Probe
from muster.placement.candidate import Candidate
from muster.ports import FleetView

_AT_ONCE = 8
_TOKENS = 8  # a worker that falls silent after the first few shall not pass
_PIECES_ENOUGH = 4 * _TOKENS  # of an engine that does not heed how many are wanted
_FIRST_SERVER_ERROR = 500
_encode = msgspec.json.Encoder().encode


class Prober:
    """Probes who is due. A probe is no request: nobody is charged, and no slot is reserved for it."""

    def __init__(self, relay: Relay, fleet: FleetView) -> None:
        self.relay = relay
        self.running: set[Trial] = set()
        self._fleet = fleet

    def sweep(self, now_s: float) -> None:
        for trial in list(self.running):
            trial.check(now_s)
        room = _AT_ONCE - len(self.running)
        for probe in islice(self.relay.conduct.quarantine.due(now_s), room):
            self._begin(probe, now_s)

    def _begin(self, probe: Probe, now_s: float) -> None:
        candidate = next((known for known in self._fleet.candidates() if known.key == probe.worker), None)
        model = None if candidate is None else candidate.model(probe.model)
        if candidate is None or model is None:
            self.relay.conduct.quarantine.gone(probe)
            return
        path, body = question(candidate, model.name, model.capabilities)
        trial = Trial(self, probe, path, body, now_s)
        self.running.add(trial)
        trial.start(candidate.url)


class Trial:
    """One probe on its way, as Asker."""

    def __init__(self, prober: Prober, probe: Probe, path: str, body: bytes, now_s: float) -> None:
        self._prober = prober
        self._probe = probe
        self._path = path
        self._body = body
        self._due_s = now_s + prober.relay.limits.probe_timeout_s
        self._answer = Counted(stream=True)
        self._tells_its_end = tells_its_end(path)
        self._pieces = 0
        self._upstream: UpstreamConnection | None = None

    def start(self, url: str) -> None:
        relay = self._prober.relay
        try:
            endpoint = relay.upstreams.endpoint(url)
        except UpstreamFailed:
            self._over("url")
            return
        relay.connecting(asyncio.get_running_loop().create_task(self._ask(endpoint)))

    async def _ask(self, endpoint: Endpoint) -> None:
        """Ask on a connection of its own: whether one can be had is part of what is tried."""
        try:
            connection = await endpoint.connect()
        except (OSError, UnicodeError) as error:
            self._over("connect_timeout" if isinstance(error, TimeoutError) else "connect")
            return
        if not self._path or self not in self._prober.running:
            endpoint.give_back(connection)
            self._over(None)
            return
        self._upstream = connection
        connection.ask(
            self,
            b"POST %b%b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (endpoint.path, self._path.encode(), endpoint.host_header, len(self._body), self._body),
        )

    def check(self, now_s: float) -> None:
        if now_s > self._due_s:
            self._over("probe_timeout")

    def answer_began(self, head: AnswerHead) -> None:
        if head.status >= _FIRST_SERVER_ERROR:
            self._over(f"status_{head.status}")
        elif not head.fields.content_type.startswith((b"text/event-stream", b"application/x-ndjson")):
            self._tells_its_end = False

    def answer_continued(self, data: bytes) -> None:
        self._pieces += 1
        if self._tells_its_end:
            self._answer.take(data)
            if self._pieces > _PIECES_ENOUGH:
                self._over(None)

    def answer_ended(self, data: bytes) -> None:
        self._upstream = None
        self._answer.take(data)
        whole = not self._tells_its_end or has_told_its_end(self._answer.held)
        self._over(None if whole else "answer")

    def answer_lost(self, reason: str) -> None:
        del reason
        self._upstream = None
        self._over("lost")

    def _over(self, problem: str | None) -> None:
        if self not in self._prober.running:
            return
        self._prober.running.discard(self)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.drop()
        relay = self._prober.relay
        relay.conduct.quarantine.probed(self._probe, problem, Now(relay.clock.monotonic_s(), relay.clock.now_ms()))


def question(candidate: Candidate, name: str, capabilities: tuple[str, ...]) -> tuple[str, bytes]:
    """Return path and body of a small request; without a path a connection is all that can be tried."""
    speaks_openai = Dialect.OPENAI in candidate.dialects
    if "completion" in capabilities:
        body = {"model": name, "messages": [{"role": "user", "content": "Count to ten."}], "stream": True}
        if speaks_openai:
            return openai.CHAT, _encode(body | {"max_tokens": _TOKENS})
        return ollama.CHAT, _encode(body | {"options": {"num_predict": _TOKENS}})
    if "embedding" in capabilities:
        return openai.EMBEDDINGS if speaks_openai else ollama.EMBED, _encode({"model": name, "input": "one"})
    return "", b""

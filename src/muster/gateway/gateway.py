"""The door to the models of the fleet, in OpenAI's and Ollama's dialects, without the sockets."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import unquote

from msgspec import Struct
from msgspec.structs import replace

from muster import metrics as m
from muster.access.account import Account
from muster.access.allowance import Allowance
from muster.access.book import ANYBODY
from muster.access.roles import Right
from muster.access.routes import right_for
from muster.clock import Clock, Rng
from muster.domain.service import Dialect
from muster.domain.trace import Tracer
from muster.domain.usage import ANONYMOUS
from muster.errors import InvalidInput, ModelNotFound, MusterError, PayloadTooLarge, Unauthorized
from muster.gateway.admission.admission import Admission, Who
from muster.gateway.admission.waking import Wakings
from muster.gateway.dialects import anthropic, ollama, openai
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.catalog import find, offered, offering, with_sleeping
from muster.gateway.dialects.shape import error_reply
from muster.gateway.exchange import Client, Exchange
from muster.gateway.figures.decisions import RequestView
from muster.gateway.figures.siblings import Siblings, Told
from muster.gateway.figures.streams import StreamsView, metrics_of
from muster.gateway.figures.usage import Finished, GatewayStats, GatewayView, Usage
from muster.gateway.http.framing import RequestReader, path_of
from muster.gateway.http.inflow import Inflow
from muster.gateway.http.reply import Reply
from muster.gateway.http.request import SAFE_ID, Request, bearer_token
from muster.gateway.http.upstream import Upstreams
from muster.gateway.limits import GatewayLimits
from muster.gateway.metering.meter import AccountOf, Meter, Watts, limit_lines
from muster.gateway.models.errand import Errand
from muster.gateway.models.ollama_upkeep import Upkeep
from muster.gateway.models.pictures import Pictures
from muster.gateway.probe import Prober
from muster.gateway.relay import Relay
from muster.gateway.resuming import terms as resumable
from muster.gateway.resuming.keeper import Keeper
from muster.gateway.resuming.reading import Reading
from muster.gateway.resuming.succession import Succession
from muster.gateway.routing.route import Router
from muster.gateway.seeking import SPOKEN_BY
from muster.gateway.side import Side
from muster.gateway.trust.conduct import Conduct
from muster.gateway.trust.quarantine import Change
from muster.metrics import Metric
from muster.placement.candidate import Candidate
from muster.placement.choose import Decision
from muster.placement.scores import Strategy
from muster.placement.wish import Wish
from muster.ports import FleetView, ImageMaker, ModelKeeper, StreamStore, Waker

_GET = (b"GET", b"HEAD")
_POST = (b"POST",)
_DELETE = (b"DELETE",)
_MODEL = openai.MODELS + "/"
_STREAM = resumable.PATH + "{id}"
_TOO_MANY = 429


class MethodNotAllowed(InvalidInput):
    code = "method_not_allowed"
    http_status = 405


Parse = Callable[[str, bytes], Call]
Headers = Mapping[bytes, bytes]
# Gets the bearer token, None when there is none, and the right that is needed.
Authenticate = Callable[[bytes | None, Right], MusterError | None]


class Path(Struct, frozen=True):
    """A path of the gateway: whose dialect it is and what may be done with it; `parse` for those that ask a model.

    `errand`: it is work on servers of the fleet. `in_pieces`: a body that is posted goes on as it comes.
    """

    name: str
    dialect: Dialect
    methods: tuple[bytes, ...]
    parse: Parse | None = None
    errand: bool = False
    in_pieces: bool = False


_PATHS = {
    path.name.encode(): path
    for path in (
        *(
            Path(name, Dialect.OPENAI, _POST, openai.parse)
            for name in (openai.CHAT, openai.COMPLETIONS, openai.EMBEDDINGS)
        ),
        Path(openai.RESPONSES, Dialect.OPENAI, _POST, openai.parse_response),
        *(
            Path(name, Dialect.OPENAI, _POST, openai.parse_other)
            for name in (openai.RERANK, openai.SCORE, openai.SPEECH, openai.IMAGES)
        ),
        *(
            Path(name, Dialect.OPENAI, _POST, openai.parse_form)
            for name in (openai.TRANSCRIPTIONS, openai.TRANSLATIONS)
        ),
        *(
            Path(name, Dialect.ANTHROPIC, _POST, anthropic.parse)
            for name in (anthropic.MESSAGES, anthropic.COUNT_TOKENS)
        ),
        *(
            Path(name, Dialect.OLLAMA, _POST, ollama.parse)
            for name in (ollama.CHAT, ollama.GENERATE, ollama.EMBED, ollama.EMBEDDINGS)
        ),
        *(Path(name, Dialect.OLLAMA, _GET) for name in (ollama.TAGS, ollama.PS, ollama.VERSION)),
        *(
            Path(name, Dialect.OLLAMA, _POST, errand=True)
            for name in (ollama.SHOW, ollama.PULL, ollama.PUSH, ollama.CREATE, ollama.COPY)
        ),
        Path(ollama.DELETE, Dialect.OLLAMA, _DELETE, errand=True),
        Path(openai.MODELS, Dialect.OPENAI, _GET),
    )
}
# Those that end with a name.
_NAMING = {
    _MODEL.encode(): Path(_MODEL + "{id}", Dialect.OPENAI, _GET),
    resumable.PATH.encode(): Path(_STREAM, Dialect.OPENAI, (b"GET", b"DELETE")),
    ollama.BLOBS.encode(): Path(
        ollama.BLOBS + "{digest}", Dialect.OLLAMA, (b"POST", b"HEAD"), errand=True, in_pieces=True
    ),
}
PATHS = (*_PATHS.values(), *_NAMING.values())
_RIGHTS = {path.name: right_for(path.methods[0].decode(), path.name) for path in PATHS}


class Gateway:
    def __init__(
        self,
        fleet: FleetView,
        *,
        clock: Clock,
        rng: Rng,
        authenticate: Authenticate,
        who: Who = lambda _: ANYBODY,
        strategy: Strategy = Strategy.BALANCED,
        limits: GatewayLimits | None = None,
        on_finished: Callable[[Sequence[Finished]], None] = lambda _: None,
        on_conduct: Callable[[Change], None] | None = None,
        waker: Waker | None = None,
        tracer: Tracer | None = None,
        keeper: ModelKeeper | None = None,
        account_of: AccountOf | None = None,
        watts: Watts = lambda _: None,
        streams: StreamStore | None = None,
        images: ImageMaker | None = None,
    ) -> None:
        """`authenticate` says why not, `who` whose token it is; `on_finished` gets a record of every request.

        `waker` wakes models; `account_of` says whose account the token that was shown is; `watts` what a worker draws.
        `on_conduct` hears of workers that are quarantined and of those that are back; `keeper` has nodes fetch models.
        `streams` keeps answers for callers who come back; without it none can. `images` has pictures made by jobs.
        """
        self.limits = limits or GatewayLimits()
        self.clock = clock
        self._fleet = fleet
        self._waker = waker
        self._authenticate = authenticate
        anybodys = Account(ANONYMOUS)
        self._account_of = account_of or (lambda _: anybodys)
        self._watts = watts
        self.siblings = Siblings()
        self._usage = Usage(self.siblings.counts)
        self._router = Router(fleet, strategy=strategy, rng=rng, clock=clock)
        self._admission = Admission(self._router, self.limits, clock, who)
        self._upstreams = Upstreams(self.limits)
        self._conduct = Conduct(self.limits, clock, on_conduct or (lambda _: None))
        self.side = Side(self._router, self._admission, self._conduct.quarantine, clock)
        self._relay = Relay(
            router=self._router,
            upstreams=self._upstreams,
            usage=self._usage,
            limits=self.limits,
            clock=clock,
            on_finished=on_finished,
            wakings=Wakings(waker, self.limits),
            admission=self._admission,
            conduct=self._conduct,
            tracer=tracer,
        )
        self._upkeep = Upkeep(fleet, self._relay, keeper)
        self._pictures = Pictures(self._relay, fleet, images, who, watts) if images is not None else None
        self._prober = Prober(self._relay, fleet)
        self._streams: Keeper | None = None
        if streams is not None:
            succession = Succession(self._relay, _parse, self._account_of, watts, clock)
            self._streams = Keeper(streams, succession, self._account_of, self.limits, clock, rng)
        self._boot = b"req-%08x-" % rng.getrandbits(32)
        self._requests = 0

    # --- what the connection asks ------------------------------------------------------------------------------------

    @staticmethod
    def find(url: bytes) -> Path | None:
        """Return None when somebody else serves this path."""
        found = _PATHS.get(url)
        if found is not None:
            return found
        path = path_of(url)
        for beginning, naming in _NAMING.items():
            if path.startswith(beginning) and path != beginning:
                return naming
        return _PATHS.get(path)

    def refusal(self, path: Path, reader: RequestReader, token: bytes | None) -> MusterError | None:
        """Judge by the head alone, before a body is waited for."""
        if reader.method not in path.methods:
            allowed = b", ".join(path.methods).decode()
            return MethodNotAllowed(f"{path.name} takes {allowed}, not {reader.method.decode('latin-1')}")
        problem = self._authenticate(token, _RIGHTS[path.name])
        if problem is not None:
            return problem
        if reader.remaining > self.limits.body_bytes_max and not path.in_pieces:
            return self.too_large(reader.remaining)
        return None

    def too_large(self, size: int) -> MusterError:
        limit = self.limits.body_bytes_max
        return PayloadTooLarge(f"the body may have {limit} bytes (setting request_bytes_max), this one has {size}")

    def refuse(self, path: Path, problem: MusterError, correlation_id: bytes, headers: Headers | None = None) -> Reply:
        self._relay.record(Finished(path.name, problem.http_status, error=problem.code, correlation_id=correlation_id))
        reply = error_reply(path.dialect, problem)
        if isinstance(problem, MethodNotAllowed):
            reply.lines += b"allow: %b\r\n" % b", ".join(path.methods)
        elif isinstance(problem, Unauthorized):
            reply.lines += b"www-authenticate: Bearer\r\n"
        elif headers is not None and problem.http_status == _TOO_MANY:
            reply.lines += limit_lines(self._account_of(bearer_token(headers)), self.clock.monotonic_s())
        return reply

    def correlation_id(self, headers: dict[bytes, bytes]) -> bytes:
        given = headers.get(b"x-correlation-id")
        if given is not None and SAFE_ID.match(given):
            return given
        self._requests += 1
        return b"%b%08x" % (self._boot, self._requests)

    def serve(self, path: Path, request: Request, client: Client, body: Inflow | None = None) -> Reply | None:
        """Return the answer, or None when it will come through an exchange or an errand."""
        account = self._account_of(request.token)
        if path.errand:
            errand = Errand(self._relay, path.name, request, client, body=body, allows=account.allowance.allows)
            errand.start(self._upkeep.way(path.name))
            return None
        try:
            if path.name == _STREAM:
                self._take_up(request, client)
                return None
            if path.parse is None:
                reply = self._tell(path, request, account.allowance)
            else:
                call = path.parse(path.name, request.body)
                if account.allowance.models:
                    _check_allowed(call, account.allowance)
                if path.name == openai.IMAGES and self._pictures is not None and self._pictures.takes(call.model):
                    self._pictures.start(call, request, client, account)
                    return None
                meter = Meter(account, call, self._watts)
                if resumable.ASKED not in request.headers or not self._record(call, request, client, meter):
                    Exchange(self._relay, call, request, client, meter).start()
                return None
        except MusterError as problem:
            return self.refuse(path, problem, request.correlation_id)
        self._relay.record(
            Finished(path.name, reply.status, bytes_sent=len(reply.body), correlation_id=request.correlation_id)
        )
        return reply

    def _record(self, call: Call, request: Request, client: Client, meter: Meter) -> bool:
        """Have the answer kept as it comes, with its caller as its first reader; return whether it is."""
        recorded = None if self._streams is None else self._streams.record(call, request)
        if recorded is None:
            return False
        recording, unframed = recorded
        reading = Reading(self._relay, request, client, dialect=call.dialect)
        reading.read(recording)
        reading.start()
        exchange = Exchange(self._relay, call, unframed, recording, meter)
        exchange.passage.keeping = recording.keeping
        exchange.start()
        return True

    def _take_up(self, request: Request, client: Client) -> None:
        """Give the rest of an answer, or forget it."""
        streams = self._streams
        stream_id, offset = resumable.stream_and_offset(request.url)
        if streams is None:
            raise resumable.not_found(stream_id)
        if request.method == b"DELETE":
            Errand(self._relay, _STREAM, request, client).start(lambda _: _removed(streams, stream_id, request))
        else:
            find = partial(streams.find, stream_id, offset, request)
            Reading(self._relay, request, client, find, offset=offset, path=_STREAM).start()

    def _tell(self, path: Path, request: Request, allowance: Allowance) -> Reply:
        """Answer from the fleet as last seen, of what the caller may use."""
        if path.name == ollama.VERSION:
            return Reply.json({"version": ollama.COMPATIBLE_VERSION})
        models = offered(self._fleet.candidates(), SPOKEN_BY[path.dialect])
        if self._waker is not None:
            models = with_sleeping(models, self._waker.models())
        if self._pictures is not None and path.dialect is Dialect.OPENAI:
            models = with_sleeping(models, self._pictures.names())
        models = [model for model in models if allowance.allows(model.name)]
        shown = anthropic if anthropic.VERSION_HEADER in request.headers else openai
        match path.name:
            case openai.MODELS:
                return Reply.json(shown.model_list(models))
            case ollama.TAGS:
                backend = offering(self._fleet.candidates(), SPOKEN_BY[path.dialect], allowance.allows)
                return Reply.json(ollama.tags(models), lines=b"x-muster-worker: %b\r\n" % backend.encode())
            case ollama.PS:
                return Reply.json(ollama.ps(models))
        wanted = _model_in(request.url)
        model = find(models, wanted)
        if model is None:
            raise ModelNotFound(f'model "{wanted}" not found, try pulling it first', field="model")
        return Reply.json(shown.model_object(model))

    # --- upkeep ------------------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self._relay.active)

    @property
    def upstream_connections(self) -> int:
        return self._upstreams.connections

    def in_use(self) -> list[tuple[str, str]]:
        """Return worker and model of each request that a worker has now."""
        return [*self._using(), *self.siblings.using()]

    def _using(self) -> list[tuple[str, str]]:
        return [using for running in self._relay.active if (using := running.using)[0]]

    @property
    def _all_in_flight(self) -> dict[str, int]:
        return self.siblings.in_flight(self._router.own)

    def sweep(self) -> None:
        now_s = self.clock.monotonic_s()
        self._relay.sweep(now_s)
        self._prober.sweep(now_s)
        self._upstreams.sweep(now_s)
        self._usage.sweep(now_s, self.clock.now_ms(), self._all_in_flight)
        if self._streams is not None:
            self._streams.sweep(now_s)

    async def hand_over(self) -> None:
        """Leave resumable answers to other gateways, or to the next one here."""
        if self._streams is not None:
            await self._streams.hand_over()

    def end_all(self) -> None:
        """End what still runs with an explicit error, and let go of all engines."""
        self._relay.end_all()
        self._upstreams.close()

    def decide(self, wish: Wish, candidates: Sequence[Candidate] | None = None) -> Decision:
        """Say which worker a request with this wish would get now, and why."""
        quarantined = self._conduct.quarantine.reasons(wish.model)
        return self._router.decide(replace(wish, quarantined=quarantined) if quarantined else wish, candidates)

    @property
    def _own_streams(self) -> StreamsView:
        return StreamsView() if self._streams is None else self._streams.view()

    @property
    def _all_streams(self) -> StreamsView:
        return self.siblings.streams(self._own_streams)

    def stats(self) -> GatewayStats:
        return self._usage.stats(self._all_in_flight)

    def view(self) -> GatewayView:
        """Show this gateway and those that share its port."""
        now_s = self.clock.monotonic_s()
        siblings, conduct = self.siblings, self._conduct
        lines = siblings.lines(self._admission.view(now_s))
        view = self._usage.view(self._all_in_flight, lines, siblings.requests(self._relay.decisions.recent()))
        quarantined = siblings.quarantined(conduct.quarantine.view(now_s))
        waits = siblings.waits(conduct.patience.view())
        return replace(view, streams=self._all_streams, quarantined=quarantined, waits=waits)

    def tell(self, also: Iterable[Metric]) -> Told:
        """Return all that the first of several processes has to know of this one; `also` are counters of others."""
        now_s = self.clock.monotonic_s()
        return Told(
            counts=self._usage.own,
            samples={metric.family.name: list(metric.samples) for metric in (*self._counters(), *also)},
            in_flight=self._router.own,
            using=self._using(),
            lines=self._admission.view(now_s),
            requests=self._relay.decisions.recent(),
            quarantined=self._conduct.quarantine.view(now_s),
            waits=self._conduct.patience.view(),
            streams=self._own_streams,
        )

    def explain(self, correlation_id: str) -> RequestView | None:
        """Say where a request went and why, as long as it is remembered."""
        return self._relay.decisions.find(correlation_id, self._router.strategy)

    def metrics(self) -> Iterator[Metric]:
        yield from self._usage.metrics(self._all_in_flight)
        yield from self.siblings.with_samples(self._counters())
        now_s = self.clock.monotonic_s()
        lines = self.siblings.lines(self._admission.view(now_s))
        yield m.GATEWAY_WAITING.of({(line.model,): line.waiting for line in lines})
        yield from metrics_of(self._all_streams)
        quarantined = self.siblings.quarantined(self._conduct.quarantine.view(now_s))
        yield m.GATEWAY_QUARANTINED.of({(case.worker, case.model or "*"): 1 for case in quarantined})

    def _counters(self) -> Iterator[Metric]:
        """Tell what only grows and is kept as metrics alone."""
        yield from self._usage.own_metrics()
        yield self._admission.waited()
        yield m.GATEWAY_CONTINUED.single(self._relay.continued)


def _check_allowed(call: Call, allowance: Allowance) -> None:
    """Raise ModelNotFound in the words of the dialect, the same as for a model that nobody has."""
    try:
        allowance.check_allows([call.model])
    except ModelNotFound as problem:
        raise ollama.model_not_found(problem, call.model) if call.dialect is Dialect.OLLAMA else problem from None


async def _removed(streams: Keeper, stream_id: str, request: Request) -> Reply:
    try:
        await streams.remove(stream_id, request)
    except MusterError as problem:
        return error_reply(Dialect.OPENAI, problem)
    return Reply.json({"id": stream_id, "object": "stream", "deleted": True})


def _parse(name: str, body: bytes) -> Call:
    parse = _PATHS[name.encode()].parse
    assert parse is not None  # noqa: S101 - only such an answer is kept
    return parse(name, body)


def _model_in(url: bytes) -> str:
    return unquote(path_of(url).decode("latin-1"), errors="replace").removeprefix(_MODEL)

"""Requests for pictures that jobs make: waited for by an errand, and answered as OpenAI would."""

from functools import partial

from msgspec.structs import replace

from muster.access.account import Account
from muster.domain.image import Made
from muster.domain.service import Dialect
from muster.domain.usage import Use
from muster.errors import PayloadTooLarge
from muster.gateway.admission.admission import Who, priority_of
from muster.gateway.dialects import images
from muster.gateway.dialects.call import Call
from muster.gateway.dialects.catalog import find, offered
from muster.gateway.dialects.openai import SPOKEN_BY
from muster.gateway.http.reply import Reply
from muster.gateway.http.request import Request
from muster.gateway.metering.meter import Watts, energy_mwh, limit_lines
from muster.gateway.models.errand import Client, Errand
from muster.gateway.relay import Relay
from muster.ports import FleetView, ImageMaker


class Pictures:
    """The image models that a maker has, for callers. A server of this path that has the model comes first."""

    def __init__(self, relay: Relay, fleet: FleetView, maker: ImageMaker, who: Who, watts: Watts) -> None:
        self._relay = relay
        self._fleet = fleet
        self._maker = maker
        self._who = who
        self._watts = watts
        self.names = maker.names

    def takes(self, model: str) -> bool:
        return self._maker.has(model) and find(offered(self._fleet.candidates(), SPOKEN_BY), model) is None

    def start(self, call: Call, request: Request, client: Client, account: Account) -> None:
        errand = Errand(self._relay, call.path, request, client, dialect=Dialect.OPENAI, model=call.model)
        errand.start(partial(self._make, account, client))

    async def _make(self, account: Account, client: Client, errand: Errand) -> Reply:
        request = errand.request
        asked = images.parse(request.body)
        caller = self._who(request.token)
        order = replace(
            asked.order,
            owner=caller.owner,
            priority=priority_of(caller, request.headers),
            correlation_id=request.correlation_id.decode("latin-1"),
        )
        made = await self._maker.make(order)
        errand.use = self._use(made, account, order.model)
        created_s = self._relay.clock.now_ms() // 1000
        if asked.inline:
            content = images.inlined(await self._read(made), created_s)
        else:
            base = _address(request, client)
            content = images.links([base + picture.url for picture in made.pictures], created_s)
        lines = b"x-muster-job: %b\r\n" % ",".join(made.job_ids).encode()
        return Reply.json(content, lines=lines + limit_lines(account, self._relay.now_s()))

    async def _read(self, made: Made) -> list[bytes]:
        size, most = sum(picture.bytes for picture in made.pictures), self._relay.limits.answer_bytes_max
        if size > most:
            raise PayloadTooLarge(
                f"the pictures have {size} bytes, and an answer may hold {most}: ask for response_format url",
                field="response_format",
            )
        return [await self._maker.read(picture) for picture in made.pictures]

    def _use(self, made: Made, account: Account, model: str) -> Use:
        """Tell what it came to: no tokens, but a worker's time, which it had for itself."""
        node = (made.worker_id or "").rpartition("-worker-")[0]
        worker = f"{node}/{made.service}"
        return Use(
            token=account.token_id,
            model=model,
            worker=worker,
            prompt_tokens=0,
            completion_tokens=0,
            worker_ms=made.worked_ms,
            energy_mwh=energy_mwh(self._watts(worker), made.worked_ms / 1000),
        )


def _address(request: Request, client: Client) -> str:
    """Return where this caller finds us: by the name that it called us by."""
    host = request.headers.get(b"host", b"").decode("latin-1")
    if not host:
        return ""
    tls = client.transport.get_extra_info("sslcontext") is not None
    scheme = request.headers.get(b"x-forwarded-proto", b"https" if tls else b"http").decode("latin-1")
    return f"{scheme}://{host}"

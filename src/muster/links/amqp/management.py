"""What the broker tells of itself by its management API, where that answers: every queue of the vhost, and rates.

It is asked when somebody looks, and of nothing that the links need: a broker without the plugin serves as well.
"""

import asyncio
import base64
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct, structs
from yarl import URL

from muster.clock import Clock
from muster.domain.standing import BrokerManagement, ManagedQueue
from muster.errors import SetupError, UpstreamFailed
from muster.links.amqp.address import BrokerAddress
from muster.tls import trusting

_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}
_LOOK_S = 2.0
_AGAIN_S = 30.0  # one that does not answer is left alone for so long: a page asks every other second
_QUEUES_MAX = 100
_BODY_BYTES_MAX = 1_048_576
_ENABLE = "switch it on with rabbitmq-plugins enable rabbitmq_management, or name it: MUSTER_RABBITMQ_MANAGEMENT_URL"
_COLUMNS = (
    "name,messages_ready,messages_unacknowledged,consumers,"
    "message_stats.publish_details.rate,message_stats.deliver_get_details.rate,message_stats.ack_details.rate"
)


class _Rate(Struct, frozen=True):
    rate: float | None = None


class _Stats(Struct, frozen=True):
    publish_details: _Rate = _Rate()
    deliver_get_details: _Rate = _Rate()
    ack_details: _Rate = _Rate()


class _Queue(Struct, frozen=True):
    """A queue that was just declared has a name, and all else after a while."""

    name: str
    messages_ready: int | None = None
    messages_unacknowledged: int | None = None
    consumers: int | None = None
    message_stats: _Stats = _Stats()


class _Page(Struct, frozen=True):
    items: tuple[_Queue, ...]
    total_count: int


class _Refused(UpstreamFailed):
    """`next_step` says what helps."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


def management_url(broker: BrokerAddress, url: str) -> URL:
    """Return where to ask, login included; without a `url` it is the usual port of the broker's host."""
    scheme, port = _PORTS[broker.url.scheme]
    try:
        named = URL(url) if url else URL.build(scheme=scheme, host=broker.url.host or "", port=port)
    except ValueError as error:
        raise SetupError(f"rabbitmq_management_url is no URL: {error}", next_step="try http://HOST:15672") from None
    if named.user is None:
        named = named.with_user(broker.user).with_password(broker.url.password or broker.user)
    return named


class Management:
    """A Lifecycle; `url` as management_url gives it."""

    def __init__(self, url: URL, vhost: str, clock: Clock, *, ca_file: str = "") -> None:
        self._shown = str(url.with_user(None))
        # The vhost is one segment of the path, whatever is in it.
        self._queues = URL(f"{url.with_user(None) / 'api' / 'queues'}/{quote(vhost, safe='')}", encoded=True)
        self._user = url.user or ""
        login = base64.b64encode(f"{self._user}:{url.password or ''}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}"}
        self._vhost = vhost
        self._clock = clock
        self._tls = trusting(ca_file) if url.scheme == "https" else True
        self._session: aiohttp.ClientSession | None = None
        self._away: BrokerManagement | None = None
        self._again_s = 0.0

    async def start(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers, connector=aiohttp.TCPConnector(limit=1, ssl=self._tls)
            )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def look(self) -> BrokerManagement:
        if self._away is not None and self._clock.monotonic_s() < self._again_s:
            return self._away
        self._away = None
        standing = BrokerManagement(address=self._shown)
        try:
            page = await self._ask()
        except _Refused as error:
            self._again_s = self._clock.monotonic_s() + _AGAIN_S
            self._away = structs.replace(standing, error=error.message, next_step=error.next_step)
            return self._away
        return structs.replace(standing, queues=tuple(map(_shown, page.items)), queue_count=page.total_count)

    async def _ask(self) -> _Page:
        try:
            async with asyncio.timeout(_LOOK_S):
                return msgspec.json.decode(await self._body(), type=_Page)
        except TimeoutError:
            raise _Refused(f"it did not answer within {_LOOK_S:g} s", _ENABLE) from None
        except aiohttp.ClientError as error:
            raise _Refused(f"it does not answer: {error}", _ENABLE) from None
        except msgspec.MsgspecError:
            raise _Refused("what answers there does not speak as RabbitMQ does", _ENABLE) from None

    async def _body(self) -> bytes:
        if self._session is None:
            raise _Refused("this control plane stops", "start it")
        query = {"page": "1", "page_size": str(_QUEUES_MAX), "sort": "name", "columns": _COLUMNS}
        async with self._session.get(self._queues, params=query, allow_redirects=False) as answer:
            if answer.status in {401, 403}:
                problem = f"it does not let {self._user} look ({answer.status})"
                raise _Refused(problem, f"rabbitmqctl set_user_tags {self._user} monitoring")
            if answer.status != 200:  # noqa: PLR2004 - OK
                raise _Refused(f"it answered {answer.status} about the vhost {self._vhost}", _ENABLE)
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > _BODY_BYTES_MAX:
                    raise _Refused("its answer is larger than that of a RabbitMQ", _ENABLE)
            return bytes(body)


def _shown(queue: _Queue) -> ManagedQueue:
    stats = queue.message_stats
    return ManagedQueue(
        name=queue.name,
        ready=queue.messages_ready,
        unacked=queue.messages_unacknowledged,
        consumers=queue.consumers,
        published_per_s=stats.publish_details.rate,
        delivered_per_s=stats.deliver_get_details.rate,
        acked_per_s=stats.ack_details.rate,
    )

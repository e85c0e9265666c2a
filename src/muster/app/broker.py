"""The control plane's end of the links over RabbitMQ, where a broker is named."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from muster import metrics as m
from muster.control.commands import CommandService
from muster.control.fleet.fleet import Fleet
from muster.control.recorder import Recorder
from muster.errors import SetupError
from muster.ids import NodeId
from muster.metrics import Metric
from muster.ports import BrokerProbe, NodeLink
from muster.settings import Settings
from muster.settings.fields import NO_MANAGEMENT
from muster.system import SystemClock, system_rng

if TYPE_CHECKING:
    from muster.links.amqp.control_side import AmqpIngest


class Broker:
    """A Lifecycle that does nothing without a `rabbitmq_url`. `nodes` is where the messages go."""

    def __init__(
        self, settings: Settings, fleet: Fleet, commands: CommandService, recorder: Recorder, nodes: NodeLink
    ) -> None:
        self._ingest: AmqpIngest | None = None
        if settings.rabbitmq_url:
            self._ingest = _ingest(settings, fleet, recorder, nodes)
            commands.on_issued(self._ingest.command_issued)

    def look(self, node_id: NodeId) -> None:
        """There may be something for this node."""
        if self._ingest is not None:
            self._ingest.look(node_id)

    @property
    def probe(self) -> BrokerProbe | None:
        return self._ingest

    async def start(self) -> None:
        if self._ingest is not None:
            await self._ingest.start()

    async def stop(self) -> None:
        if self._ingest is not None:
            await self._ingest.stop()

    def metrics(self) -> Iterator[Metric]:
        if self._ingest is None:
            return
        figures = self._ingest.figures()
        yield m.BROKER_CONNECTED.single(int(self._ingest.connected))
        yield m.BROKER_RECONNECTS.single(self._ingest.reconnects)
        yield m.BROKER_MESSAGES.of({(figure.queue,): figure.received for figure in figures})
        yield m.BROKER_DEAD_LETTERS.of({(figure.queue,): figure.refused for figure in figures})


def _ingest(settings: Settings, fleet: Fleet, recorder: Recorder, nodes: NodeLink) -> "AmqpIngest":
    try:
        from muster.links.amqp.address import broker_address  # noqa: PLC0415 - an extra, loaded where it is used
        from muster.links.amqp.control_side import AmqpIngest  # noqa: PLC0415 - as above
        from muster.links.amqp.management import Management, management_url  # noqa: PLC0415 - as above
    except ImportError as error:
        raise SetupError(
            f"rabbitmq_url is set, but {error.name} is not installed",
            next_step="pip install 'muster[amqp]', or unset MUSTER_RABBITMQ_URL and RABBITMQ_URL",
        ) from None
    address = broker_address(settings.rabbitmq_url, settings.ca_file)
    management = None
    if settings.rabbitmq_management_url != NO_MANAGEMENT:
        url = management_url(address, settings.rabbitmq_management_url)
        management = Management(url, address.vhost, SystemClock(), ca_file=settings.ca_file)
    clock, rng = SystemClock(), system_rng()
    return AmqpIngest(address, nodes, fleet.book, recorder.emit, clock, rng, management=management)

"""The control plane's logs: what it says, what is asked of it and of its gateway, and how people read them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from muster.app.broker import Broker
from muster.app.logs import plane_logs
from muster.clock import Clock, Rng
from muster.control.commands import CommandService
from muster.control.fleet.fleet import Fleet
from muster.control.fleet.peers import Peers
from muster.control.logs.desk import LogDesk
from muster.domain.usage import Use
from muster.gateway.figures.usage import CLIENT_GONE, Finished
from muster.logs.own import Notes, OwnLog
from muster.logs.shelf import LogShelf
from muster.ports import Bus
from muster.settings import Settings

_SERVER_ERROR = 500
_REFUSED = 400


class PlaneLogs:
    """`requests` and `gateway` are Lifecycles to be stopped after the front, `desk` one to be stopped before it."""

    def __init__(
        self, settings: Settings, fleet: Fleet, peers: Peers, bus: Bus, clock: Clock, rng: Rng, plane_id: str
    ) -> None:
        folder = plane_logs(settings)
        self.requests = Notes(OwnLog(folder / "api.log"), clock)
        self.gateway = Notes(OwnLog(folder / "gateway.log"), clock)
        embedded = {} if settings.valkey_url else {"valkey": settings.data_path / "valkey" / "valkey.log"}
        self.desk = LogDesk(
            fleet,
            bus,
            clock,
            rng,
            LogShelf(folder, clock, also=embedded),
            plane_id=plane_id,
            planes=lambda: peers.planes,
        )

    def reach_nodes_by(self, commands: CommandService, broker: Broker) -> None:
        """Let what is asked of nodes go the way of their commands, over every link."""
        commands.send_along(self.desk.asks_for)
        self.desk.on_ask(commands.wake)
        self.desk.on_ask(broker.look)

    def note_request(self, event: str, facts: dict[str, Any]) -> None:
        self.requests.add(_level(facts.get("status", 0)), event, lambda: facts)

    def note_answers(self, finished: Sequence[Finished]) -> None:
        """Note requests to the gateway: who answered each, and how long that took."""
        self.gateway.add_each("request", [(_level(one.status), partial(_facts_of, one)) for one in finished])


def _facts_of(finished: Finished) -> dict[str, Any]:
    return {
        "path": finished.path,
        "model": finished.model,
        "worker": finished.worker,
        "status": finished.status,
        "attempts": finished.attempts,
        "first_byte_s": None if finished.first_byte_s is None else round(finished.first_byte_s, 4),
        "took_s": round(finished.duration_s, 4),
        "bytes": finished.bytes_sent,
        **({} if finished.use is None else _facts_of_use(finished.use)),
        "error": finished.error,
        "correlation_id": finished.correlation_id.decode(),
    }


def _facts_of_use(use: Use) -> dict[str, Any]:
    return {
        "token": use.token,
        "prompt_tokens": use.prompt_tokens,
        "completion_tokens": use.completion_tokens,
        "tokens_estimated": use.estimated,
        "watt_hours": None if use.energy_mwh is None else use.energy_mwh / 1000,
    }


def _level(status: int) -> str:
    if status >= _SERVER_ERROR:
        return "error"
    return "warning" if status >= _REFUSED and status != CLIENT_GONE else "info"

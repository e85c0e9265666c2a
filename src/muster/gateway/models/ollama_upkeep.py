"""Ollama's requests about models themselves: fetch, show, copy, make, send and delete them on the fleet's servers."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Meta, Struct

from muster.domain.model import Model, canonical_model_name
from muster.domain.service import Dialect
from muster.errors import InvalidInput, ModelNotFound, MusterError, NotFound, NoWorker, UpstreamFailed
from muster.gateway.dialects import ollama
from muster.gateway.dialects.call import decode, with_members
from muster.gateway.dialects.catalog import find, offered
from muster.gateway.dialects.chat_answer import error_text
from muster.gateway.http.framing import path_of
from muster.gateway.http.pins import pinned
from muster.gateway.http.reply import Reply
from muster.gateway.http.request import bearer_token
from muster.gateway.models.errand import Errand
from muster.gateway.models.inquiry import Inquiry
from muster.gateway.models.node_models import NodeModelErrands, address_of
from muster.gateway.models.ollama_pull import Merged, most_room
from muster.gateway.relay import Relay
from muster.ids import NodeId
from muster.placement.candidate import Candidate
from muster.placement.filters import connected, draining, health, labels, late, memory, node, pool, service
from muster.placement.wish import Wish
from muster.ports import FleetView, ModelKeeper

_OK, _NOT_FOUND, _BAD_GATEWAY = 200, 404, 502
_ANSWER_BYTES_MAX = 8_388_608  # of what is shown of a model; its tensors alone can be a megabyte
_DIGEST = re.compile(r"sha256[:-][0-9a-f]{64}\Z")
_EVERYBODY = "*"
_THERE = (connected, service)
_TAKES_NEW = (connected, health, late, draining, service)
_PINNED = (node, pool, labels, memory)
_Rules = tuple[Callable[[Candidate, Wish], str | None], ...]
_DONE: dict[str, object] = {"status": "success"}


class _Asked(Struct):
    model: str = ""
    name: Annotated[str, Meta(description="what `model` was called once")] = ""
    stream: bool | None = None
    from_: str = msgspec.field(default="", name="from")
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None

    @property
    def named(self) -> str:
        if not (self.model or self.name):
            raise InvalidInput("model is required", field="model")
        return self.model or self.name


class _Copy(Struct):
    source: Annotated[str, Meta(min_length=1)]
    destination: Annotated[str, Meta(min_length=1)]


class _Failure(Struct, frozen=True):
    """What one server said instead of what was asked of it."""

    worker: str
    status: int
    text: str


_asked = msgspec.json.Decoder(_Asked)
_copy = msgspec.json.Decoder(_Copy)


class Upkeep:
    """Each way takes the errand of one request and returns how it ends."""

    def __init__(self, fleet: FleetView, relay: Relay, keeper: ModelKeeper | None) -> None:
        self._fleet = fleet
        self._of_nodes = NodeModelErrands(keeper)
        self._relay = relay
        self._ways: dict[str, Callable[[Errand], Awaitable[Reply]]] = {
            ollama.SHOW: self.show,
            ollama.PULL: self.pull,
            ollama.DELETE: self.delete,
            ollama.COPY: self.copy,
            ollama.CREATE: self.create,
            ollama.PUSH: self.push,
        }

    def way(self, path: str) -> Callable[[Errand], Awaitable[Reply]]:
        return self._ways.get(path, self.blob)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def show(self, errand: Errand) -> Reply:
        """Have one that has the model tell all of it; what is known here is told when nobody can."""
        wanted = ollama.parse_show(errand.request.body)
        errand.check_model(wanted)
        having = having_model(self._servers(errand, _TAKES_NEW), wanted)
        for candidate, model in having[: self._relay.limits.attempts_max]:
            body = with_members(errand.request.body, {"model": model.name})
            try:
                async with self._inquiry(candidate) as inquiry:
                    head = await inquiry.ask("POST", ollama.SHOW, body)
                    if head.status == _OK:
                        lines = b"x-muster-worker: %b\r\n" % candidate.key.encode()
                        return Reply(body=await inquiry.read(_ANSWER_BYTES_MAX), lines=lines)
            except UpstreamFailed:
                self._relay.usage.upstream_failed(candidate.key, "show")
        known = find(offered(self._fleet.candidates(), ollama.SPOKEN_BY), wanted)
        if known is None:
            raise ModelNotFound(f"model '{wanted}' not found", field="model")
        return Reply.json(ollama.show(known))

    # --- streams of progress -----------------------------------------------------------------------------------------

    async def pull(self, errand: Errand) -> Reply:
        asked = _streamed(errand)
        if address_of(asked.named) is not None:
            return await self._pull_to_nodes(errand, asked.named)
        targets = self._pull_targets(errand, asked.named)
        body = with_members(errand.request.body, {"stream": True})
        return await self._follow_all(errand, ollama.PULL, [(target, body) for target in targets])

    async def push(self, errand: Errand) -> Reply:
        asked = _streamed(errand)
        candidate, model = self._holders(errand, asked.named)[0]
        body = with_members(errand.request.body, {"model": model.name, "stream": True})
        return await self._follow_all(errand, ollama.PUSH, [(candidate, body)])

    async def create(self, errand: Errand) -> Reply:
        """Make a model of files where their blobs went, else where the model is that it is made from."""
        asked = _streamed(errand)
        having = having_model(self._servers(errand, _TAKES_NEW), asked.from_)
        target = self._home(errand) if asked.files or asked.adapters or not having else having[0][0]
        body = with_members(errand.request.body, {"stream": True})
        return await self._follow_all(errand, ollama.CREATE, [(target, body)])

    async def _follow_all(self, errand: Errand, path: str, orders: list[tuple[Candidate, bytes]]) -> Reply:
        merged = Merged()
        followed = (self._follow(errand, path, target, body, merged) for target, body in orders)
        failures = [failure for failure in await asyncio.gather(*followed) if failure is not None]
        if not failures:
            return Reply.json(_DONE)
        if len(orders) == 1:
            return Reply.json({"error": failures[0].text}, status=failures[0].status)
        return _told(failures)

    async def _follow(
        self, errand: Errand, path: str, target: Candidate, body: bytes, merged: Merged
    ) -> _Failure | None:
        try:
            async with self._inquiry(target) as inquiry:
                head = await inquiry.ask("POST", path, body)
                if head.status != _OK:
                    return _Failure(target.key, head.status, error_text(await inquiry.read(_ANSWER_BYTES_MAX)))
                async for line in inquiry.lines():
                    if line.get("error"):
                        return _Failure(target.key, _BAD_GATEWAY, str(line["error"]))
                    if line == _DONE:
                        return None
                    if (told := merged.take(target.key, line)) is not None:
                        await errand.tell(told)
        except MusterError as error:
            return _Failure(target.key, error.http_status, error.message)
        return _Failure(target.key, _BAD_GATEWAY, f"{target.key} ended its answer before it was done")

    async def _pull_to_nodes(self, errand: Errand, model: str) -> Reply:
        candidates = [c for c in self._fleet.candidates() if self._fits(errand, c, _TAKES_NEW)]
        names = _wanted_nodes(errand)
        known = dict.fromkeys(c.node_id for c in most_room(candidates, None))
        wanted = known if _EVERYBODY in names else dict.fromkeys(NodeId(name) for name in sorted(names))
        pin = (pinned(errand.request.headers) or Wish()).node_id
        return await self._of_nodes.pull(errand, model, list(wanted) or ([pin] if pin else []), known)

    def _pull_targets(self, errand: Errand, name: str) -> list[Candidate]:
        """Return the servers that were named, else those that have the model and may have an old one, else one."""
        servers = self._servers(errand, _TAKES_NEW)
        names = _wanted_nodes(errand)
        if names:
            found = [c for c in servers if not names.isdisjoint({c.node_id, c.key, _EVERYBODY})]
            missing = names - {_EVERYBODY} - {key for c in found for key in (c.node_id, c.key)}
            if missing or not found:
                raise NoWorker(f"no Ollama server takes work on {', '.join(sorted(missing or names))}", field="node")
            return found
        having = [candidate for candidate, _ in having_model(servers, name)]
        if having:
            return having
        known = find(offered(self._fleet.candidates(), ollama.SPOKEN_BY), name)
        fitting = most_room(servers, known.size_bytes if known else None)
        if not servers:
            raise NoWorker(
                f"no Ollama server of this fleet takes work now, and {name} has no address from which a node could "
                "fetch it (such as hf:org/repo)",
                field="model",
            )
        if not fitting:
            raise NoWorker(f"no Ollama server of this fleet has room on its disk for {name}", field="model")
        return fitting[:1]

    # --- all who have it ---------------------------------------------------------------------------------------------

    async def delete(self, errand: Errand) -> Reply:
        asked = decode(_asked, errand.request.body)
        errand.check_model(asked.named)
        if address_of(asked.named) is not None:
            return await self._of_nodes.remove(errand, asked.named)
        having = self._holders(errand, asked.named)
        orders = ((c, msgspec.json.encode({"model": model.name})) for c, model in having)
        failures = await self._ask_all("DELETE", ollama.DELETE, orders)
        return _told(failures) if failures else Reply()

    async def copy(self, errand: Errand) -> Reply:
        asked = decode(_copy, errand.request.body)
        for name in (asked.source, asked.destination):
            errand.check_model(name)
        having = self._holders(errand, asked.source)
        orders = ((c, with_members(errand.request.body, {"source": model.name})) for c, model in having)
        failures = await self._ask_all("POST", ollama.COPY, orders)
        return _told(failures) if failures else Reply()

    async def _ask_all(self, method: str, path: str, orders: Iterable[tuple[Candidate, bytes]]) -> list[_Failure]:
        answers = await asyncio.gather(*(self._ask(method, path, target, body) for target, body in orders))
        return [failure for failure in answers if failure is not None]

    async def _ask(self, method: str, path: str, target: Candidate, body: bytes) -> _Failure | None:
        """Return None when it is done; what one has lost meanwhile is gone there as well."""
        try:
            async with self._inquiry(target) as inquiry:
                head = await inquiry.ask(method, path, body)
                text = await inquiry.read(_ANSWER_BYTES_MAX)
        except MusterError as error:
            return _Failure(target.key, error.http_status, error.message)
        gone = method == "DELETE" and head.status == _NOT_FOUND
        return None if head.status == _OK or gone else _Failure(target.key, head.status, error_text(text))

    # --- blobs -------------------------------------------------------------------------------------------------------

    async def blob(self, errand: Errand) -> Reply:
        """Ask for a blob, or take one, where this caller's models are made."""
        request = errand.request
        digest = path_of(request.url).decode("latin-1").removeprefix(ollama.BLOBS)
        if not _DIGEST.match(digest):
            raise InvalidInput("a blob is named sha256: and 64 hexadecimal digits", field="digest")
        path = ollama.BLOBS + digest
        home = self._home(errand)
        async with self._inquiry(home) as inquiry:
            if errand.body is None:
                head = await inquiry.ask("HEAD", path, b"")
                return Reply(status=head.status)
            length = request.headers.get(b"content-length")
            framing = b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %b\r\n" % length
            inquiry.on_answer = errand.body.cut  # a server that is full does not wait for the rest
            await inquiry.begin("POST", path, framing)
            while data := await errand.body.take():
                await inquiry.send(data if length else b"%x\r\n%b\r\n" % (len(data), data))
            if length is None:
                await inquiry.send(b"0\r\n\r\n")
            head = await inquiry.answer()
            return Reply(status=head.status, body=await inquiry.read(_ANSWER_BYTES_MAX))

    # --- who ---------------------------------------------------------------------------------------------------------

    def _servers(self, errand: Errand, state: _Rules) -> list[Candidate]:
        """Return the Ollama servers that are in this state and where the caller wants it."""
        found = [
            candidate
            for candidate in self._fleet.candidates()
            if Dialect.OLLAMA in candidate.dialects and self._fits(errand, candidate, state)
        ]
        return sorted(found, key=lambda candidate: candidate.key)

    @staticmethod
    def _fits(errand: Errand, candidate: Candidate, state: _Rules) -> bool:
        wish = pinned(errand.request.headers) or Wish()
        return not any(rule(candidate, wish) for rule in (*state, *_PINNED))

    def _holders(self, errand: Errand, name: str) -> list[tuple[Candidate, Model]]:
        having = having_model(self._servers(errand, _THERE), name)
        if having:
            return having
        others = [c.key for c in self._fleet.candidates() if c.model(name) and Dialect.OLLAMA not in c.dialects]
        if others:
            raise InvalidInput(
                f"model '{name}' is kept by {', '.join(others)}, no Ollama server: see `muster model --help`",
                field="model",
            )
        raise NotFound(f"model '{name}' not found", field="model")

    def _home(self, errand: Errand) -> Candidate:
        """Return the one server that gets all blobs of this caller: what is made of them must find them together."""
        servers = self._servers(errand, _TAKES_NEW)
        if not servers:
            raise NoWorker("no Ollama server of this fleet takes work now", field="model")
        peer = errand.client.transport.get_extra_info("peername") or ("",)
        who = bearer_token(errand.request.headers) or str(peer[0]).encode()
        return max(servers, key=lambda c: hashlib.sha256(b"%b\n%b" % (who, c.key.encode())).digest())

    def _inquiry(self, candidate: Candidate) -> Inquiry:
        endpoint = self._relay.upstreams.endpoint(candidate.url)
        return Inquiry(endpoint, candidate.key, self._relay.limits.first_byte_timeout_s)


def _streamed(errand: Errand) -> _Asked:
    """Read what is told line by line unless that is refused."""
    asked = decode(_asked, errand.request.body)
    for name in (asked.named, asked.from_):
        if name:
            errand.check_model(name)
    errand.stream = asked.stream is not False
    return asked


def _wanted_nodes(errand: Errand) -> set[str]:
    wanted = parse_qs(urlsplit(errand.request.url.decode("latin-1")).query).get("node", [])
    return {part for text in wanted for part in text.split(",") if part}


def having_model(servers: Iterable[Candidate], name: str) -> list[tuple[Candidate, Model]]:
    wanted = canonical_model_name(name)
    return [(candidate, model) for candidate in servers if (model := candidate.models.get(wanted)) is not None]


def _told(failures: list[_Failure]) -> Reply:
    text = "; ".join(f"{failure.worker}: {failure.text}" for failure in failures)
    return Reply.json({"error": text}, status=failures[0].status)

"""All that a node keeps: fetched for its services before they start, held while they use it, given to other nodes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct

from muster.access.tickets import KEY_BITS
from muster.agent.artifacts.door import Door, DoorRules
from muster.agent.artifacts.download import Downloads
from muster.agent.artifacts.fetcher import Fetcher, FetchRules, Report, fetchable
from muster.agent.artifacts.needs import Needs
from muster.agent.artifacts.room import DiskLimits
from muster.agent.artifacts.space import Space
from muster.agent.artifacts.store import ArtifactStore, Entry, Lease
from muster.agent.artifacts.waiting import WaitingServices, fraction_of
from muster.agent.config import AgentConfig
from muster.agent.surroundings import Surroundings
from muster.domain.artifact import Artifact, ArtifactKind, ArtifactState, NodeArtifacts
from muster.domain.service import ServiceStatus
from muster.domain.source import canonical_name, is_digest
from muster.errors import MusterError, NotFound
from muster.ids import base32
from muster.ports import NodeLink
from muster.wire import ArtifactQuery, ArtifactReply

log = structlog.get_logger()

FetchModel = Callable[[str], Awaitable[Path]]

_LOOK_EVERY_S = 30.0  # at what other processes have changed
_TELL_EVERY_S = 1.0
_AGAIN_S = 300.0
_TOLD_MAX = 200
_FAILURES_MAX = 50


class ArtifactMeans(Struct, frozen=True, kw_only=True):
    """`door` None: nothing is given to other nodes. `progress` shows a person how far a fetch is."""

    store: ArtifactStore
    sources: Downloads
    nodes: Downloads
    rules: FetchRules = FetchRules()
    disk: DiskLimits = DiskLimits()
    door: DoorRules | None = None
    progress: Callable[[str, float | None], None] = lambda _, __: None


class Keeper:
    """A Lifecycle. Without `means` only models that `fetch_model` knows are there: built-in ones, and one's own."""

    def __init__(
        self,
        config: AgentConfig,
        means: ArtifactMeans | None,
        fetch_model: FetchModel,
        link: NodeLink,
        around: Surroundings,
        on_fetched: Callable[[str], Awaitable[object]],
    ) -> None:
        """`on_fetched` is told each service that failed for want of what has been fetched since."""
        self._node_id = config.node_id
        self._on_fetched = on_fetched
        self._means = means
        self._fetch_model = fetch_model
        self._link = link
        self._around = around
        self.needs = needs = Needs(config.services, config.models, around.board)
        self.paths: dict[str, str] = {}  # of what was fetched for services, by name
        self.missing: dict[str, str] = {}  # why the rest was not
        self._leases: dict[str, Lease] = {}  # by name
        self._failures: dict[str, Artifact] = {}
        self._entries: list[Entry] = []
        self._seen_version = -1
        self._seen_s = float("-inf")
        self._told_s = float("-inf")
        self._waiting = WaitingServices(around, needs)
        self._fetcher: Fetcher | None = None
        self._door: Door | None = None
        self._later: asyncio.Task[None] | None = None
        if means is not None:
            self._ticket_key = base32(around.rng.getrandbits(KEY_BITS), KEY_BITS // 5)
            space = Space(
                means.store, means.disk, self._find_copies, self._tell, lambda entry: needs.wants(entry.names)
            )
            self._fetcher = Fetcher(
                means.store, means.sources, means.nodes, self._find, means.rules, around.clock, self._tell, space
            )
            if means.door is not None:
                self._door = Door(means.store, means.door, around.address, self._ticket_key, around.clock)
            around.board.on_change(self._follow_services)

    async def start(self) -> None:
        """Clear what a killed process has left, then let others fetch from here."""
        if self._means is None:
            return
        removed = await asyncio.to_thread(self._means.store.clean)
        log.info("artifact_store_cleaned", folder=str(self._means.store.folder), removed=removed)
        if self._door is not None:
            await self._door.start()
        await self._look()
        self._later = asyncio.create_task(self._fetch_later(), name="artifacts")

    async def stop(self) -> None:
        if self._later is not None:
            self._later.cancel()
            await asyncio.gather(self._later, return_exceptions=True)
            self._later = None
        if self._door is not None:
            await self._door.stop()
        for lease in self._leases.values():
            lease.release()
        self._leases.clear()

    # --- for services -------------------------------------------------------------------------------------------------

    async def fetch_needed(self, services: Sequence[str] | None = None) -> dict[str, str]:
        """Fetch what all services need, or those named, side by side; return why what is missing is missing."""
        wanted = self.needs.of_services(services)
        await asyncio.gather(*(self._fetch_one(name, fresh=services is None) for name in wanted))
        return {name: why for name, why in self.missing.items() if name in wanted}

    async def _fetch_later(self) -> None:
        """Fetch what is wanted here besides, and try again what was not to be had; nobody waits for it."""
        while True:
            wanted = [name for name in dict.fromkeys((*self.needs.pinned, *self.missing)) if name not in self.paths]
            await asyncio.gather(*(self._fetch_one(name, fresh=False) for name in wanted))
            for service in self._startable(wanted):
                await self._on_fetched(service)
            await asyncio.sleep(_AGAIN_S)

    def _startable(self, names: Sequence[str]) -> list[str]:
        """Return the services that failed for want of one of these, and lack nothing any more."""
        failed = {each.name for each in self._around.board.services() if each.status is ServiceStatus.FAILED}
        waiting = dict.fromkeys(instance.name for name in names for instance in self.needs.services_with(name))
        return [
            service
            for service in waiting
            if service in failed and all(name in self.paths for name in self.needs.of_services([service]))
        ]

    async def _fetch_one(self, name: str, *, fresh: bool) -> None:
        kind = self.needs.kinds[name]
        try:
            # What services are made of is compared with its source at each start; models say by their name what
            # they are, and are large.
            fresh = fresh and kind is ArtifactKind.BUNDLE
            path = await self.fetch(name, kind, partial(self._waiting.report, name), fresh=fresh)
            if self.needs.services_with(name):
                self._hold(name)
        except MusterError as error:
            step = getattr(error, "next_step", None)
            self.missing[name] = f"{error.message}: {step}" if step else error.message
            self.paths.pop(name, None)
        except OSError as error:
            self.missing[name] = str(error)
        else:
            self.paths[name] = str(path)
            self.missing.pop(name, None)
        finally:
            self._waiting.ended(name)

    # --- for anybody --------------------------------------------------------------------------------------------------

    async def fetch(
        self, name: str, kind: ArtifactKind, report: Report, *, fresh: bool = False, from_fleet: bool = False
    ) -> Path:
        """Return where it is, fetched if need be."""
        source = fetchable(name)
        if source is None or self._means is None or self._fetcher is None:
            return await self._fetch_model(name)

        def tell(done_bytes: int, total_bytes: int | None) -> None:
            report(done_bytes, total_bytes)
            self._means_progress(source.name, done_bytes, total_bytes)

        try:
            kept = await self._fetcher.fetch(source, kind, tell, fresh=fresh, from_fleet=from_fleet)
        except MusterError as error:
            self._note_failure(source.name, kind, error.message)
            raise
        self._failures.pop(source.name, None)
        return self._means.store.path_of(kept)

    async def remove(self, name: str) -> dict[str, Any]:
        """Remove an artifact, by name or digest; NotFound, or Conflict while it is in use."""
        if self._means is None:
            raise NotFound(f"this node does not keep {name!r}")
        store = self._means.store
        canonical = canonical_name(name)
        named = await asyncio.to_thread(store.named, canonical)
        digest = canonical if is_digest(canonical) else None if named is None else named.digest
        if digest is None:
            raise NotFound(f"this node does not keep {name!r}")
        freed_bytes = await asyncio.to_thread(store.remove, digest)
        self._tell("artifact_removed", names=[canonical], digest=digest, size_bytes=freed_bytes, reason="asked for")
        return {"model": canonical, "digest": digest, "freed_bytes": freed_bytes}

    async def report(self) -> NodeArtifacts:
        """Return what a heartbeat says of it."""
        if self._means is None or self._fetcher is None:
            return NodeArtifacts()
        await self._look()
        flying = {
            flight.name: Artifact(
                name=flight.name,
                kind=flight.kind,
                state=ArtifactState.FETCHING,
                size_bytes=flight.total_bytes,
                fraction=fraction_of(flight.done_bytes, flight.total_bytes),
            )
            for flight in self._fetcher.flights
            if flight.begun
        }
        kept = [artifact for entry in self._entries for artifact in self._told_of(entry)]
        here = {artifact.name for artifact in kept}
        others = [*flying.values(), *(each for name, each in self._failures.items() if name not in {*here, *flying})]
        newest = sorted(kept, key=lambda artifact: artifact.last_used_at_ms or 0, reverse=True)
        url = self._door.url if self._door is not None else None
        return NodeArtifacts(
            kept=tuple([*others, *newest][:_TOLD_MAX]), url=url, ticket_key=self._ticket_key if url else None
        )

    def _told_of(self, entry: Entry) -> list[Artifact]:
        kept = entry.kept
        return [
            Artifact(
                name=name,
                kind=kept.kind,
                digest=kept.digest,
                validator=validator,
                size_bytes=kept.size_bytes,
                fetched_at_ms=kept.fetched_at_ms,
                last_used_at_ms=entry.last_used_ms,
                services=self.needs.users_of(name),
                pinned=self.needs.is_pinned(name),
            )
            for name, validator in entry.validators.items()
        ]

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _find(self, name: str, digest: str | None) -> ArtifactReply:
        return await self._link.find_artifacts(
            ArtifactQuery(node_id=self._node_id, name=name, digest=digest, fetches=True)
        )

    async def _find_copies(self, digests: tuple[str, ...]) -> ArtifactReply:
        return await self._link.find_artifacts(ArtifactQuery(node_id=self._node_id, kept=digests))

    async def _look(self) -> None:
        """Read what is kept, when there may be something new about it."""
        if self._means is None:
            return
        store, now_s = self._means.store, self._around.clock.monotonic_s()
        version = store.version()
        if version != self._seen_version or now_s - self._seen_s > _LOOK_EVERY_S:
            self._seen_version, self._seen_s = version, now_s
            self._entries = await asyncio.to_thread(store.entries)

    def _hold(self, name: str) -> None:
        """Keep what the name stands for now from being evicted, for as long as a service uses it."""
        source = fetchable(name)
        if source is None or self._means is None:
            return
        named = self._means.store.named(source.name)
        if named is None:
            raise NotFound(f"{name} was removed as soon as it had come: there is too little room")
        older = self._leases.get(name)
        if older is None or older.digest != named.digest:
            self._leases[name] = self._means.store.lease(named.digest)
            if older is not None:
                older.release()

    def _follow_services(self) -> None:
        """Let go of what is not used any more, and hold what is used again."""
        known = {service.name for service in self._around.board.services()}
        for name in list(self.paths):
            services = [instance.name for instance in self.needs.services_with(name)]
            if not self.needs.users_of(name):
                if services and known.issuperset(services) and (lease := self._leases.pop(name, None)) is not None:
                    lease.release()
            elif name not in self._leases:
                try:
                    self._hold(name)
                except NotFound as error:
                    log.warning("artifact_not_held", name=name, error=error.message)

    def _note_failure(self, name: str, kind: ArtifactKind, why: str) -> None:
        self._failures[name] = Artifact(name=name, kind=kind, state=ArtifactState.FAILED, error=why)
        while len(self._failures) > _FAILURES_MAX:
            del self._failures[next(iter(self._failures))]

    def _tell(self, kind: str, **data: Any) -> None:
        self._around.outbox.add(kind, **data)

    def _means_progress(self, name: str, done_bytes: int, total_bytes: int | None) -> None:
        now_s = self._around.clock.monotonic_s()
        if self._means is not None and (now_s - self._told_s >= _TELL_EVERY_S or done_bytes == total_bytes):
            self._told_s = now_s
            self._means.progress(f"fetching {name}", fraction_of(done_bytes, total_bytes))

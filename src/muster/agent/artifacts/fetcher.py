"""Fetches artifacts once however many ask: from another node of the fleet, else from where they come from."""

import asyncio
import fcntl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct

from muster.agent.artifacts.download import Downloads
from muster.agent.artifacts.part import Part
from muster.agent.artifacts.plan import Hub, Plan, plan_of_holder, plan_of_hub, plan_of_url
from muster.agent.artifacts.space import Space
from muster.agent.artifacts.store import ArtifactStore, Kept, Named, size_below
from muster.agent.artifacts.unpack import unpack
from muster.clock import Clock
from muster.domain.artifact import ArtifactFile, ArtifactKind, digest_of
from muster.domain.source import HubSource, OllamaSource, WebSource, parse_source
from muster.errors import ArtifactFailed, DiskFull, InvalidInput, MusterError
from muster.wire import ArtifactHolder, ArtifactReply

log = structlog.get_logger()

Report = Callable[[int, int | None], None]  # bytes done, bytes in all
Tell = Callable[..., None]  # an event's kind and what there is to say
Find = Callable[[str, str | None], Awaitable[ArtifactReply]]  # by name and, where it is pinned, digest

_LOCK_POLL_S = 0.2
_FLEET_POLL_S = 2.0
_HOLDERS_MAX = 3


class FetchRules(Struct, frozen=True, kw_only=True):
    """`wait_for_fleet_s`: how long to wait for a node that fetches the same, instead of asking the source too."""

    hub: Hub = Hub()
    wait_for_fleet_s: float = 0.0


class _Asked(Struct, frozen=True):
    """What makes two who ask wait for the same fetch."""

    source: WebSource | HubSource
    kind: ArtifactKind
    fresh: bool
    from_fleet: bool


class Flight(Struct):
    """One fetch, and all who wait for it."""

    name: str
    kind: ArtifactKind
    task: "asyncio.Task[Kept] | None" = None
    reports: list[Report] = []
    waiting: int = 0
    begun: bool = False  # false while it waits for others
    done_bytes: int = 0
    total_bytes: int | None = None

    def move(self, done_bytes: int, total_bytes: int | None) -> None:
        self.done_bytes, self.total_bytes = done_bytes, total_bytes
        for report in list(self.reports):
            report(done_bytes, total_bytes)


class Fetcher:
    """`sources` leads out of the fleet, by a proxy where there is one; `nodes` to its nodes, and never by one."""

    def __init__(
        self,
        store: ArtifactStore,
        sources: Downloads,
        nodes: Downloads,
        find: Find,
        rules: FetchRules,
        clock: Clock,
        tell: Tell,
        space: Space,
    ) -> None:
        self._store = store
        self._space = space
        self._sources = sources
        self._nodes = nodes
        self._find = find
        self._rules = rules
        self._clock = clock
        self._tell = tell
        self._flights: dict[_Asked, Flight] = {}

    @property
    def flights(self) -> list[Flight]:
        """What is being fetched."""
        return list(self._flights.values())

    async def fetch(
        self,
        source: WebSource | HubSource,
        kind: ArtifactKind,
        report: Report,
        *,
        fresh: bool = False,
        from_fleet: bool = False,
    ) -> Kept:
        """Return the artifact, fetched if need be.

        `fresh`: ask its source whether it has changed; what is here counts where that cannot be asked.
        `from_fleet`: take it from another node, or not at all.
        """
        asked = _Asked(source, kind, fresh, from_fleet)
        flight = self._flights.get(asked)
        if flight is None:
            flight = self._flights[asked] = Flight(name=source.name, kind=kind, reports=[])
            flight.task = asyncio.create_task(self._fly(asked, flight), name=f"fetch {source.name}")
        assert flight.task is not None  # noqa: S101 - it was begun above, or by whoever made the flight
        flight.reports.append(report)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.reports.remove(report)
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()  # nobody waits for it any more; what has come stays for the next time
                await asyncio.gather(flight.task, return_exceptions=True)

    async def _fly(self, asked: _Asked, flight: Flight) -> Kept:
        source, started_s = asked.source, self._clock.monotonic_s()
        try:
            kept = await self._kept(source, asked.kind)
            if kept is not None and not asked.fresh:
                return kept
            async with self._locked(source.name, flight):
                before = await self._kept(source, asked.kind)
                if before is not None and (before != kept or (asked.fresh and await self._is_current(source, before))):
                    return before  # somebody else was quicker, or it is what the source has
                kept, place = await self._bring(asked, flight, has_older=before is not None)
        except (ArtifactFailed, InvalidInput, OSError) as error:
            failed = error if isinstance(error, ArtifactFailed) else _unkept(source.name, error)
            log.warning("download_failed", name=source.name, error=failed.message)
            self._tell("artifact_failed", name=source.name, reason=failed.message, next_step=failed.next_step)
            raise failed from None
        finally:
            self._flights.pop(asked, None)
        if before is not None and before.digest != kept.digest:
            await asyncio.to_thread(self._forget_older, before.digest)
        took_s = round(self._clock.monotonic_s() - started_s, 2)
        facts: dict[str, Any] = {"digest": kept.digest, "size_bytes": kept.size_bytes, "took_s": took_s, "from": place}
        self._tell("artifact_fetched", name=source.name, artifact_kind=kept.kind.value, **facts)
        return kept

    async def _kept(self, source: WebSource | HubSource, kind: ArtifactKind) -> Kept | None:
        """Return what is here under this name, unless it is not what is wanted by it now."""
        kept = await asyncio.to_thread(self._store.find, source.name)
        if kept is None or kept.kind is not kind:
            return None
        if isinstance(source, WebSource) and source.sha256 not in {None, kept.digest}:
            log.info("artifact_outdated", name=source.name, have=kept.digest, wanted=source.sha256)
            return None
        await asyncio.to_thread(self._store.touch, kept.digest)
        return kept

    async def _is_current(self, source: WebSource | HubSource, kept: Kept) -> bool:
        if not await asyncio.to_thread(self._store.is_sound, kept):
            log.warning("artifact_damaged", name=source.name, digest=kept.digest)
            await asyncio.to_thread(self._space.forget, kept.digest)
            return False
        named = await asyncio.to_thread(self._store.named, source.name)
        return await self._is_latest(source, named.validator if named is not None else None)

    async def _is_latest(self, source: WebSource | HubSource, validator: str | None) -> bool:
        """Ask the source whether this is what it has; one that cannot be asked has nothing better."""
        try:
            if isinstance(source, HubSource):
                return (await plan_of_hub(source, self._rules.hub, self._sources)).validator == validator
            if source.sha256 is not None:
                return True
            return validator is not None and await self._sources.is_unchanged(plan_of_url(source).files[0], validator)
        except ArtifactFailed as error:
            log.warning("artifact_not_compared", name=source.name, error=error.message)
            return True

    def _forget_older(self, digest: str) -> None:
        """Remove what has been replaced, unless it has another name; what is in use goes when room is needed."""
        if not any(entry.names for entry in self._store.entries() if entry.kept.digest == digest):
            self._space.forget(digest)

    # --- where from ---------------------------------------------------------------------------------------------------

    async def _bring(self, asked: _Asked, flight: Flight, *, has_older: bool) -> tuple[Kept, str]:
        """Return what was fetched, and from where."""
        source = asked.source
        problem: ArtifactFailed | None = None
        for holder in await self._holders(asked, has_older=has_older):
            try:
                plan = await plan_of_holder(holder, self._nodes)
                return await self._carry_out(source, plan, flight), plan.place
            except DiskFull:
                raise
            except ArtifactFailed as error:
                problem = error
                log.warning("download_from_fleet_failed", name=source.name, node=holder.node_id, error=error.message)
        if asked.from_fleet:
            raise problem or ArtifactFailed(
                f"no other node that can be reached has {source.name}",
                next_step="muster model ls shows who has what; muster model pull fetches it from its source",
            )
        if isinstance(source, HubSource):
            plan = await plan_of_hub(source, self._rules.hub, self._sources)
        else:
            plan = plan_of_url(source)
        return await self._carry_out(source, plan, flight), plan.place

    async def _holders(self, asked: _Asked, *, has_older: bool) -> Sequence[ArtifactHolder]:
        """Return who has it. Of what must be fresh only those count who have what its source has now."""
        source = asked.source
        if asked.from_fleet:
            return (await self._found(source)).holders[:_HOLDERS_MAX]
        if has_older:
            return ()  # the source has something newer, and that is all we know
        holders = (await self._found(source)).holders[:_HOLDERS_MAX]
        if not asked.fresh:
            return holders
        latest = {tag: await self._is_latest(source, tag) for tag in {holder.validator for holder in holders}}
        return [holder for holder in holders if latest[holder.validator]]

    async def _found(self, source: WebSource | HubSource) -> ArtifactReply:
        """Ask who has it; while another node fetches it, wait for that one as long as we may."""
        pin = source.sha256 if isinstance(source, WebSource) else None
        patient_until_s = self._clock.monotonic_s() + self._rules.wait_for_fleet_s
        while True:
            is_patient = self._clock.monotonic_s() < patient_until_s
            reply = await self._ask(source.name, pin)
            if reply.holders or not reply.fetching or not is_patient:
                return reply
            log.info("download_waits_for_fleet", name=source.name, nodes=list(reply.fetching))
            await asyncio.sleep(_FLEET_POLL_S)

    async def _ask(self, name: str, digest: str | None) -> ArtifactReply:
        try:
            return await self._find(name, digest)
        except MusterError as error:
            log.debug("artifacts_not_asked_for", name=name, error=error.message)
            return ArtifactReply()

    # --- fetching -----------------------------------------------------------------------------------------------------

    async def _carry_out(self, source: WebSource | HubSource, plan: Plan, flight: Flight) -> Kept:
        log.info("download_started", name=source.name, place=plan.place, size_bytes=plan.size_bytes)
        downloads = self._nodes if plan.from_fleet else self._sources
        folder = await asyncio.to_thread(self._store.partial, source.name)
        parts: dict[str, Path] = {}
        files: list[ArtifactFile] = []
        validator = plan.validator
        flight.begun = True
        for number, wanted in enumerate(plan.files):
            part = Part(folder / f"{number}.part")
            got = await downloads.fetch(
                wanted,
                part,
                partial(_moved, flight, plan, sum(file.size_bytes for file in files)),
                partial(self._space.make, source.name),
            )
            parts[wanted.path] = part.path
            files.append(got.file)
            validator = validator or got.validator
        digest = digest_of(files)
        if plan.digest is not None and digest != plan.digest:
            raise ArtifactFailed(f"{source.name} is not what it must be: its digest is {digest}", next_step="try again")
        tree = None
        size_bytes = sum(file.size_bytes for file in files)
        if flight.kind is ArtifactKind.BUNDLE:
            tree = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="tree-", dir=folder))
            size_bytes += await self._unpack(source.name, parts, tree)
        kept = Kept(
            digest=digest,
            kind=flight.kind,
            files=tuple(files),
            size_bytes=size_bytes,
            fetched_at_ms=self._clock.now_ms(),
        )
        named = Named(name=source.name, digest=digest, validator=validator)
        await asyncio.to_thread(self._take_in, kept, parts, tree, named)
        log.info("download_done", name=source.name, place=plan.place, digest=digest, size_bytes=size_bytes)
        return kept

    async def _unpack(self, name: str, parts: dict[str, Path], tree: Path) -> int:
        if len(parts) != 1:
            raise ArtifactFailed(
                f"{name} has {len(parts)} files, a bundle is one archive", next_step="name the archive"
            )
        (archive,) = parts.values()
        loop = asyncio.get_running_loop()

        def has_room(more_bytes: int) -> None:
            asyncio.run_coroutine_threadsafe(self._space.make(name, more_bytes), loop).result()

        return await asyncio.to_thread(unpack, archive, name, tree, has_room)

    def _take_in(self, kept: Kept, parts: dict[str, Path], tree: Path | None, named: Named) -> None:
        self._store.put(kept, parts, tree)
        self._store.name(named)
        self._store.drop_partial(named.name)

    # --- one at a time -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _locked(self, name: str, flight: Flight) -> AsyncIterator[None]:
        """Hold a lock across processes; while another fetches the same, its progress is ours."""
        path = await asyncio.to_thread(self._store.lock_path, name)
        with path.open("ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    done_bytes = await asyncio.to_thread(size_below, self._store.partial(name))
                    if done_bytes != flight.done_bytes:
                        flight.move(done_bytes, None)
                    await asyncio.sleep(_LOCK_POLL_S)
            yield


def _moved(flight: Flight, plan: Plan, before_bytes: int, done_bytes: int, total_bytes: int | None) -> None:
    flight.move(before_bytes + done_bytes, total_bytes if len(plan.files) == 1 else plan.size_bytes)


def fetchable(name: str) -> WebSource | HubSource | None:
    """Return where an artifact is fetched from; None for what others fetch, or is here already."""
    source = parse_source(name)
    return None if source is None or isinstance(source, OllamaSource) else source


def _unkept(name: str, error: MusterError | OSError) -> ArtifactFailed:
    if isinstance(error, MusterError):
        return ArtifactFailed(error.message, next_step="correct the name")
    return ArtifactFailed(
        f"{name} cannot be kept: {error.strerror or error}",
        next_step="correct the rights or the free space of MUSTER_ARTIFACT_DIR, or choose another",
    )

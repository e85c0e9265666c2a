"""What commands can do to what a node keeps; what it does not keep itself, a service may."""

from typing import Any

from muster.agent.artifacts.fetcher import fetchable
from muster.agent.artifacts.keeper import Keeper
from muster.agent.artifacts.waiting import fraction_of
from muster.agent.services.actions import ServiceActions
from muster.domain.artifact import ArtifactKind
from muster.domain.job import Progress
from muster.domain.source import OllamaSource, is_digest, parse_source
from muster.errors import ArtifactFailed, InvalidInput, UpstreamFailed
from muster.ports import ReportProgress

FROM_FLEET = "fleet"
FROM_SOURCE = "source"
_OLLAMA = "ollama"


class ArtifactActions:
    def __init__(self, keeper: Keeper, services: ServiceActions) -> None:
        self._keeper = keeper
        self._services = services

    async def pull_model(self, args: dict[str, Any], report: ReportProgress) -> Any:
        """Fetch it into this node's own store, or let a service that has a library of its own do it."""
        name, place = args["model"], args.get("from", FROM_SOURCE)
        if place not in {FROM_SOURCE, FROM_FLEET}:
            raise InvalidInput(f"from must be {FROM_SOURCE} or {FROM_FLEET}, got {place!r}", field="args.from")
        source = parse_source(name)
        if isinstance(source, OllamaSource):
            return await self._services.pull_by_service(source.model, report, args.get("service"), _OLLAMA)
        if source is None or "service" in args:
            return await self._services.pull_model(args, report)

        def tell(done_bytes: int, total_bytes: int | None) -> None:
            of = f" of {total_bytes / 1e6:.1f}" if total_bytes else ""
            report(Progress(fraction=fraction_of(done_bytes, total_bytes), message=f"{done_bytes / 1e6:.1f}{of} MB"))

        try:
            path = await self._keeper.fetch(
                name, ArtifactKind.MODEL, tell, fresh=place == FROM_SOURCE, from_fleet=place == FROM_FLEET
            )
        except ArtifactFailed as error:  # in one text: that is all that a command's answer has room for
            raise UpstreamFailed(f"{error.message}; next: {error.next_step}") from None
        return {"model": source.name, "path": str(path)}

    async def remove_model(self, args: dict[str, Any], _: ReportProgress) -> Any:
        name = args["model"]
        if "service" not in args and (is_digest(name) or fetchable(name) is not None):
            return await self._keeper.remove(name)
        source = parse_source(name)
        if isinstance(source, OllamaSource):
            return await self._services.remove_model(source.model, args.get("service"), _OLLAMA)
        return await self._services.remove_model(name, args.get("service"))

    async def restart(self, args: dict[str, Any], report: ReportProgress) -> dict[str, Any]:
        """Fetch what the service lacks first: that may be why it does not run."""
        await self._keeper.fetch_needed([args["service"]])
        return await self._services.restart(args, report)

"""vLLM: OpenAI's API, with every model that it lists in memory, unless it sleeps."""

from typing import Any

from msgspec import structs

from muster.connectors.engine import refusal
from muster.connectors.openai import Listing, OpenAIConnector, base_url, read_model
from muster.domain.service import Service
from muster.errors import Conflict, UpstreamFailed

_OK = 200
_NOT_FOUND = 404


class VllmConnector(OpenAIConnector):
    name = "vllm"
    provides = ("vllm", "openai")

    async def _state(self, base: str) -> Service:
        listing = await self._engine.read(f"{base}/v1/models", Listing)
        if not any(entry.owned_by == "vllm" for entry in listing.data):
            raise UpstreamFailed(f"{base} is no vLLM: it offers no model of its own")
        awake = not await self._sleeps(base)
        return self._service(
            base, models=tuple(structs.replace(read_model(entry), resident=awake) for entry in listing.data)
        )

    async def load_model(self, service: Service, model: str, *, stays: bool) -> dict[str, Any]:  # noqa: ARG002 - it stays until it is told
        return await self._told(service, model, "/wake_up")

    async def unload_model(self, service: Service, model: str) -> dict[str, Any]:
        """Have it keep its weights in the machine's memory, and give the GPU's away."""
        return await self._told(service, model, "/sleep?level=1")

    async def _sleeps(self, base: str) -> bool:
        """Only a server in development mode that was started with its sleep mode says so; any other is awake."""
        look = await self._engine.look(f"{base}/is_sleeping")
        if look.status != _OK:
            return False
        return isinstance(look.value, dict) and look.value.get("is_sleeping") is True

    async def _told(self, service: Service, model: str, path: str) -> dict[str, Any]:
        look = await self._engine.look(f"{base_url(service.url or '')}{path}", method="POST")
        if look.status == _NOT_FOUND:
            raise Conflict(
                f"{service.name} has no sleep mode: start it with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1"
            )
        if look.status != _OK:
            raise refusal(look.status, look.value)
        return {"model": model, "service": service.name}

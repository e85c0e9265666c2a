"""vLLM: OpenAI's API, with every model that it lists in memory."""

from msgspec import structs

from muster.connectors.openai import Listing, OpenAIConnector, read_model
from muster.domain.service import Service
from muster.errors import UpstreamFailed


class VllmConnector(OpenAIConnector):
    name = "vllm"
    provides = ("vllm", "openai")

    async def _state(self, base: str) -> Service:
        listing = await self._engine.read(f"{base}/v1/models", Listing)
        if not any(entry.owned_by == "vllm" for entry in listing.data):
            raise UpstreamFailed(f"{base} is no vLLM: it offers no model of its own")
        load = await self._load(base)
        return self._service(
            base,
            models=tuple(structs.replace(read_model(entry), resident=True) for entry in listing.data),
            slots_busy=load.running,
            requests_waiting=load.waiting,
        )

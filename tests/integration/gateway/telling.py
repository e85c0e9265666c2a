"""An engine that tells a story word by word, as a test lets it, and goes on where somebody else stopped."""

import asyncio

from tests.integration.gateway.engine import Asked

WORDS = ("Once", " upon", " a", " time", " there", " was", " a", " queue", ".")
STORY = "".join(WORDS)


class Story:
    """Tells as many words as were allowed; `said` counts all that were."""

    def __init__(self) -> None:
        self._allowed = asyncio.Semaphore(0)
        self.said = 0

    def allow(self, words: int = len(WORDS) + 1) -> None:
        """Let it say so many more; the last step is its end."""
        for _ in range(words):
            self._allowed.release()

    async def tell(self, asked: Asked) -> None:
        talk = asked.json["messages"]
        before = talk[-1]["content"] if talk[-1]["role"] == "assistant" else ""
        assert STORY.startswith(before), "the beginning is what was said"
        left = [word for at, word in enumerate(WORDS) if len("".join(WORDS[:at])) >= len(before)]
        asked.head(content_type="text/event-stream")
        for word in left:
            await self._allowed.acquire()
            asked.event(self._piece({"content": word}))
            self.said += 1
        await self._allowed.acquire()
        asked.event(self._piece({}, "stop"))
        counts = {"prompt_tokens": 7, "completion_tokens": len(left), "total_tokens": 7 + len(left)}
        asked.event({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": counts})
        asked.event("[DONE]")
        asked.last_chunk()

    @staticmethod
    def _piece(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, object]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

"""LiteLLM as programs use it, in an environment of its own: asks the gateway at an address, prints what it got."""

import asyncio
import json
import sys
from typing import Any

import litellm

MODEL = "smollm2-135m"


async def speak(provider: str, address: str) -> dict[str, Any]:
    """Return a whole answer, one in pieces, and how it says that a model is not there."""
    wish: dict[str, Any] = {"api_base": address, "api_key": "none", "messages": [{"role": "user", "content": "Tell."}]}
    whole = await litellm.acompletion(model=f"{provider}/{MODEL}", **wish)
    pieces = await litellm.acompletion(model=f"{provider}/{MODEL}", stream=True, **wish)
    try:
        await litellm.acompletion(model=f"{provider}/nothing", **wish)
        refusal = ""
    except (litellm.exceptions.APIError, litellm.exceptions.NotFoundError) as error:  # as it reads each dialect's 404
        refusal = str(error)
    return {
        "whole": whole.choices[0].message.content,
        "tokens": whole.usage.completion_tokens,
        "pieces": "".join([piece.choices[0].delta.content or "" async for piece in pieces]),
        "refusal": refusal,
    }


async def main(url: str) -> None:
    said = {"openai": await speak("openai", f"{url}/v1"), "ollama_chat": await speak("ollama_chat", url)}
    embedded = await litellm.aembedding("openai/minilm", ["a", "b"], api_base=f"{url}/v1", api_key="none")
    sys.stdout.write(json.dumps({**said, "embedded": [one["embedding"] for one in embedded.data]}) + "\n")


asyncio.run(main(sys.argv[1]))

"""OpenAI's requests for images, where it is not a server that reads them, and the answer to them."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from muster.domain.image import ImageOrder
from muster.errors import InvalidInput
from muster.gateway.dialects.call import decode
from muster.images.workflow import parse_size

_AUTO = "auto"


class _Images(Struct):
    """What else OpenAI's clients may send says nothing to a workflow: quality, style, background and their like."""

    model: str
    prompt: Annotated[str, Meta(min_length=1)]
    n: int | None = None
    size: str | None = None
    response_format: Literal["url", "b64_json"] | None = None
    stream: bool | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None


_images = msgspec.json.Decoder(_Images)


class Asked(Struct, frozen=True):
    order: ImageOrder
    inline: bool  # the pictures in the answer itself, no links to them


def parse(body: bytes) -> Asked:
    """Raise InvalidInput that names the field."""
    asked = decode(_images, body)
    if asked.stream:
        raise InvalidInput("pictures of this model come whole: leave out stream", field="stream")
    order = ImageOrder(
        model=asked.model,
        prompt=asked.prompt,
        n=1 if asked.n is None else asked.n,
        size=None if asked.size in {None, _AUTO} else parse_size(asked.size or ""),
        negative_prompt=asked.negative_prompt,
        seed=asked.seed,
        steps=asked.steps,
    )
    return Asked(order, inline=asked.response_format == "b64_json")


def links(urls: Sequence[str], created_s: int) -> dict[str, Any]:
    return {"created": created_s, "data": [{"url": url} for url in urls]}


def inlined(pictures: Sequence[bytes], created_s: int) -> dict[str, Any]:
    return {"created": created_s, "data": [{"b64_json": base64.b64encode(picture).decode()} for picture in pictures]}

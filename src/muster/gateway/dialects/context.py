"""How much context an Ollama model is loaded with: asking for less makes Ollama load it again, for everybody."""

import msgspec
from msgspec import Raw

from muster.domain.model import Model
from muster.gateway.dialects.call import with_members

_OPTION = b'"num_ctx"'

_members = msgspec.json.Decoder(dict[str, Raw])
_number = msgspec.json.Decoder(int)


def with_context(body: bytes, model: Model | None) -> bytes:
    """Ask for as much as the model is resident with, if that is no less than what the request wants.

    A request that says nothing wants the server's own default, which is not known here: it stays as it is.
    """
    if _OPTION not in body or model is None or not model.resident or model.context_length is None:
        return body
    try:
        options = _members.decode(_members.decode(body).get("options", b"{}"))
        wanted = _number.decode(options["num_ctx"])
    except (msgspec.DecodeError, KeyError):  # as odd as that, it is for the engine to refuse
        return body
    if not 0 < wanted < model.context_length:
        return body
    return with_members(body, {"options": options | {"num_ctx": model.context_length}})

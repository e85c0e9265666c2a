"""One request for a model, as far as routing has to know it."""

import re
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from muster.domain.service import Dialect
from muster.errors import InvalidInput
from muster.gateway.dialects.form import with_field
from muster.gateway.http.reply import JSON
from muster.wire.codec import not_json

_AT = re.compile(r"at `\$\.?([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]+)`")
T = TypeVar("T")

_members = msgspec.json.Decoder(dict[str, Raw])


class Call(Struct, kw_only=True, gc=False):
    """`dialect` is the caller's; `body` the JSON as it came, empty once nobody else will be asked."""

    dialect: Dialect
    path: str
    model: str
    stream: bool
    body: bytes
    capability: str = "completion"
    content_type: bytes = JSON
    optional: bool = False  # a path that not every engine has: who answers that it has not is passed over
    empty: bool = False  # Ollama: nothing to answer, only a model to load (or, by keep_alive 0, to unload)


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Raise InvalidInput that names the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        found = [match[1] for match in (_AT.search(str(error)), _MISSING.search(str(error))) if match and match[1]]
        field = ".".join(found) or None
        raise InvalidInput(f"the body is not what this path takes: {error}", field=field) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error, body) from error


def with_model(call: Call, model: str) -> bytes:
    """Return the body with only the model's name replaced; every other member stays byte for byte."""
    if call.content_type != JSON:
        return with_field(call.body, "model", model)
    return with_members(call.body, {"model": model})


def with_members(body: bytes, changes: dict[str, object]) -> bytes:
    members = decode(_members, body)
    members.update((name, Raw(msgspec.json.encode(value))) for name, value in changes.items())
    return msgspec.json.encode(members)

"""What a worker is asked: the caller's request in the worker's dialect, with the name that it has for the model."""

from muster.clock import Clock
from muster.domain.service import Dialect
from muster.gateway.dialects import ollama, openai
from muster.gateway.dialects.call import Call, with_model
from muster.gateway.dialects.context import with_context
from muster.gateway.dialects.responses_answer import response
from muster.gateway.dialects.responses_request import to_chat
from muster.gateway.dialects.translate_answer import Translation, loaded, translation
from muster.gateway.dialects.translate_request import translate
from muster.gateway.http.request import forwarded
from muster.gateway.http.upstream import Endpoint
from muster.gateway.limits import GatewayLimits
from muster.gateway.routing.chat_only import ChatOnly
from muster.placement.candidate import Candidate


def put(
    call: Call, candidate: Candidate, limits: GatewayLimits, clock: Clock, chat_only: ChatOnly
) -> tuple[str, bytes, Translation | None]:
    """Return path and body for this worker, and what its answer is to be translated by.

    Without a path the body is the answer already. NotTranslatable: another worker may be able to take it.
    """
    model = candidate.models.get(call.model) or candidate.model(call.model)
    name = call.model if model is None else model.name
    if call.path == openai.RESPONSES and chat_only.has(candidate.key, clock.monotonic_s()):
        return openai.CHAT, to_chat(call, name), response(call, clock, limits.answer_bytes_max)
    if call.dialect in candidate.dialects or call.optional:
        body = call.body if name == call.model else with_model(call, name)
        if call.dialect is Dialect.OLLAMA and limits.keep_context:
            body = with_context(body, model)
        return call.path, body, None
    if call.empty:
        return "", loaded(call, clock, unload=ollama.unloads(call.body)), None
    return *translate(call, name), translation(call, clock, limits.answer_bytes_max)


def question(
    endpoint: Endpoint,
    path: str,
    content_type: bytes,
    headers: dict[bytes, bytes],
    correlation_id: bytes,
    body: bytes,
) -> bytes:
    return (
        b"POST %b%b HTTP/1.1\r\nhost: %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%bx-correlation-id: %b\r\n\r\n%b"
    ) % (
        endpoint.path,
        path.encode(),
        endpoint.host_header,
        content_type,
        len(body),
        forwarded(headers),
        correlation_id,
        body,
    )

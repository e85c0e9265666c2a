"""What ComfyUI says of trouble, in sentences."""

from typing import Any

from muster.errors import InvalidInput, MusterError, UpstreamFailed

Json = dict[str, Any]

_NODES_TOLD = 5
_CHARS_MAX = 1500
# These are the graph's own fault wherever it runs; of anything else another machine may be free.
_OF_THE_PROMPT = frozenset(
    {
        "AssertionError",
        "AttributeError",
        "FileNotFoundError",
        "IndexError",
        "KeyError",
        "TypeError",
        "ValueError",
    }
)


def refusal_in_words(answer: Json) -> str:
    """Tell which node has what wrong, of an answer to `POST /prompt`."""
    error = answer.get("error")
    told = _sentence(error) if isinstance(error, dict) else str(error or "no reason given")
    parts = [f"ComfyUI refused the prompt: {told}"]
    nodes = answer.get("node_errors")
    for key, node in list(nodes.items())[:_NODES_TOLD] if isinstance(nodes, dict) else ():
        faults = "; ".join(_sentence(fault) for fault in node.get("errors", ()))
        parts.append(f"node {key} ({node.get('class_type', 'of unknown class')}): {faults}")
    return "\n".join(parts)[:_CHARS_MAX]


def failure(data: Json) -> MusterError:
    """Make the error that `execution_error` tells of."""
    kind = str(data.get("exception_type") or "an error")
    node = f"node {data.get('node_id')} ({data.get('node_type')})"
    text = f"{node} failed with {kind}: {str(data.get('exception_message') or '').strip()}"[:_CHARS_MAX]
    return InvalidInput(text) if kind.rpartition(".")[2] in _OF_THE_PROMPT else UpstreamFailed(text)


def interrupted() -> MusterError:
    return UpstreamFailed("somebody interrupted the prompt in ComfyUI")


def end_of(entry: Json) -> MusterError | None:
    """Return why a prompt in the history did not come to its end; None where it did."""
    status = entry.get("status") or {}
    if status.get("status_str", "success") == "success":
        return None
    for name, data in reversed(status.get("messages") or ()):
        if name == "execution_error":
            return failure(data)
        if name == "execution_interrupted":
            return interrupted()
    return UpstreamFailed("ComfyUI ended the prompt without saying why")


def _sentence(error: Json) -> str:
    message, details = str(error.get("message") or "").strip(), str(error.get("details") or "").strip()
    return f"{message}: {details}" if message and details else message or details or "no reason given"

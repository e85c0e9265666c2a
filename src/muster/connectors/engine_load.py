"""How busy an engine says it is, out of its metrics for Prometheus, by whichever names it has for that."""

import re

from msgspec import Struct

# As vLLM, SGLang, TensorRT-LLM and llama.cpp call it. Some of their versions write _ for the colon.
_RUNNING = frozenset(
    {"vllm_num_requests_running", "sglang_num_running_reqs", "trtllm_num_requests_running"}
    | {"llamacpp_requests_processing"}
)
_WAITING = frozenset(
    {"vllm_num_requests_waiting", "sglang_num_queue_reqs", "trtllm_num_requests_waiting"}
    | {"llamacpp_requests_deferred"}
)
_SAMPLE = re.compile(r"^([A-Za-z_][\w:]*)(?:\{.*\})?\s+(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?:\s+\d+)?$")


class EngineLoad(Struct, frozen=True, kw_only=True):
    """Requests that it works on, and that wait in its own line; None where it does not say."""

    running: int | None = None
    waiting: int | None = None


UNKNOWN = EngineLoad()


def read_load(text: str) -> EngineLoad:
    """Add up what has several series: one for each model or engine of the server."""
    running: float | None = None
    waiting: float | None = None
    for line in text.splitlines():
        if line.startswith("#") or (match := _SAMPLE.match(line.rstrip())) is None:
            continue
        name = match[1].replace(":", "_")
        if name in _RUNNING:
            running = (running or 0.0) + float(match[2])
        elif name in _WAITING:
            waiting = (waiting or 0.0) + float(match[2])
    return EngineLoad(
        running=None if running is None else round(running), waiting=None if waiting is None else round(waiting)
    )

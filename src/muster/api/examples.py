"""Bodies as people would send them, by method and path; all others are made up from their schema."""

from typing import Any

_CHAT = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Say hello."}]}

REQUESTS: dict[str, Any] = {
    "POST /api/agent/{action}": {"node_id": "gpu-node-1", "boot_id": "boot-1", "reason": "stopped"},
    "POST /api/jobs": {
        "service_required": "simulation",
        "payload": {"duration_ms": 500, "steps": 5},
        "requirements": {"labels": {}},
        "priority": 50,
    },
    "POST /api/jobs/replay": {"status": "failed", "service": "simulation", "limit": 100},
    "PUT /api/customers/{customer_id}": {"weight": 2, "running_max": 4, "waiting_max": 1000},
    "PUT /api/schedules/{schedule_id}": {
        "job": {"service_required": "simulation", "payload": {"duration_ms": 500}},
        "cron": "30 2 * * *",
        "time_zone": "Europe/Berlin",
    },
    "POST /api/jobs/batch": {
        "jobs": [{"service_required": "simulation", "payload": {"duration_ms": duration_ms}} for duration_ms in (1, 2)]
    },
    "POST /api/v1/command": {"node_id": "gpu-node-1", "command": "drain", "args": {}, "timeout": 30},
    "POST /api/v1/models/pull": {"model": "hf:org/repo/model-q4.gguf", "pool": "gpus"},
    "POST /api/v1/models/copy": {"model": "hf:org/repo/model-q4.gguf", "nodes": ["gpu-node-1"]},
    "POST /api/v1/models/remove": {"model": "hf:org/repo/model-q4.gguf", "all": True},
    "POST /api/v1/models/load": {"model": "llama3.2:3b", "pool": "gpus"},
    "POST /api/v1/models/unload": {"model": "llama3.2:3b", "all": True},
    "POST /api/v1/models/pin": {"model": "llama3.2:3b", "nodes": ["gpu-node-1"]},
    "POST /api/v1/models/unpin": {"model": "llama3.2:3b", "nodes": ["gpu-node-1"]},
    "POST /v1/batches": {
        "input_file_id": "file-1m7zhbjcen57wyt3ncqj",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    },
    "POST /api/webhooks": {"url": "https://receiver.example/muster", "events": ["job_completed", "job_failed"]},
    "POST /api/v1/tokens": {"name": "dashboard", "role": "viewer"},
    "POST /api/v1/explain": {"model": "smollm2-135m", "labels": {"zone": "a"}, "min_memory_mb": 4096},
    "POST /v2/nodes/register": {
        "node_id": "gpu-node-1",
        "address": "http://10.0.0.5:9200",
        "pools": ["pool-0"],
        "capabilities": {"gpus": [{"name": "RTX 3090", "vram_total_bytes": 24_000_000_000}], "cpu_cores": 16},
        "version": "0.2.0",
    },
    "POST /v2/nodes/{node_id}/heartbeat": {
        "timestamp": "2025-10-01T00:00:00Z",
        "pools": [
            {
                "pool_id": "pool-0",
                "ready": True,
                "draining": False,
                "slots_free": 3,
                "slots_total": 4,
                "vram_free_bytes": 18_000_000_000,
                "engine": "llamacpp",
                "models_available": ["smollm2-135m"],
            }
        ],
    },
    "POST /v1/hive-heartbeat": {
        "hive": {"id": "hive-1", "hostname": "10.0.0.7", "operational_status": "ready", "health_status": "healthy"},
        "timestamp": "2026-01-01T12:00:00Z",
        "workers": [
            {
                "pid": 4242,
                "group": "llm",
                "instance": "8080",
                "cpu_pct": 87.5,
                "rss_mb": 4096,
                "uptime_s": 3600,
                "gpu_util_pct": 0.0,
                "vram_mb": 8192,
                "total_vram_mb": 24_576,
                "model": "llama-3.2-1b",
            }
        ],
    },
    "POST /v2/tasks": {"model": "smollm2-135m", "prompt": "Say hello.", "max_tokens": 32, "priority": "interactive"},
    "POST /_/ttl": {"ttl_s": 900},
}

# The gateway's own paths: it reads them before the framework does, so that the framework knows nothing of them.
GATEWAY: dict[str, dict[str, tuple[str, Any, Any]]] = {
    "/v1/models": {"get": ("Models of the fleet, as OpenAI lists them", None, {"object": "list", "data": []})},
    "/v1/models/{model}": {
        "get": ("One model, as OpenAI shows it", None, {"id": "smollm2-135m", "object": "model", "owned_by": "muster"})
    },
    "/v1/chat/completions": {
        "post": (
            "Chat, as with OpenAI; with `stream` as server-sent events",
            _CHAT,
            {
                "object": "chat.completion",
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}
                ],
            },
        )
    },
    "/v1/completions": {
        "post": (
            "Completion, as with OpenAI",
            {"model": "smollm2-135m", "prompt": "Once upon"},
            {"object": "text_completion", "choices": [{"index": 0, "text": " a time", "finish_reason": "stop"}]},
        )
    },
    "/v1/embeddings": {
        "post": (
            "Embeddings, as with OpenAI",
            {"model": "nomic-embed-text", "input": "hello"},
            {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]},
        )
    },
    "/api/tags": {"get": ("Models of the fleet, as Ollama lists them", None, {"models": []})},
    "/api/ps": {"get": ("Models in memory, as Ollama lists them", None, {"models": []})},
    "/api/version": {"get": ("The version of Ollama whose API this is", None, {"version": "0.12.0"})},
    "/api/show": {
        "post": ("One model, as Ollama shows it", {"model": "smollm2-135m"}, {"details": {}, "model_info": {}})
    },
    "/api/chat": {
        "post": (
            "Chat, as with Ollama; streams lines of JSON unless `stream` is false",
            _CHAT | {"stream": False},
            {"model": "smollm2-135m", "message": {"role": "assistant", "content": "Hello!"}, "done": True},
        )
    },
    "/api/generate": {
        "post": (
            "Completion, as with Ollama",
            {"model": "smollm2-135m", "prompt": "Once upon", "stream": False},
            {"model": "smollm2-135m", "response": " a time", "done": True},
        )
    },
    "/api/embed": {
        "post": (
            "Embeddings, as with Ollama",
            {"model": "nomic-embed-text", "input": "hello"},
            {"model": "nomic-embed-text", "embeddings": [[0.5, -0.25]]},
        )
    },
    "/api/embeddings": {
        "post": (
            "One embedding, as with Ollama before 0.3",
            {"model": "nomic-embed-text", "prompt": "hello"},
            {"embedding": [0.5, -0.25]},
        )
    },
}

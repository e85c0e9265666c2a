from msgspec import Struct


class Model(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model as a service on a node offers it."""

    name: str
    resident: bool | None = None
    size_bytes: int | None = None
    memory_mb: int | None = None  # what it takes while it is resident, where the engine says so
    digest: str | None = None
    family: str | None = None
    parameter_size: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    capabilities: tuple[str, ...] = ("completion",)
    modified_at_ms: int | None = None


def canonical_model_name(name: str) -> str:
    """Drop the default tag: Ollama's clients say `x`, `x:latest` or both for one model."""
    return name.removesuffix(":latest")

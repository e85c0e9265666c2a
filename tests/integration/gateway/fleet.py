"""A FleetView that a test changes by hand."""

from collections.abc import Sequence

from muster.domain.model import Model, canonical_model_name
from muster.domain.service import Dialect
from muster.ids import NodeId
from muster.placement.candidate import Candidate

OPENAI_ONLY = (Dialect.OPENAI,)
BOTH = (Dialect.OPENAI, Dialect.OLLAMA)
CHAT = Model(
    name="smollm2-135m",
    resident=True,
    size_bytes=98_362_432,
    family="llama",
    parameter_size="135M",
    quantization="Q4_1",
    context_length=8192,
    capabilities=("completion",),
)
EMBED = Model(name="minilm:latest", capabilities=("embedding",), modified_at_ms=1_700_000_000_000)


class FleetTwin:
    def __init__(self, *candidates: Candidate) -> None:
        self._candidates = tuple(candidates)
        self.version = 1

    def candidates(self) -> Sequence[Candidate]:
        return self._candidates

    def become(self, *candidates: Candidate) -> None:
        self._candidates = tuple(candidates)
        self.version += 1


def worker(
    url: str,
    node: str = "node-a",
    *models: Model,
    dialects: tuple[Dialect, ...] = OPENAI_ONLY,
    draining: bool = False,
    slots: int | None = None,
) -> Candidate:
    return Candidate(
        key=f"{node}/llama",
        node_id=NodeId(node),
        service="llama",
        connector="llamacpp",
        url=url,
        dialects=dialects,
        models={canonical_model_name(model.name): model for model in models or (CHAT, EMBED)},
        draining=draining,
        slots=slots,
    )

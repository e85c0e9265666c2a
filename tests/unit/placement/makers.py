"""Candidates for the tests of placement."""

from typing import Any

from muster.domain.model import Model
from muster.domain.service import Dialect
from muster.ids import NodeId
from muster.placement.candidate import Candidate


def candidate(node: str = "a", *models: str | Model, **fields: Any) -> Candidate:
    offered = [Model(name=model) if isinstance(model, str) else model for model in models]
    defaults: dict[str, Any] = {
        "key": f"{node}/llama",
        "node_id": NodeId(node),
        "service": "llama",
        "connector": "llamacpp",
        "url": f"http://{node}:8000",
        "dialects": (Dialect.OPENAI,),
        "models": {model.name: model for model in offered},
        "slots": 4,
    }
    return Candidate(**(defaults | fields))


def warm(name: str = "m") -> Model:
    return Model(name=name, resident=True)

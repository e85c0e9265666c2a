"""Which nodes are meant: `zone=a,gpu` are those with the label zone=a that have a label gpu."""

import re
from collections.abc import Mapping

from msgspec import Struct

from muster.domain.node import Node
from muster.errors import InvalidInput

_TERM = re.compile(r"(?P<key>[A-Za-z0-9][A-Za-z0-9._/-]*)\s*((?P<sign>!?=)\s*(?P<value>[^,=!]*))?\Z")


class Term(Struct, frozen=True):
    """`value` None: the label is there, whatever it says."""

    key: str
    value: str | None = None
    negated: bool = False


class Selector(Struct, frozen=True):
    terms: tuple[Term, ...]

    def matches(self, node: Node) -> bool:
        labels = labels_of(node)
        return all(_holds(term, labels) for term in self.terms)


def parse_selector(text: str, field: str = "selector") -> Selector:
    terms = []
    for part in text.split(","):
        found = _TERM.match(part.strip())
        if found is None:
            raise InvalidInput(f"{field} must be like zone=a,gpu or zone!=b, and {part.strip()!r} is not", field=field)
        value = found["value"]
        terms.append(Term(found["key"], value if value is None else value.strip(), negated=found["sign"] == "!="))
    return Selector(tuple(terms))


def labels_of(node: Node) -> dict[str, str]:
    """Return a node's labels, and what is known of every node under names that labels may take over."""
    facts = node.facts
    known = {
        "type": facts.node_type,
        "pool": facts.pool,
        "region": facts.region,
        "az": facts.az,
        "gpu": node.gpus[0].name if node.gpus else None,
    }
    return {name: value for name, value in known.items() if value} | facts.labels


def _holds(term: Term, labels: Mapping[str, str]) -> bool:
    if term.value is None:
        return term.key in labels
    return (labels.get(term.key) == term.value) is not term.negated

"""What all lists have in common: pages, labels, a search, an order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from litestar.params import QueryParameter

from muster.errors import InvalidInput

T = TypeVar("T")

Page = Annotated[int, QueryParameter(ge=1, le=1_000_000, description="Which page, from 1 on.")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="How many entries a page has.")]
TextSearch = Annotated[str | None, QueryParameter(max_length=256, description="Part of a name, any case.")]
LabelFilter = Annotated[str | None, QueryParameter(max_length=4096, description="key=value pairs with commas.")]
Order = Annotated[
    str | None, QueryParameter(max_length=64, description="Field to sort by; with a - before it: downwards.")
]


def paged(found: Sequence[T], page: int, limit: int) -> tuple[list[T], dict[str, str]]:
    """Return one page and the header that says how many there are in all."""
    return list(found[(page - 1) * limit : page * limit]), {"X-Total-Count": str(len(found))}


def paged_after(found: Sequence[T], id_of: Callable[[T], str], after: str | None, limit: int) -> tuple[list[T], bool]:
    """Return at most `limit` of what comes behind `after`, and whether there is more, as OpenAI's lists have it."""
    start = 0
    if after is not None:
        at = next((index for index, one in enumerate(found) if id_of(one) == after), None)
        if at is None:
            raise InvalidInput(f"after names nothing in this list: {after[:100]!r}", field="after")
        start = at + 1
    return list(found[start : start + limit]), len(found) > start + limit


def labelled(text: str | None) -> dict[str, str]:
    """Parse `a=b,c=d`."""
    wanted = {}
    for pair in (piece for piece in (text or "").split(",") if piece.strip()):
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise InvalidInput(f"labels must be key=value pairs with commas, got {text!r}", field="labels")
        wanted[key.strip()] = value.strip()
    return wanted


def said(part: str | None, *names: str | None) -> bool:
    """Tell whether one of the names has that part in it, in any case."""
    folded = (part or "").casefold()
    return not folded or any(folded in name.casefold() for name in names if name)


def ordered(found: Sequence[T], sort: str | None, keys: Mapping[str, Callable[[T], Any]]) -> list[T]:
    """Sort by one of `keys`; what has no value comes last either way, equals keep their order."""
    if not sort:
        return list(found)
    name = sort.removeprefix("-")
    key = keys.get(name)
    if key is None:
        raise InvalidInput(f"sort must be one of {', '.join(keys)}, with a - for downwards, got {sort!r}", field="sort")
    known = [entry for entry in found if key(entry) is not None]
    unknown = [entry for entry in found if key(entry) is None]
    return sorted(known, key=key, reverse=sort.startswith("-")) + unknown

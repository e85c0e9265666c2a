"""What all lists have in common: pages, labels, a search, an order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, Protocol, Self, TypeVar

from litestar.params import QueryParameter
from msgspec import Struct

from muster.errors import InvalidInput


class HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T")
V = TypeVar("V", bound=HasId)

Page = Annotated[int, QueryParameter(ge=1, le=1_000_000, description="Which page, from 1 on.")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="How many entries a page has.")]
TextSearch = Annotated[str | None, QueryParameter(max_length=256, description="Part of a name, any case.")]
LabelFilter = Annotated[str | None, QueryParameter(max_length=4096, description="key=value pairs with commas.")]
Order = Annotated[
    str | None, QueryParameter(max_length=64, description="Field to sort by; with a - before it: downwards.")
]


class ListAfter(Struct, Generic[V], frozen=True, kw_only=True):
    """As OpenAI has its lists: by ids instead of numbers."""

    data: list[V]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"

    @classmethod
    def of(cls, found: Sequence[V], after: str | None, limit: int) -> Self:
        """Return at most `limit` of what comes behind the one with the id `after`."""
        start = 0
        if after is not None:
            start = next((index for index, one in enumerate(found, start=1) if one.id == after), 0)
            if not start:
                raise InvalidInput(f"after names nothing in this list: {after[:100]!r}", field="after")
        data = list(found[start : start + limit])
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=len(found) > start + limit,
        )


def paged(found: Sequence[T], page: int, limit: int) -> tuple[list[T], dict[str, str]]:
    """Return one page and the header that says how many there are in all."""
    return list(found[(page - 1) * limit : page * limit]), {"X-Total-Count": str(len(found))}


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

import random
from typing import Any

from muster.access.book import TokenBook
from muster.access.roles import Role
from muster.access.tokens import Token, Wanted, make

RNG = random.Random(3)


def made(role: Role = Role.ADMIN, *, now_ms: int = 0, **wanted: Any) -> tuple[Token, bytes]:
    """Return the record and what its owner shows."""
    token, text = make(Wanted(**({"name": role.value, "role": role} | wanted)), now_ms, RNG)
    return token, text.encode()


def book_of(*tokens: Token, bootstrap: str = "", rate_per_s: float = 0.0) -> TokenBook:
    book = TokenBook(bootstrap, rate_per_s)
    book.replace(tokens)
    return book

"""Tokens: made, listed, revoked. A token itself is told once, when it is made."""

import http

from litestar import delete, get, post, put
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from muster.access.allowance import Allowance
from muster.access.roles import Right, Role
from muster.access.tokens import Token, Usage, Wanted
from muster.api.plane import Plane, ThePlane


class UsedView(Struct, frozen=True, kw_only=True):
    """What it has had of its budgets, and what is left of its minute here; null: there is no such limit."""

    tokens_today: int
    tokens_this_month: int
    requests_left: int | None
    tokens_left: int | None


class TokenView(Struct, frozen=True, kw_only=True):
    """`uses` and `uses_max` are of join tokens: how many nodes came with it, and how many may.

    `used` is null where the role asks no models.
    """

    id: str
    name: str
    role: Role
    joins: bool
    node_id: str | None
    requests_per_s: float | None
    uses: int
    uses_max: int | None
    created_at: int
    expires_at: int | None
    expired: bool
    last_used_at: int | None
    allowance: Allowance
    used: UsedView | None


class NewToken(Struct, frozen=True, kw_only=True):
    """`token` is shown this once; it cannot be read again."""

    token: str
    about: TokenView


@post(
    "/api/v1/tokens",
    tags=["tokens"],
    summary="Make a token; it is shown this once",
    status_code=http.HTTPStatus.CREATED,
)
async def create_token(plane: ThePlane, data: JSONBody[Wanted]) -> NewToken:
    token, text = await plane.access.create(data)
    return NewToken(token=text, about=_view(plane, token, Usage()))


@get("/api/v1/tokens", tags=["tokens"], summary="All tokens, without their secrets")
async def tokens(plane: ThePlane) -> list[TokenView]:
    return [_view(plane, token, usage) for token, usage in await plane.access.tokens()]


@put(
    "/api/v1/tokens/{token_id:str}/allowance",
    tags=["tokens"],
    summary="Change which models a token may use, and how much; counts within a second on all control planes",
)
async def allow(plane: ThePlane, token_id: FromPath[str], data: JSONBody[Allowance]) -> TokenView:
    return _view(plane, await plane.access.allow(token_id, data), Usage())


@delete("/api/v1/tokens/{token_id:str}", tags=["tokens"], summary="Revoke a token, everywhere within a second")
async def revoke_token(plane: ThePlane, token_id: FromPath[str]) -> None:
    await plane.access.revoke(token_id)


HANDLERS = [create_token, tokens, allow, revoke_token]


def _used(plane: Plane, token: Token) -> UsedView | None:
    account = plane.access.account_of(token.token_id)
    if account is None or Right.CHAT not in token.rights:
        return None
    now_ms, now_s = plane.clock.now_ms(), plane.clock.monotonic_s()
    requests, its_tokens = account.requests_left(now_s), account.tokens_left(now_s)
    return UsedView(
        tokens_today=account.tokens_today(now_ms),
        tokens_this_month=account.tokens_this_month(now_ms),
        requests_left=requests.left if requests else None,
        tokens_left=its_tokens.left if its_tokens else None,
    )


def _view(plane: Plane, token: Token, usage: Usage) -> TokenView:
    return TokenView(
        id=token.token_id,
        name=token.name,
        role=token.role,
        joins=token.joins,
        node_id=token.node_id,
        requests_per_s=token.requests_per_s,
        uses=usage.uses,
        uses_max=token.uses_max,
        created_at=token.created_at_ms,
        expires_at=token.expires_at_ms,
        expired=token.has_expired(plane.clock.now_ms()),
        last_used_at=usage.last_used_at_ms,
        allowance=token.allowance,
        used=_used(plane, token),
    )

"""Tokens: made, listed, revoked. A token itself is told once, when it is made."""

import http

from litestar import delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from muster.access.roles import Role
from muster.access.tokens import Token, Usage, Wanted
from muster.api.plane import ThePlane


class TokenView(Struct, frozen=True, kw_only=True):
    """`uses` and `uses_max` are of join tokens: how many nodes came with it, and how many may."""

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
    return NewToken(token=text, about=_view(token, Usage(), plane.clock.now_ms()))


@get("/api/v1/tokens", tags=["tokens"], summary="All tokens, without their secrets")
async def tokens(plane: ThePlane) -> list[TokenView]:
    now_ms = plane.clock.now_ms()
    return [_view(token, usage, now_ms) for token, usage in await plane.access.tokens()]


@delete("/api/v1/tokens/{token_id:str}", tags=["tokens"], summary="Revoke a token, everywhere within a second")
async def revoke_token(plane: ThePlane, token_id: FromPath[str]) -> None:
    await plane.access.revoke(token_id)


def _view(token: Token, usage: Usage, now_ms: int) -> TokenView:
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
        expired=token.has_expired(now_ms),
        last_used_at=usage.last_used_at_ms,
    )

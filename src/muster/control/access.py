"""Tokens at work: in memory for every request, in the store for keeps, the same in all control planes in a second."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog
from msgspec.structs import replace

from muster.access.account import Account
from muster.access.allowance import PRIORITY_MAX, Allowance, check_allowance
from muster.access.book import Caller, TokenBook
from muster.access.roles import Right
from muster.access.tokens import Token, Usage, Wanted, check_wanted, for_node, make
from muster.clock import Clock, Rng
from muster.errors import Conflict, Forbidden, InvalidInput, MusterError, NotFound
from muster.ports import Bus, TokenStore
from muster.rounds import Rounds, wait_up_to
from muster.wire import Join, Joined
from muster.wire.gateways import Taken

log = structlog.get_logger()

TOKENS_TOPIC = "tokens"

_RELOAD_EVERY_S = 30.0
_FIRST_LOOK_S = 1.0  # at what came between our first reading and the beginning of our listening
_JOIN_S = 0.2  # many changes at once are read once
_RETRY_S = 0.5
_NOTE_EVERY_S = 60.0


class Access:
    """A Lifecycle. `admit` is the one question that every door asks."""

    def __init__(
        self, store: TokenStore, bus: Bus, clock: Clock, rng: Rng, *, bootstrap: str, requests_per_s_max: float
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._rng = rng
        self._book = TokenBook(bootstrap, requests_per_s_max)
        self._changed = asyncio.Event()
        self._patience_s = _FIRST_LOOK_S
        self._noted_ms = clock.now_ms()
        self._rounds = Rounds()

    async def start(self) -> None:
        if not self._rounds:
            self._book.replace(await self._store.load())
            self._patience_s = _FIRST_LOOK_S
            self._rounds.go("tokens_heard", self._listen, _RETRY_S)
            self._rounds.go("tokens", self._keep_up, _JOIN_S, _RETRY_S)

    async def stop(self) -> None:
        await self._rounds.stop(last=self._note_used)

    # --- at every door -----------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there is neither a token in the settings nor one of an admin: everybody may do everything."""
        return self._book.is_open

    def admit(self, shown: bytes | None, right: Right) -> Caller:
        """Say who shows this token; raise Unauthorized, Forbidden or RateLimited."""
        return self._book.admit(shown, right, self._clock.now_ms(), self._clock.monotonic_s())

    def refusal(self, shown: bytes | None, right: Right) -> MusterError | None:
        """Return what `admit` raises."""
        try:
            self._book.admit(shown, right, self._clock.now_ms(), self._clock.monotonic_s())
        except MusterError as error:
            return error
        return None

    def who(self, shown: bytes | None) -> Caller:
        """Say whose token this is, without counting it as a request; raise Unauthorized."""
        return self._book.who(shown, self._clock.now_ms())

    def account(self, shown: bytes | None) -> Account:
        """Return whose account it is that what is shown, and was admitted before, is charged to."""
        return self._book.account(shown)

    def account_of(self, token_id: str) -> Account | None:
        return self._book.account_of(token_id)

    def check_models(self, token_id: str | None, models: Sequence[str]) -> None:
        """Raise ModelNotFound where a job names what its token may not use, InvalidInput where it names no model."""
        account = self.account_of(token_id) if token_id else None
        if account is None or not account.allowance.models:
            return
        if not models:
            raise InvalidInput("this token is for certain models only: name one of them as `model`", field="model")
        account.allowance.check_allows(models)

    def priority_max(self, token_id: str | None) -> int:
        """Return the most that jobs of this token may have."""
        account = self.account_of(token_id) if token_id else None
        priority = None if account is None else account.allowance.priority
        return PRIORITY_MAX if priority is None else priority

    def names(self) -> dict[str, str]:
        """Return what the tokens are called, by id."""
        return {token.token_id: token.name for token in self._book.tokens()}

    def accounts(self) -> list[Account]:
        return self._book.accounts()

    # --- limits of all gateways together, as Limits of what they tell -------------------------------------------------

    def on_taken(self, listener: Callable[[], None]) -> None:
        self._book.takings.on_noted(listener)

    def taken(self) -> dict[str, Taken]:
        return self._book.takings.tell()

    def missing(self) -> dict[str, Taken]:
        return self._book.missing(self._clock.monotonic_s())

    def hear(self, taken: Mapping[str, Taken], missing: Mapping[str, Taken]) -> None:
        self._book.hear(taken, missing, self._clock.monotonic_s())

    # --- making and revoking -----------------------------------------------------------------------------------------

    async def create(self, wanted: Wanted) -> tuple[Token, str]:
        """Return the record and the token itself, which nobody can read again."""
        check_wanted(wanted)
        self._book.check_new(wanted.role)
        token, text = make(wanted, self._clock.now_ms(), self._rng)
        await self._keep(token)
        return token, text

    async def tokens(self) -> list[tuple[Token, Usage]]:
        usage = await self._store.usage()
        fresh = dict(self._book.used_since(self._noted_ms))
        nothing = Usage()
        return [
            (
                token,
                Usage(
                    last_used_at_ms=fresh.get(token.token_id, usage.get(token.token_id, nothing).last_used_at_ms),
                    uses=usage.get(token.token_id, nothing).uses,
                ),
            )
            for token in self._book.tokens()
        ]

    async def allow(self, token_id: str, allowance: Allowance) -> Token:
        """Change what a token may use; what it has used it has used."""
        token = replace(await self._known(token_id), allowance=allowance)
        check_allowance(allowance, token.role)
        if not await self._store.change(token):
            raise _no_token(token_id)
        self._book.add(token)
        await self._bus.publish(TOKENS_TOPIC, token_id.encode())
        log.info("token_allowance_changed", token_id=token_id, name=token.name)
        return token

    async def _known(self, token_id: str) -> Token:
        if self._book.get(token_id) is None:
            self._book.replace(await self._store.load())  # it may be younger than what we have heard
        if (token := self._book.get(token_id)) is None:
            raise _no_token(token_id)
        return token

    async def revoke(self, token_id: str) -> None:
        token = await self._known(token_id)
        self._book.check_revocable(token_id)
        await self._store.remove(token_id)
        self._book.remove(token_id)
        await self._bus.publish(TOKENS_TOPIC, token_id.encode())
        log.info("token_revoked", token_id=token_id, name=token.name, role=token.role.value)

    async def join(self, caller: Caller, message: Join) -> Joined:
        """Give the node of one who shows a join token a token of its own. The same message twice is one join."""
        now_ms = self._clock.now_ms()
        token = for_node(message.node_id, message.secret_sha256, caller.token_id, now_ms)
        known = self._book.get(token.token_id)
        if known is None or known.secret_sha256 != token.secret_sha256:
            self._book.check_node_is_free(message.node_id, now_ms)
            await self._spend(caller)
            await self._keep(token)
        return Joined(token_id=token.token_id)

    async def _spend(self, caller: Caller) -> None:
        ticket = self._book.get(caller.token_id)
        if ticket is None or ticket.uses_max is None or await self._store.count_use(ticket.token_id) > ticket.uses_max:
            raise Forbidden(
                f"the join token {caller.name!r} is used up; make another: muster token create NAME --role agent --join"
            )

    async def _keep(self, token: Token) -> None:
        if not await self._store.add(token):
            raise Conflict(f"there is a token {token.token_id!r} already; try once more")
        self._book.add(token)
        await self._bus.publish(TOKENS_TOPIC, token.token_id.encode())
        log.info("token_created", token_id=token.token_id, name=token.name, role=token.role.value, node=token.node_id)

    # --- the same everywhere -----------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            async for _ in self._bus.subscribe(TOKENS_TOPIC):
                self._changed.set()
        finally:
            self._changed.set()  # something may have been missed

    async def _keep_up(self) -> None:
        """Read them when something was heard, and now and then all the same."""
        await wait_up_to(self._changed, self._patience_s)
        self._patience_s = 0.0  # until it was read
        self._changed.clear()
        self._book.replace(await self._store.load())
        if self._clock.now_ms() - self._noted_ms >= _NOTE_EVERY_S * 1000:
            await self._note_used()
        self._patience_s = _RELOAD_EVERY_S

    async def _note_used(self) -> None:
        now_ms = self._clock.now_ms()
        await self._store.note_used(dict(self._book.used_since(self._noted_ms)))
        self._noted_ms = now_ms


def _no_token(token_id: str) -> NotFound:
    return NotFound(f"no token {token_id!r}: muster token list shows what there is", field="token_id")

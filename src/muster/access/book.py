"""All tokens of this fleet in memory, and the judgement on a request: asked on every one, so it is short."""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from hmac import compare_digest

from msgspec import Struct

from muster.access.account import Account
from muster.access.allowance import ANYTHING
from muster.access.roles import GRANTS, SEES_OWN_JOBS_ONLY, Right, Role, roles_with
from muster.access.takings import Takings
from muster.access.tokens import PREFIX, Token
from muster.domain.usage import ANONYMOUS
from muster.errors import Conflict, Forbidden, RateLimited, Unauthorized
from muster.ids import NodeId
from muster.wire.gateways import Taken

_PREFIX = PREFIX.encode()
_SHOWN_MAX = 4096
_HOW = "send it as `Authorization: Bearer TOKEN`"


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks. `token_id` is empty where no token of the store was shown; `weight` and `priority` are its token's."""

    name: str
    role: Role
    rights: frozenset[Right]
    token_id: str = ""
    node_id: NodeId | None = None
    weight: float = 1.0
    priority: int | None = None

    def admitted(self, right: Right) -> "Caller":
        """Return itself; raise Forbidden when it has not this right."""
        if right in self.rights:
            return self
        raise _forbidden(self, right)

    @property
    def owner(self) -> str | None:
        """Under which name this caller's jobs are kept."""
        return self.token_id or None

    def sees_jobs_of(self, owner: str | None) -> bool:
        return self.role not in SEES_OWN_JOBS_ONLY or owner == self.token_id

    def check_speaks_for(self, node_id: str) -> None:
        if self.node_id is not None and self.node_id != node_id:
            raise Forbidden(
                f"this token is the one of node {self.node_id!r}; it may not speak for {node_id!r}", field="node_id"
            )


ANYBODY = Caller(name="anybody", role=Role.ADMIN, rights=GRANTS[Role.ADMIN])
BOOTSTRAP = Caller(name="MUSTER_TOKEN", role=Role.ADMIN, rights=GRANTS[Role.ADMIN])


class _Entry:
    __slots__ = ("account", "caller", "digest", "token", "used_at_ms")

    def __init__(self, token: Token, account: Account) -> None:
        self.token = token
        self.account = account
        self.digest = bytes.fromhex(token.secret_sha256)
        self.caller = Caller(
            name=token.name,
            role=token.role,
            rights=token.rights,
            token_id=token.token_id,
            node_id=token.node_id,
            weight=token.allowance.weight,
            priority=token.allowance.priority,
        )
        self.used_at_ms = 0


class TokenBook:
    """`bootstrap` is the token of the settings; empty with no admin token known, everybody may do everything."""

    def __init__(self, bootstrap: str, requests_per_s_max: float) -> None:
        self._bootstrap = bootstrap.encode()
        self._rate_per_s = requests_per_s_max
        self._entries: dict[bytes, _Entry] = {}
        self._shown: dict[bytes, _Entry] = {}  # tokens that were shown and found to be right; each is judged once
        self.takings = Takings()
        self._anybodys, self._bootstraps = Account(ANONYMOUS), Account(BOOTSTRAP.name, self.takings)
        self._bootstraps.change(ANYTHING, requests_per_s_max)
        self._open = not bootstrap

    @property
    def is_open(self) -> bool:
        return self._open

    def tokens(self) -> list[Token]:
        return sorted((entry.token for entry in self._entries.values()), key=lambda token: token.created_at_ms)

    def get(self, token_id: str) -> Token | None:
        entry = self._entries.get(token_id.encode())
        return entry.token if entry else None

    # --- what there is -----------------------------------------------------------------------------------------------

    def replace(self, tokens: Iterable[Token]) -> None:
        """Take over what the store has; tokens that stayed the same keep their counts."""
        known, self._entries = self._entries, {}
        self._shown = {}
        for token in tokens:
            key = token.token_id.encode()
            entry = known.get(key)
            self._entries[key] = entry if entry is not None and entry.token == token else self._entry(token, entry)
        self._judge_openness()

    def add(self, token: Token) -> None:
        key = token.token_id.encode()
        self._entries[key] = self._entry(token, self._entries.get(key))
        self._shown = {}
        self._judge_openness()

    def remove(self, token_id: str) -> None:
        self._entries.pop(token_id.encode(), None)
        self._shown = {}
        self._judge_openness()

    def _entry(self, token: Token, known: _Entry | None) -> _Entry:
        """Make the entry of a token that is new or was changed; what it has used it has used."""
        account = Account(token.token_id, self.takings) if known is None else known.account
        account.change(token.allowance, self._rate_per_s if token.requests_per_s is None else token.requests_per_s)
        return _Entry(token, account)

    def _judge_openness(self) -> None:
        # An admin token that expired still closes the door: time alone must not open it.
        self._open = not self._bootstrap and not self._admins()

    def _admins(self) -> list[_Entry]:
        return [entry for entry in self._entries.values() if entry.token.role is Role.ADMIN]

    # --- rules about making and revoking ------------------------------------------------------------------------------

    def check_new(self, role: Role) -> None:
        if self._open and role is not Role.ADMIN:
            raise Conflict(
                "the first token must be one of an admin: until there is one, everybody may do everything, and a "
                f"token of a {role} would mean nothing. Make one first: muster token create NAME --role admin",
                field="role",
            )

    def check_revocable(self, token_id: str) -> None:
        """Let the last admin go last, or nobody could revoke the others."""
        others = [entry for key, entry in self._entries.items() if key != token_id.encode()]
        if not self._bootstrap and others and all(entry.token.role is not Role.ADMIN for entry in others):
            raise Conflict(
                f"{token_id} is the only admin token: revoke the other tokens before it, make another one for an "
                "admin, or set MUSTER_TOKEN",
                field="token_id",
            )

    def check_node_is_free(self, node_id: NodeId, now_ms: int) -> None:
        """Refuse to make a join token a way to become a node that is there already."""
        for entry in self._entries.values():
            token = entry.token
            if token.node_id == node_id and not token.has_expired(now_ms):
                raise Conflict(
                    f"node {node_id!r} has a token of its own already; if its machine lost it, revoke it first: "
                    f"muster token revoke {token.token_id}",
                    field="node_id",
                )

    # --- the judgement -----------------------------------------------------------------------------------------------

    def admit(self, shown: bytes | None, right: Right, now_ms: int, now_s: float) -> Caller:
        """Say who it is that may do this; raise Unauthorized, Forbidden or RateLimited."""
        if self._open and right is Right.JOIN:
            raise Forbidden("this fleet asks for no token, so there is nothing to join with: leave MUSTER_TOKEN out")
        if self._open or right is Right.OPEN:
            return ANYBODY
        caller, account = self._recognise(shown, now_ms)
        caller.admitted(right)
        # What agents say is bounded by their intervals; a fleet must not go dark because a limit was set for people.
        if right is not Right.SPEAK and (wait_s := account.call(now_s)):
            raise RateLimited(
                f"the token {caller.name!r} has used up its {account.rate_per_s:g} requests per second",
                retry_after_s=wait_s,
            )
        if right is Right.CHAT:
            account.admit(now_ms, now_s)
        elif right is Right.SUBMIT:
            account.check_budgets(now_ms)
        return caller

    def who(self, shown: bytes | None, now_ms: int) -> Caller:
        """Say whose token this is; raise Unauthorized."""
        return ANYBODY if self._open else self._recognise(shown, now_ms)[0]

    def account(self, shown: bytes | None) -> Account:
        """Return whose account it is that what is shown, and was admitted before, is charged to."""
        if self._open or not shown:
            return self._anybodys
        entry = self._shown.get(shown)
        if entry is not None:
            return entry.account
        if self._bootstrap and compare_digest(shown, self._bootstrap):
            return self._bootstraps
        entry = self._entries.get(shown[len(_PREFIX) :].partition(b"_")[0])
        return self._anybodys if entry is None else entry.account  # revoked a moment ago

    def account_of(self, token_id: str) -> Account | None:
        entry = self._entries.get(token_id.encode())
        return None if entry is None else entry.account

    def accounts(self) -> list[Account]:
        """Return those of all who may ask models."""
        return [entry.account for entry in self._entries.values() if Right.CHAT in entry.caller.rights]

    # --- limits of all gateways together ------------------------------------------------------------------------------

    def missing(self, now_s: float) -> dict[str, Taken]:
        """Return what is missing in the limits of each token, as far as is known here."""
        accounts = (self._bootstraps, *(entry.account for entry in self._entries.values()))
        return {account.token_id: missing for account in accounts if (missing := account.missing(now_s)) is not None}

    def hear(self, taken: Mapping[str, Taken], missing: Mapping[str, Taken], now_s: float) -> None:
        """Take in what another gateway has let in, and what it knows to be missing."""
        for token_id, count in taken.items():
            if (account := self._limited(token_id)) is not None:
                account.took_elsewhere(count, now_s)
        for token_id, count in missing.items():
            if (account := self._limited(token_id)) is not None:
                account.misses(count, now_s)

    def _limited(self, token_id: str) -> Account | None:
        return self._bootstraps if token_id == BOOTSTRAP.name else self.account_of(token_id)

    # --- who it is ---------------------------------------------------------------------------------------------------

    def _recognise(self, shown: bytes | None, now_ms: int) -> tuple[Caller, Account]:
        if not shown:
            raise Unauthorized(f"a token is needed: {_HOW}")
        entry = self._shown.get(shown) or self._entry_of(shown)
        if entry is not None:
            if entry.token.has_expired(now_ms):
                raise Unauthorized(f"the token {entry.token.name!r} has expired; ask an admin for a new one")
            entry.used_at_ms = now_ms
            return entry.caller, entry.account
        if self._bootstrap and compare_digest(shown, self._bootstrap):
            return BOOTSTRAP, self._bootstraps
        raise Unauthorized("this token is not known: it was revoked, mistyped or is another fleet's")

    def _entry_of(self, shown: bytes) -> _Entry | None:
        if not shown.startswith(_PREFIX):
            return None
        token_id, _, secret = shown[len(_PREFIX) :].partition(b"_")
        entry = self._entries.get(token_id)
        if entry is None or not compare_digest(sha256(secret).digest(), entry.digest):
            return None
        if len(self._shown) >= _SHOWN_MAX:
            self._shown.clear()
        self._shown[shown] = entry
        return entry

    def used_since(self, since_ms: int) -> Iterator[tuple[str, int]]:
        """Tell the tokens shown from then on, and when last."""
        for entry in self._entries.values():
            if entry.used_at_ms >= since_ms:
                yield entry.token.token_id, entry.used_at_ms


def _forbidden(caller: Caller, right: Right) -> Forbidden:
    if right is Right.JOIN:
        return Forbidden("only a join token joins; make one: muster token create NAME --role agent --join")
    if caller.rights == {Right.JOIN}:
        return Forbidden("a join token is good for joining only: an agent exchanges it for a token of its own")
    *others, last = [role.value for role in roles_with(right)]
    needed = f"{', '.join(others)} or {last}" if others else last
    return Forbidden(f"the token {caller.name!r} has the role {caller.role}; this needs {needed}", right=right.value)

import pytest
from msgspec.structs import replace

from muster.access.allowance import Allowance
from muster.access.book import ANYBODY, BOOTSTRAP, TokenBook
from muster.access.roles import Right, Role
from muster.access.tokens import digest_of, for_node
from muster.domain.usage import Use
from muster.errors import Conflict, Forbidden, MusterError, QuotaExceeded, RateLimited, Unauthorized
from muster.ids import NodeId
from muster.wire.gateways import Taken
from tests.unit.access.makers import book_of, made


def admit(book: TokenBook, shown: bytes | None, right: Right = Right.VIEW, now_ms: int = 0) -> str:
    return book.admit(shown, right, now_ms, now_ms / 1000).name


# --- open and closed --------------------------------------------------------------------------------------------------


def test_without_any_token_everybody_may_do_everything() -> None:
    book = book_of()

    assert book.is_open
    assert book.admit(None, Right.MANAGE, 0, 0.0) is ANYBODY
    assert book.admit(b"whatever", Right.SPEAK, 0, 0.0) is ANYBODY
    with pytest.raises(Forbidden, match="nothing to join with"):
        book.admit(b"mst_join1_x", Right.JOIN, 0, 0.0)


def test_the_token_of_the_settings_closes_the_door_and_is_an_admins() -> None:
    book = book_of(bootstrap="correct horse é")

    assert not book.is_open
    assert book.admit("correct horse é".encode(), Right.MANAGE, 0, 0.0) is BOOTSTRAP
    assert BOOTSTRAP.owner is None
    with pytest.raises(Unauthorized, match="not known"):
        admit(book, b"correct horse")


def test_an_admins_token_closes_the_door_and_no_other_does() -> None:
    viewer, _ = made(Role.VIEWER)
    admin, shown = made(Role.ADMIN)

    assert book_of(viewer).is_open
    book = book_of(viewer, admin)
    assert not book.is_open
    assert admit(book, shown, Right.MANAGE) == "admin"


def test_an_expired_admin_token_does_not_open_the_door() -> None:
    admin, shown = made(Role.ADMIN, expires_in_s=10)
    book = book_of(admin)

    assert admit(book, shown, now_ms=9_999) == "admin"
    with pytest.raises(Unauthorized, match="expired"):
        admit(book, shown, now_ms=10_000)
    with pytest.raises(Unauthorized):
        admit(book, None, now_ms=10_000)


def test_what_is_open_asks_for_nothing() -> None:
    assert book_of(bootstrap="x").admit(None, Right.OPEN, 0, 0.0) is ANYBODY


# --- who it is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [None, b""])
def test_no_token_is_told_how_to_send_one(shown: bytes | None) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        admit(book_of(bootstrap="x"), shown)


def test_a_token_counts_only_whole() -> None:
    admin, shown = made()
    book = book_of(admin)
    token_id = admin.token_id.encode()

    for wrong in (
        shown[:-1],
        shown + b"a",
        b"mst_" + token_id,
        b"mst_" + token_id + b"_",
        b"mst_",
        b"mst__",
        b"xst_" + shown[4:],
        "mst_é_é".encode(),
        b"\xff\xfe",
    ):
        with pytest.raises(Unauthorized, match="not known"):
            admit(book, wrong)


def test_a_token_of_the_settings_may_look_like_one_of_ours() -> None:
    assert admit(book_of(bootstrap="mst_mine_own"), b"mst_mine_own") == "MUSTER_TOKEN"


def test_a_caller_is_known_by_his_token() -> None:
    admin, shown = made(name="ops")
    caller = book_of(admin).admit(shown, Right.VIEW, 0, 0.0)

    assert (caller.name, caller.role, caller.token_id, caller.owner) == ("ops", "admin", admin.token_id, admin.token_id)
    assert caller.admitted(Right.ACT) is caller


def test_whose_token_it_is_can_be_asked_without_using_it() -> None:
    admin, _ = made()
    client, text = made(Role.CLIENT)
    book = book_of(admin, client, rate_per_s=1.0)
    assert {book.who(text, 0).name for _ in range(5)} == {"client"}
    assert admit(book, text, Right.CHAT)
    with pytest.raises(Unauthorized):
        book.who(b"another", 0)
    assert book_of().who(None, 0) == ANYBODY


def test_a_token_that_was_shown_before_is_judged_by_what_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.access.book._SHOWN_MAX", 1)
    one, shown_by_one = made(Role.VIEWER, name="one", expires_in_s=10)
    another, shown_by_another = made(Role.VIEWER, name="another")
    book = book_of(made()[0], one, another)

    for _ in range(2):  # more are shown than are remembered
        assert admit(book, shown_by_one) == "one"
        assert admit(book, shown_by_another) == "another"
    with pytest.raises(Unauthorized, match="expired"):
        admit(book, shown_by_one, now_ms=10_000)
    book.add(replace(another, name="renamed"))
    assert admit(book, shown_by_another) == "renamed"
    book.remove(another.token_id)
    with pytest.raises(Unauthorized):
        admit(book, shown_by_another)
    book.replace([made()[0]])
    with pytest.raises(Unauthorized):
        admit(book, shown_by_one)


def test_a_revoked_token_counts_no_more() -> None:
    admin, _ = made()
    client, shown = made(Role.CLIENT)
    book = book_of(admin)
    book.add(client)
    assert admit(book, shown, Right.CHAT) == "client"

    book.remove(client.token_id)

    with pytest.raises(Unauthorized):
        admit(book, shown, Right.CHAT)
    assert book.get(client.token_id) is None
    assert book.tokens() == [admin]


# --- what he may ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "right", "needed"),
    [
        (Role.VIEWER, Right.ACT, "needs operator or admin"),
        (Role.VIEWER, Right.MANAGE, "needs admin"),
        (Role.CLIENT, Right.VIEW, "needs viewer, operator or admin"),
        (Role.AGENT, Right.CHAT, "needs client, operator or admin"),
        (Role.OPERATOR, Right.SPEAK, "needs agent or admin"),
        (Role.ADMIN, Right.JOIN, "only a join token joins"),
    ],
)
def test_who_may_not_is_told_who_may(role: Role, right: Right, needed: str) -> None:
    token, shown = made(role)
    with pytest.raises(Forbidden, match=needed):
        admit(book_of(token, made()[0]), shown, right)


def test_a_join_token_joins_and_nothing_else() -> None:
    token, shown = made(Role.AGENT, joins=True)
    book = book_of(token, made()[0])

    assert admit(book, shown, Right.JOIN) == "agent"
    with pytest.raises(Forbidden, match="for joining only"):
        admit(book, shown, Right.SPEAK)


def test_a_nodes_token_speaks_for_that_node_only() -> None:
    token, shown = made(Role.AGENT, node_id="n1")
    caller = book_of(token, made()[0]).admit(shown, Right.SPEAK, 0, 0.0)

    caller.check_speaks_for("n1")
    with pytest.raises(Forbidden, match=r"'n1'.*'n2'"):
        caller.check_speaks_for("n2")
    BOOTSTRAP.check_speaks_for("n2")


def test_a_client_sees_his_own_jobs_and_all_others_see_all() -> None:
    token, shown = made(Role.CLIENT)
    client = book_of(token, made()[0]).admit(shown, Right.CHAT, 0, 0.0)

    assert client.sees_jobs_of(token.token_id)
    assert not client.sees_jobs_of("another")
    assert not client.sees_jobs_of(None)
    assert BOOTSTRAP.sees_jobs_of("another")


# --- how often --------------------------------------------------------------------------------------------------------


def test_a_tokens_own_limit_goes_before_the_general_one() -> None:
    (one, shown_one), (two, shown_two), (free, shown_free) = made(), made(requests_per_s=2), made(requests_per_s=0)
    book = book_of(one, two, free, rate_per_s=1.0)

    admit(book, shown_one)
    with pytest.raises(RateLimited) as refused:
        admit(book, shown_one)
    assert refused.value.retry_after_s == pytest.approx(1.0)
    assert "1 requests per second" in refused.value.message
    admit(book, shown_two)
    admit(book, shown_two)
    with pytest.raises(RateLimited):
        admit(book, shown_two)
    for _ in range(50):
        admit(book, shown_free)


def test_the_token_of_the_settings_has_the_general_limit() -> None:
    book = book_of(bootstrap="x", rate_per_s=1.0)

    admit(book, b"x")
    with pytest.raises(RateLimited):
        admit(book, b"x")
    assert admit(book, b"x", now_ms=1000) == "MUSTER_TOKEN"


def test_what_agents_say_is_not_counted_and_a_refusal_costs_nothing() -> None:
    token, shown = made(Role.AGENT, requests_per_s=1)
    book = book_of(token, made()[0])

    for _ in range(50):
        admit(book, shown, Right.SPEAK)
        with pytest.raises(Forbidden):
            admit(book, shown, Right.VIEW)


def test_counts_and_uses_outlive_a_reading_of_the_store() -> None:
    (token, shown), (other, _) = made(requests_per_s=1), made()
    book = book_of(token, other)
    admit(book, shown, now_ms=500)

    book.replace([token, other])

    with pytest.raises(RateLimited):
        admit(book, shown, now_ms=600)
    assert dict(book.used_since(1)) == {token.token_id: 600}
    assert dict(book.used_since(601)) == {}


def test_what_other_gateways_let_in_is_missing_here() -> None:
    token, shown = made(requests_per_s=2)
    here, there = book_of(token, bootstrap="x", rate_per_s=2.0), book_of(token, bootstrap="x", rate_per_s=2.0)
    for one in (shown, b"x"):
        admit(there, one)
        admit(there, one)
    taken = there.takings.tell()
    here.hear({**taken, "revoked": Taken(calls=1)}, {}, 0.0)

    for one in (shown, b"x"):
        with pytest.raises(RateLimited) as refused:
            admit(here, one)
        assert refused.value.retry_after_s == pytest.approx(0.5)
    assert here.takings.tell() == {}, "what was heard is not told on"


def test_a_book_that_is_opened_anew_has_what_the_others_know_to_be_missing() -> None:
    (token, shown), (rested, _) = made(requests_per_s=2), made(requests_per_s=2)
    known = book_of(token, rested, bootstrap="x", rate_per_s=2.0)
    for one in (shown, shown, b"x"):
        admit(known, one)
    missing = known.missing(0.0)
    anew = book_of(token, rested, bootstrap="x", rate_per_s=2.0)
    anew.hear({}, {**missing, "revoked": Taken(calls=1)}, 0.0)

    assert missing == {token.token_id: Taken(calls=2), "MUSTER_TOKEN": Taken(calls=1)}
    with pytest.raises(RateLimited):
        admit(anew, shown)
    admit(anew, b"x")
    with pytest.raises(RateLimited):
        admit(anew, b"x")


# --- making, revoking, joining ----------------------------------------------------------------------------------------


def test_the_first_token_is_an_admins() -> None:
    with pytest.raises(Conflict, match="--role admin"):
        book_of().check_new(Role.CLIENT)
    book_of().check_new(Role.ADMIN)
    book_of(bootstrap="x").check_new(Role.CLIENT)
    book_of(made()[0]).check_new(Role.CLIENT)


def test_the_last_admin_goes_last() -> None:
    (admin, _), (client, _) = made(), made(Role.CLIENT)

    with pytest.raises(Conflict, match="only admin"):
        book_of(admin, client).check_revocable(admin.token_id)
    book_of(admin, client).check_revocable(client.token_id)
    book_of(admin).check_revocable(admin.token_id)
    book_of(admin, made()[0], client).check_revocable(admin.token_id)
    book_of(admin, client, bootstrap="x").check_revocable(admin.token_id)


def test_a_node_that_has_a_token_is_taken() -> None:
    own = for_node("n1", digest_of("s"), "join1", 0)
    given, _ = made(Role.AGENT, node_id="n2", expires_in_s=10)
    book = book_of(made()[0], own, given)

    for node_id in ("n1", "n2"):
        with pytest.raises(Conflict, match="muster token revoke"):
            book.check_node_is_free(NodeId(node_id), 9_999)
    book.check_node_is_free(NodeId("n2"), 10_000)
    book.check_node_is_free(NodeId("n3"), 0)


def test_no_refusal_tells_what_was_shown() -> None:
    token, shown = made(Role.CLIENT, expires_in_s=1, requests_per_s=1)
    book = book_of(token, made()[0])
    secret = shown.rsplit(b"_", 1)[1].decode()
    told: list[str] = []
    for attempt in (shown, shown, shown[:-1], b"xst" + shown):
        for right in (Right.CHAT, Right.MANAGE):
            for now_ms in (0, 5000):
                try:
                    admit(book, attempt, right, now_ms)
                except MusterError as error:
                    told.append(str(error.to_dict()))
    assert len(told) > 10
    assert [text for text in told if secret[:-1] in text] == []


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_everybody_is_charged_to_an_account_of_his_own() -> None:
    admin, shown = made()
    book = book_of(admin, bootstrap="boot")

    assert book_of().account(shown).token_id == "anonymous"
    assert book.account(None).token_id == "anonymous"
    assert book.account(b"boot").token_id == "MUSTER_TOKEN"
    assert book.account(shown).token_id == admin.token_id
    assert book.account(shown) is book.account_of(admin.token_id)
    book.remove(admin.token_id)
    assert book.account(shown).token_id == "anonymous"
    assert book.account_of(admin.token_id) is None


def test_only_who_asks_models_has_an_account_that_is_shared() -> None:
    admin, _ = made()
    agent, _ = made(Role.AGENT)

    assert [account.token_id for account in book_of(admin, agent).accounts()] == [admin.token_id]


def test_an_allowance_is_judged_where_models_are_asked_and_a_budget_where_jobs_are_given() -> None:
    client, shown = made(Role.CLIENT, allowance=Allowance(requests_per_min=1, tokens_per_day=5))
    book = book_of(client, bootstrap="boot")
    admit(book, shown, Right.LOOK_UP)
    admit(book, shown, Right.CHAT)
    with pytest.raises(RateLimited, match="1 requests per minute"):
        admit(book, shown, Right.CHAT)
    admit(book, shown, Right.SUBMIT)

    book.account(shown).take(Use(token=client.token_id, model="m", prompt_tokens=5, completion_tokens=0), 0, 0.0)
    with pytest.raises(QuotaExceeded):
        admit(book, shown, Right.SUBMIT)
    admit(book, shown, Right.LOOK_UP)


def test_a_changed_allowance_counts_at_once_and_forgets_nothing() -> None:
    client, shown = made(Role.CLIENT, allowance=Allowance(tokens_per_day=5))
    book = book_of(client, bootstrap="boot")
    book.account(shown).take(Use(token=client.token_id, model="m", prompt_tokens=5, completion_tokens=0), 0, 0.0)

    book.replace([replace(client, allowance=Allowance(tokens_per_day=6))])
    admit(book, shown, Right.CHAT)
    book.add(client)
    with pytest.raises(QuotaExceeded):
        admit(book, shown, Right.CHAT)

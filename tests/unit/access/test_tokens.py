import re

import pytest

from muster.access.roles import GRANTS, JOINING, Role
from muster.access.tokens import Wanted, check_wanted, digest_of, for_node, is_join_token, make
from muster.errors import InvalidInput
from tests.unit.access.makers import RNG, made


def test_a_token_names_its_id_and_keeps_only_a_digest_of_its_secret() -> None:
    token, text = make(Wanted(name="ci", role=Role.CLIENT), 1000, RNG)

    match = re.fullmatch(r"mst_([0-9a-z]{10})_([0-9a-z]{32})", text)
    assert match is not None
    assert token.token_id == match[1]
    assert token.secret_sha256 == digest_of(match[2])
    assert match[2] not in repr(token)
    assert (token.created_at_ms, token.expires_at_ms, token.uses_max) == (1000, None, None)
    assert token.rights == GRANTS[Role.CLIENT]


def test_a_token_expires_at_its_time() -> None:
    token, _ = made(now_ms=1000, expires_in_s=2.5)

    assert token.expires_at_ms == 3500
    assert not token.has_expired(3499)
    assert token.has_expired(3500)
    assert not made()[0].has_expired(10**15)


def test_a_join_token_is_seen_from_its_spelling_and_may_only_join() -> None:
    token, text = made(Role.AGENT, joins=True)

    assert is_join_token(text.decode())
    assert not is_join_token(made()[1].decode())
    assert not is_join_token("anything else")
    assert token.rights == JOINING
    assert token.uses_max == 1
    assert made(Role.AGENT, joins=True, uses_max=7)[0].uses_max == 7


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (Wanted(name="", role=Role.ADMIN), "name"),
        (Wanted(name="a b", role=Role.ADMIN), "name"),
        (Wanted(name="a", role=Role.ADMIN, expires_in_s=0), "expires_in_s"),
        (Wanted(name="a", role=Role.ADMIN, expires_in_s=float("nan")), "expires_in_s"),
        (Wanted(name="a", role=Role.ADMIN, expires_in_s=1e12), "expires_in_s"),
        (Wanted(name="a", role=Role.ADMIN, requests_per_s=-1), "requests_per_s"),
        (Wanted(name="a", role=Role.ADMIN, requests_per_s=float("inf")), "requests_per_s"),
        (Wanted(name="a", role=Role.ADMIN, node_id="n1"), "node_id"),
        (Wanted(name="a", role=Role.AGENT, node_id="unknown"), "node_id"),
        (Wanted(name="a", role=Role.VIEWER, joins=True), "joins"),
        (Wanted(name="a", role=Role.AGENT, joins=True, node_id="n1"), "node_id"),
        (Wanted(name="a", role=Role.AGENT, uses_max=2), "uses_max"),
        (Wanted(name="a", role=Role.AGENT, joins=True, uses_max=0), "uses_max"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(wanted: Wanted, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_wanted(wanted)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(name="a", role=Role.VIEWER, requests_per_s=0, expires_in_s=60),
        Wanted(name="a", role=Role.AGENT, node_id="n1", requests_per_s=0.5),
        Wanted(name="a", role=Role.AGENT, joins=True, uses_max=10),
    ],
)
def test_what_fits_is_taken(wanted: Wanted) -> None:
    check_wanted(wanted)


def test_a_node_that_joins_gets_an_id_that_follows_from_its_own() -> None:
    digest = digest_of("secret")
    token = for_node("n1", digest, "join7", 5)

    assert token.token_id == for_node("n1", digest_of("other"), "join8", 6).token_id
    assert token.token_id != for_node("n2", digest, "join7", 5).token_id
    assert (token.node_id, token.role, token.secret_sha256, token.name) == ("n1", Role.AGENT, digest, "n1.join7")
    assert not is_join_token(f"mst_{token.token_id}_x")


@pytest.mark.parametrize("digest", ["", "x" * 64, "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        for_node("n1", digest, "join7", 0)
    assert refused.value.field == "secret_sha256"


def test_a_node_without_a_name_does_not_join() -> None:
    with pytest.raises(InvalidInput):
        for_node("unknown", digest_of("s"), "join7", 0)

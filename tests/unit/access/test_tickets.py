import pytest

from muster.access.tickets import is_good, issue

KEY, DIGEST, NOW = "key", "ab" * 32, 1_000_000


def test_a_ticket_is_good_for_its_artifact_and_its_time() -> None:
    ticket = issue(KEY, DIGEST, NOW, life_s=60.0)
    assert is_good(KEY, ticket, DIGEST, NOW)
    assert is_good(KEY, ticket, DIGEST, NOW + 60_000)
    assert not is_good(KEY, ticket, DIGEST, NOW + 60_001)
    assert not is_good(KEY, ticket, "cd" * 32, NOW)
    assert not is_good("another node's", ticket, DIGEST, NOW)


def test_a_life_cannot_be_made_longer() -> None:
    until, _, signature = issue(KEY, DIGEST, NOW).partition(".")
    assert not is_good(KEY, f"{int(until) + 1}.{signature}", DIGEST, NOW)


@pytest.mark.parametrize("ticket", ["", ".", "x.y", "1060000", "1060000.", "-1.x", "١٢.x", "9" * 50 + ".x", "1.\u00e9"])
def test_what_is_no_ticket_is_refused(ticket: str) -> None:
    assert not is_good(KEY, ticket, DIGEST, NOW)

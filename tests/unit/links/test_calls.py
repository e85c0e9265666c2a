"""The table of calls is the whole of an agent's ports."""

from muster.links.calls import CALLS, CallingLink
from muster.ports import JobLink, NodeLink


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_a_link_has_every_call_of_both_ports_and_no_other() -> None:
    assert public(CallingLink) == public(NodeLink) | public(JobLink)
    assert len(CALLS) == len(public(CallingLink))


def test_every_call_has_a_message_of_its_own_by_which_both_ends_know_it() -> None:
    assert len({call.message for call in CALLS.values()}) == len(CALLS)
    assert all(name == call.name for name, call in CALLS.items())

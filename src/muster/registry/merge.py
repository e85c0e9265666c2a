"""Two records of one node made one, when several control planes hear of it.

Every control plane comes to the same record, whichever of the others' it saw first, twice or not at all: what counts is
in the records, not in the order of their arrival. Who was heard later wins; a boot that the other side knows to be
retired does not. What people decided about draining is older or newer by itself, whatever the agent said since.
"""

from msgspec.structs import replace

from muster.domain.node import Health, Node
from muster.registry.boots import RETIRED_MAX

# The last word between records that are equally new: the further silence has led, the longer somebody has looked.
_SILENCE = {Health.STALE: 1, Health.DEAD: 2}


def merged(ours: Node, theirs: Node) -> Node:
    newer, older = (theirs, ours) if supersedes(theirs, ours) else (ours, theirs)
    decided = max(ours, theirs, key=_decision)
    retired = _retired(older, newer)
    if _decision(newer) == _decision(decided) and newer.retired_boot_ids == retired:
        return newer
    return replace(
        newer,
        draining=decided.draining,
        drained_services=decided.drained_services,
        draining_at_ms=decided.draining_at_ms,
        retired_boot_ids=retired,
    )


def _retired(older: Node, newer: Node) -> tuple[str, ...]:
    """Return what both know, in the newer one's order, so that to merge again changes nothing."""
    known = newer.retired_boot_ids
    before = [boot_id for boot_id in older.retired_boot_ids if boot_id not in known and boot_id != newer.boot_id]
    last = () if older.boot_id == newer.boot_id or older.boot_id in known else (older.boot_id,)
    return (*before, *known, *last)[-RETIRED_MAX:]


def _decision(node: Node) -> tuple[int, bool, tuple[str, ...]]:
    return (node.draining_at_ms, node.draining, node.drained_services)


def supersedes(theirs: Node, ours: Node) -> bool:
    if theirs.boot_id == ours.boot_id:
        return _age(theirs) > _age(ours)
    retired_here, retired_there = theirs.boot_id in ours.retired_boot_ids, ours.boot_id in theirs.retired_boot_ids
    if retired_here is not retired_there:
        return retired_there
    return (theirs.revision, theirs.boot_id) > (ours.revision, ours.boot_id)


def _age(node: Node) -> tuple[int, int, int, bool, int, tuple[str, ...]]:
    silence = _SILENCE.get(node.health, 0)
    return (node.seq, node.revision, silence, not node.connected, node.last_seen_ms, node.retired_boot_ids)

from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from muster.domain.job import Progress
from muster.ids import CommandId, NodeId


class CommandStatus(StrEnum):
    CREATED = "created"
    SENT = "sent"
    ACKED = "acked"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"


class Command(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An instruction to one node. Times in ms since the epoch; past `deadline_ms` without an answer it is expired."""

    command_id: CommandId
    node_id: NodeId
    command: str
    args: dict[str, Any] = field(default_factory=dict)
    status: CommandStatus = CommandStatus.CREATED
    boot_id: str = ""  # the boot of the agent that was alive when it was issued; empty: any
    group_id: CommandId | None = None  # what several nodes were told at once
    issued_by: str | None = None
    created_at_ms: int = 0
    deadline_ms: int = 0
    ended_at_ms: int | None = None
    progress: Progress | None = None
    result: Any = None
    error: str | None = None

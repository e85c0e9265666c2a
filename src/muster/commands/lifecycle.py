"""The life of a command as one table; what it lacks cannot happen."""

from enum import StrEnum

from muster.domain.command import Command, CommandStatus
from muster.errors import InvalidTransition
from muster.ids import CommandId


class CommandSignal(StrEnum):
    SENT = "sent"
    ACKED = "acked"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"


ENDED = frozenset({CommandStatus.DONE, CommandStatus.FAILED, CommandStatus.EXPIRED})

# A command is sent with every reply until its node acknowledges it, an acknowledgement may come twice, and a result
# may come without one. Answers to a command that was never marked as sent are true as well: the mark was lost with
# the control plane that sent it.
TABLE: dict[tuple[CommandStatus, CommandSignal], CommandStatus] = {
    (CommandStatus.CREATED, CommandSignal.SENT): CommandStatus.SENT,
    (CommandStatus.CREATED, CommandSignal.ACKED): CommandStatus.ACKED,
    (CommandStatus.CREATED, CommandSignal.DONE): CommandStatus.DONE,
    (CommandStatus.CREATED, CommandSignal.FAILED): CommandStatus.FAILED,
    (CommandStatus.CREATED, CommandSignal.EXPIRED): CommandStatus.EXPIRED,
    (CommandStatus.SENT, CommandSignal.SENT): CommandStatus.SENT,
    (CommandStatus.SENT, CommandSignal.ACKED): CommandStatus.ACKED,
    (CommandStatus.SENT, CommandSignal.DONE): CommandStatus.DONE,
    (CommandStatus.SENT, CommandSignal.FAILED): CommandStatus.FAILED,
    (CommandStatus.SENT, CommandSignal.EXPIRED): CommandStatus.EXPIRED,
    (CommandStatus.ACKED, CommandSignal.ACKED): CommandStatus.ACKED,
    (CommandStatus.ACKED, CommandSignal.DONE): CommandStatus.DONE,
    (CommandStatus.ACKED, CommandSignal.FAILED): CommandStatus.FAILED,
    (CommandStatus.ACKED, CommandSignal.EXPIRED): CommandStatus.EXPIRED,
}

_RANKS = (
    CommandStatus.CREATED,
    CommandStatus.SENT,
    CommandStatus.ACKED,
    CommandStatus.EXPIRED,
    CommandStatus.FAILED,
    CommandStatus.DONE,
)
_BEYOND_TIME_MS = 10**13  # the year 2286


def next_status(command_id: CommandId, status: CommandStatus, signal: CommandSignal) -> CommandStatus:
    try:
        return TABLE[status, signal]
    except KeyError:
        raise InvalidTransition(
            f"command {command_id} is {status}: {signal} cannot follow", command_id=command_id
        ) from None


def standing(command: Command) -> int:
    """Return how far it has come: of two records of a command the one that stands higher is true.

    So control planes that hear of changes late, twice or in another order all end with the same record. Where one
    saw a command expire while its answer reached another, the answer counts.
    """
    progress_ms = (command.progress.at_ms or 0) if command.progress else 0
    return _RANKS.index(command.status) * _BEYOND_TIME_MS + progress_ms

"""The life of a command as one table; what it lacks cannot happen."""

from enum import StrEnum

from muster.domain.command import CommandStatus
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


def next_status(command_id: CommandId, status: CommandStatus, signal: CommandSignal) -> CommandStatus:
    try:
        return TABLE[status, signal]
    except KeyError:
        raise InvalidTransition(
            f"command {command_id} is {status}: {signal} cannot follow", command_id=command_id
        ) from None

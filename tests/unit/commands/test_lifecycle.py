import pytest

from muster.commands.lifecycle import ENDED, TABLE, CommandSignal, next_status
from muster.domain.command import CommandStatus
from muster.errors import InvalidTransition
from muster.ids import CommandId

COMMAND = CommandId("cmd-1")


def test_the_usual_life() -> None:
    status = CommandStatus.CREATED
    for signal in (
        CommandSignal.SENT,
        CommandSignal.SENT,
        CommandSignal.ACKED,
        CommandSignal.ACKED,
        CommandSignal.DONE,
    ):
        status = next_status(COMMAND, status, signal)
    assert status is CommandStatus.DONE


@pytest.mark.parametrize("status", sorted(set(CommandStatus) - ENDED))
@pytest.mark.parametrize("signal", [CommandSignal.DONE, CommandSignal.FAILED, CommandSignal.EXPIRED])
def test_whatever_is_open_can_end(status: CommandStatus, signal: CommandSignal) -> None:
    assert next_status(COMMAND, status, signal) in ENDED


@pytest.mark.parametrize("status", sorted(ENDED))
@pytest.mark.parametrize("signal", CommandSignal)
def test_nothing_follows_an_end(status: CommandStatus, signal: CommandSignal) -> None:
    with pytest.raises(InvalidTransition, match=f"command cmd-1 is {status}") as caught:
        next_status(COMMAND, status, signal)
    assert caught.value.data == {"command_id": "cmd-1"}


def test_an_acknowledged_command_is_not_sent_again() -> None:
    assert (CommandStatus.ACKED, CommandSignal.SENT) not in TABLE

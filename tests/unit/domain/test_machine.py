from muster.domain.machine import GONE, PAID, MachineState


def test_a_machine_is_paid_for_until_it_begins_to_stop_and_never_once_it_is_gone():
    assert not PAID & GONE
    assert set(MachineState) - PAID - GONE == {MachineState.STOPPING, MachineState.STOPPED}

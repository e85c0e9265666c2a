from muster.control.fleet.own_host import OwnHost
from tests.integration.gateway.fleet import FleetTwin, worker


def test_only_services_on_this_machine_are_seen_and_changes_are() -> None:
    here, there = worker("http://127.0.0.1:8080", "a"), worker("http://10.0.0.9:8080", "b")
    fleet = FleetTwin(there)
    own = OwnHost(fleet, {"127.0.0.1"})
    assert own.candidates() == ()
    fleet.become(there, here)
    assert own.candidates() == (here,)
    assert own.version == fleet.version

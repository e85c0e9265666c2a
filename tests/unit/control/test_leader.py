from muster.control.leader import Leader
from muster.errors import StoreUnavailable
from muster.stores.memory.leases import MemoryLeases
from tests.clocks import ManualClock
from tests.waiting import eventually


class Leases(MemoryLeases):
    away = False

    async def take(self, name: str, owner: str, ttl_s: float) -> bool:
        if self.away:
            raise StoreUnavailable("away")
        return await super().take(name, owner, ttl_s)

    async def release(self, name: str, owner: str) -> None:
        if self.away:
            raise StoreUnavailable("away")
        await super().release(name, owner)


class Two:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.leases = Leases(self.clock)
        self.first, self.second = (Leader(self.leases, self.clock, name, ttl_s=3.0) for name in ("a", "b"))

    @property
    def leading(self) -> str:
        return "".join(name for name, side in (("a", self.first), ("b", self.second)) if side.leads)


async def test_the_first_who_asks_leads_as_long_as_it_renews() -> None:
    two = Two()
    for _ in range(5):
        await two.first.renew()
        await two.second.renew()
        assert two.leading == "a"
        two.clock.advance(2.0)


async def test_one_that_was_frozen_knows_that_it_leads_no_more_before_it_acts() -> None:
    two = Two()
    await two.first.renew()
    two.clock.advance(2.8)
    assert two.leading == ""
    await two.second.renew()
    assert two.leading == ""  # nobody else can lead yet
    two.clock.advance(0.2)
    await two.second.renew()
    assert two.leading == "b"
    await two.first.renew()
    assert two.leading in {"", "b"}


async def test_while_the_store_is_away_the_time_that_we_have_runs_out() -> None:
    two = Two()
    await two.first.renew()
    two.leases.away = True
    await two.first.renew()
    assert two.leading == "a"
    two.clock.advance(3.0)
    await two.first.renew()
    assert two.leading in {"", "b"}
    two.leases.away = False
    await two.first.renew()
    assert two.leading == "a"


async def test_after_a_jump_of_the_clock_the_store_is_asked_first() -> None:
    two = Two()
    await two.first.renew()
    two.first.doubt()
    assert two.leading in {"", "b"}
    await two.first.renew()
    assert two.leading == "a"


async def test_who_stops_makes_room_at_once() -> None:
    two = Two()
    await two.first.start()
    await two.first.start()
    assert two.leading == "a"
    await two.first.stop()
    await two.first.stop()
    await two.second.renew()
    assert two.leading == "b"


async def test_a_stop_without_the_store_is_a_stop_too() -> None:
    two = Two()
    await two.first.start()
    two.leases.away = True
    await two.first.stop()
    assert two.leading in {"", "b"}


async def test_it_goes_on_asking() -> None:
    two = Two()
    await two.first.renew()
    eager = Leader(two.leases, two.clock, "c", ttl_s=0.01)
    await eager.start()
    two.clock.advance(3.0)
    await eventually(lambda: two.leases._held["leader"][0] == "c")
    await eager.stop()

from muster.control.jobs.wakeups import Wakeups


async def test_one_waiter_is_woken_per_wake_up_first_come_first() -> None:
    wakeups = Wakeups()
    first, second = wakeups.register("c"), wakeups.register("c")
    wakeups.wake("c")
    assert (first.done(), second.done()) == (True, False)


async def test_a_wake_up_for_nobody_does_nothing() -> None:
    wakeups = Wakeups()
    wakeups.wake("c")
    assert not wakeups.register("c").done()


async def test_a_waiter_that_left_is_not_woken() -> None:
    wakeups = Wakeups()
    gone, waiting = wakeups.register("c"), wakeups.register("c")
    gone.cancel()
    wakeups.wake("c")
    assert waiting.done()


async def test_forgotten_waiters_leave_nothing_behind() -> None:
    wakeups = Wakeups()
    future = wakeups.register("c")
    wakeups.forget("c", future)
    wakeups.forget("c", future)
    wakeups.wake("c")
    assert not future.done()


async def test_after_a_gap_everybody_is_woken() -> None:
    wakeups = Wakeups()
    futures = [wakeups.register(name) for name in ("a", "a", "b")]
    wakeups.wake_all()
    assert all(future.done() for future in futures)

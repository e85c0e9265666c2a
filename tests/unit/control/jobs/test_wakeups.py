from muster.control.jobs.wakeups import Wakeups
from muster.ids import SessionId

S1, S2 = SessionId("s1"), SessionId("s2")


async def test_one_waiter_is_woken_per_wake_up_first_come_first() -> None:
    wakeups = Wakeups()
    first, second = wakeups.register("c", S1), wakeups.register("c", S1)
    wakeups.wake("c")
    assert (first.done(), second.done()) == (True, False)


async def test_a_wake_up_for_nobody_does_nothing() -> None:
    wakeups = Wakeups()
    wakeups.wake("c")
    assert not wakeups.register("c", S1).done()


async def test_a_waiter_that_left_is_not_woken() -> None:
    wakeups = Wakeups()
    gone, waiting = wakeups.register("c", S1), wakeups.register("c", S1)
    gone.cancel()
    wakeups.wake("c")
    assert waiting.done()


async def test_forgotten_waiters_leave_nothing_behind() -> None:
    wakeups = Wakeups()
    future = wakeups.register("c", S1)
    wakeups.forget("c", S1, future)
    wakeups.forget("c", S1, future)
    wakeups.wake("c")
    assert not future.done()


async def test_after_a_gap_everybody_is_woken() -> None:
    wakeups = Wakeups()
    futures = [wakeups.register(name, S1) for name in ("a", "a", "b")]
    wakeups.wake_all()
    assert all(future.done() for future in futures)


async def test_a_session_is_woken_whatever_class_it_waits_with() -> None:
    wakeups = Wakeups()
    own, other = wakeups.register("c", S1), wakeups.register("c", S2)
    wakeups.wake_session(S1)
    wakeups.wake_session(S1)
    wakeups.wake_session(SessionId("nobody"))
    assert (own.done(), other.done()) == (True, False)


async def test_who_was_woken_with_its_session_keeps_no_wake_up_from_others() -> None:
    wakeups = Wakeups()
    _, other = wakeups.register("c", S1), wakeups.register("c", S2)
    wakeups.wake_session(S1)
    wakeups.wake("c")
    assert other.done()

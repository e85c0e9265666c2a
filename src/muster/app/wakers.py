"""All ways to a model that nobody serves: loaded where it is on disk, else by a machine that is started for it."""

from collections.abc import Awaitable, Iterable, Sequence
from itertools import chain

from muster.ports import Waker


class Wakers:
    """A Waker: the first that can."""

    def __init__(self, wakers: Sequence[Waker]) -> None:
        self._wakers = wakers

    def wake(self, model: str) -> Awaitable[None] | None:
        return next((wait for waker in self._wakers if (wait := waker.wake(model)) is not None), None)

    def models(self) -> Iterable[str]:
        return chain.from_iterable(waker.models() for waker in self._wakers)

    def why(self, model: str) -> str:
        return next((why for waker in self._wakers if (why := waker.why(model))), "")

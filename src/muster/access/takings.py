"""What was taken of limits that hold for all gateways together, until the others are told."""

from collections.abc import Callable

from muster.wire.gateways import Taken


class Takings:
    """By token; of those alone that have such limits."""

    def __init__(self) -> None:
        self._taken: dict[str, Taken] = {}
        self._noted: Callable[[], None] = lambda: None

    def on_noted(self, listener: Callable[[], None]) -> None:
        """Be called when there is something to tell."""
        self._noted = listener

    def of(self, token_id: str) -> Taken:
        """Return what is to be told of a token, to be added to."""
        taken = self._taken.get(token_id)
        if taken is None:
            taken = self._taken[token_id] = Taken()
            self._noted()
        return taken

    def tell(self) -> dict[str, Taken]:
        """Return what is to be told; it counts as told."""
        taken, self._taken = self._taken, {}
        return taken

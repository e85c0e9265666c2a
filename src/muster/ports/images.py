"""The gateway's way to pictures that workers make."""

from collections.abc import Sequence
from typing import Protocol

from muster.domain.file import FileRef
from muster.domain.image import ImageOrder, Made


class ImageMaker(Protocol):
    def names(self) -> Sequence[str]:
        """Return the models that can be asked."""
        ...

    def has(self, model: str) -> bool:
        """Say whether `make` is the one to ask for this model, though it may only say why it cannot."""
        ...

    async def make(self, order: ImageOrder) -> Made:
        """Make all pictures of an order; giving the wait up has none made any more.

        Raises InvalidInput for what the model does not do, NoWorker where nobody can make them, or not soon enough,
        QueueFull, ImageModelBroken, and UpstreamFailed and its kinds for what went wrong on the way.
        """
        ...

    async def read(self, picture: FileRef) -> bytes: ...

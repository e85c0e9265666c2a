"""What has a life inside a process."""

from typing import Protocol


class Lifecycle(Protocol):
    """Everything that runs: started once, stopped in reverse order; a stop too early or too often does nothing."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

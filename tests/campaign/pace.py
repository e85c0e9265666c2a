"""The one place of the campaign that waits for time: faults and submits come when their time has come."""

import asyncio

LOOK_S = 0.25  # between two looks at something that other processes change


async def pause(seconds: float) -> None:
    await asyncio.sleep(max(0.0, seconds))


async def until(at_s: float) -> None:
    """Wait for a time of the loop's clock."""
    await pause(at_s - asyncio.get_running_loop().time())

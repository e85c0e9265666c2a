import asyncio

import pytest

from muster.app.stack import Stack


class Part:
    def __init__(self, name: str, story: list[str], *, breaks: bool = False, hangs: bool = False) -> None:
        self.name = name
        self.story = story
        self.breaks = breaks
        self.hangs = hangs

    async def start(self) -> None:
        self.story.append(f"+{self.name}")
        if self.breaks:
            raise RuntimeError(self.name)

    async def stop(self) -> None:
        self.story.append(f"-{self.name}")
        if self.hangs:
            await asyncio.Event().wait()
        if self.breaks:
            raise RuntimeError(self.name)


async def test_parts_stop_in_reverse_and_only_once() -> None:
    story: list[str] = []
    stack = Stack(stop_timeout_s=1)
    for name in "abc":
        await stack.start(Part(name, story))
    await stack.stop()
    await stack.stop()
    assert story == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_a_part_that_breaks_or_hangs_does_not_keep_others_from_stopping() -> None:
    story: list[str] = []
    stack = Stack(stop_timeout_s=0.01)
    await stack.start(Part("a", story))
    await stack.start(Part("slow", story, hangs=True))
    with pytest.raises(RuntimeError):
        await stack.start(Part("b", story, breaks=True))
    await stack.stop()
    assert story == ["+a", "+slow", "+b", "-b", "-slow", "-a"]

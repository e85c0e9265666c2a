"""An event loop in a thread of its own, for callers who have none."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_STOP_S = 10.0


class ClientClosed(RuntimeError):
    """It was used after its end."""


class BackgroundLoop:
    """Starts with the first thing there is to do. The thread is a daemon: it keeps no program from ending."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False

    @property
    def started(self) -> bool:
        return self._loop is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it and return what comes of it; a caller who is interrupted (Ctrl-C) ends it."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._running())
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, stream: AsyncGenerator[T, None]) -> Iterator[T]:
        """Yield what it yields, one at a time: it goes on only while the next one is waited for."""
        nothing: Any = object()

        async def following() -> T:
            return await anext(stream, nothing)

        with self.closing(stream):
            while (found := self.run(following())) is not nothing:
                yield found

    @contextlib.contextmanager
    def closing(self, stream: AsyncGenerator[Any, Any]) -> Iterator[None]:
        """Close it at the end of the block, unless all is closed before."""
        try:
            yield
        finally:
            with contextlib.suppress(ClientClosed):
                self.run(_close(stream))

    def close(self) -> None:
        with self._starting:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_STOP_S)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._closed:
                raise ClientClosed("this client is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="muster-client", daemon=True)
                self._thread.start()
            return self._loop


async def _close(stream: AsyncGenerator[Any, Any]) -> None:
    await stream.aclose()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()

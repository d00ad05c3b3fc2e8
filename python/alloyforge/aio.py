"""asyncio without a thread a request.

The engine's thread never takes the interpreter's lock: it notes which requests have news and rings a
bell, a socket that the event loop watches. However many requests a step served, the loop wakes once.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from alloyforge import _native
from alloyforge.errors import invalid
from alloyforge.results import Chunk, Completion

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from alloyforge.stream import Reading

C = TypeVar("C", bound=Completion, covariant=True)


class Delivery:
    """Brings news of requests to one event loop, for as long as that lives."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.bell = _native.Bell()
        # Weak, so that a stream nobody holds any more is dropped, which cancels its request.
        self._streams: weakref.WeakValueDictionary[int, AsyncStream[Any]] = weakref.WeakValueDictionary()
        self._next_tag = 0
        loop.add_reader(self.bell.fileno(), self._ring)

    def new_tag(self) -> int:
        """A number for a new request."""
        self._next_tag += 1
        return self._next_tag

    def watch(self, tag: int, stream: AsyncStream[Any]) -> None:
        """Wakes `stream` when its request has news."""
        self._streams[tag] = stream
        # The news may have come before the stream was there to be woken.
        stream.wake()

    def _ring(self) -> None:
        for tag in self.bell.answer():
            stream = self._streams.get(tag)
            if stream is not None:
                stream.wake()


_deliveries: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Delivery] = weakref.WeakKeyDictionary()


def delivery() -> Delivery:
    """The delivery of the event loop that is running."""
    loop = asyncio.get_running_loop()
    found = _deliveries.get(loop)
    if found is None:
        found = _deliveries[loop] = Delivery(loop)
    return found


class AsyncStream(Generic[C]):
    """An asynchronous iterator over the chunks of one answer, and an asynchronous context manager.

    Dropping it, leaving the `async with` block, or cancelling the task that waits for it cancels what
    is left of the request and frees its memory.
    """

    def __init__(self, request: _native.Request, reading: Reading[C]) -> None:
        self._request = request
        self._reading = reading
        self._ready: list[Chunk] = []
        self._news = asyncio.Event()
        self._completion: C | None = None

    def wake(self) -> None:
        """Says that there is news."""
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while True:
            if self._ready:
                return self._ready.pop(0)
            event = await self._event()
            if event is None:
                raise StopAsyncIteration
            if isinstance(event, Completion):
                self._ready += self._reading.rest()
                self._completion = self._reading.completion(event)
            else:
                chunk = self._reading.chunk(event)
                if chunk.text or chunk.tokens or chunk.reasoning:
                    return chunk

    async def _event(self) -> Chunk | Completion | None:
        """The next event; `None` when the last one has been taken."""
        while True:
            self._news.clear()
            event = self._request.poll()
            if event is not None or self._request.is_over:
                return event
            try:
                await self._news.wait()
            except asyncio.CancelledError:
                self.cancel()
                raise

    async def wait(self) -> C:
        """The whole answer, passing over the chunks."""
        async for _ in self:
            pass
        return self.completion

    def cancel(self) -> None:
        """Ends the request; the iteration ends soon, with the finish reason `cancelled`."""
        self._request.cancel()

    async def aclose(self) -> None:
        """As `cancel`."""
        self.cancel()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: the end was reached, or `cancel` called."""
        return self._request.is_over or self._request.is_cancelled

    @property
    def completion(self) -> C:
        """The whole answer, once the stream is over.

        Raises:
            InvalidRequestError: the stream is not over.
        """
        if self._completion is None:
            raise invalid("completion", "the stream is not over")
        return self._completion

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

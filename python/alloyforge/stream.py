"""An answer while it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from alloyforge.errors import invalid
from alloyforge.forms import check_alone, parser_of, with_parser
from alloyforge.results import ChatCompletion, Chunk, Completion

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from alloyforge import _native
    from alloyforge.dialects import Reader

C = TypeVar("C", bound=Completion, covariant=True)


class Reading(Protocol[C]):
    """How an answer is read: what the caller sees of what the core delivers."""

    @property
    def has_special_text(self) -> bool:
        """Whether the text of special tokens is wanted too."""

    def prepare(self, sampling: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the request is submitted with, of what the caller said."""

    def chunk(self, chunk: Chunk) -> Chunk:
        """What the caller sees of a chunk."""

    def rest(self) -> list[Chunk]:
        """What was held back, once the answer is over."""

    def completion(self, completion: Completion) -> C:
        """What the caller sees of the end result."""


class TextReading:
    """An answer as it stands."""

    has_special_text = False

    def __init__(self) -> None:
        self._parse: Callable[[str], Any] | None = None

    def prepare(self, sampling: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the request is submitted with: what was said."""
        self._parse = parser_of(sampling)
        return sampling

    def chunk(self, chunk: Chunk) -> Chunk:
        """The chunk itself."""
        return chunk

    def rest(self) -> list[Chunk]:
        """Nothing was held back."""
        return []

    def completion(self, completion: Completion) -> Completion:
        """The completion itself."""
        return with_parser(completion, self._parse)


class ChatReading:
    """A chat answer: reasoning and tool calls apart from the text.

    Args:
        make: Makes the reader of one answer.
        has_special_text: Whether it reads the text of special tokens too.
        grammar: What the answer keeps to where a call is forced.
    """

    def __init__(
        self, make: Callable[[], Reader], has_special_text: bool = False, grammar: str | None = None
    ) -> None:
        self.has_special_text = has_special_text
        self.make = make
        self.grammar = grammar
        self._parse: Callable[[str], Any] | None = None
        self._readers: dict[int, Reader] = {}

    def prepare(self, sampling: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the request is submitted with: what was said, and the grammar of a call that is forced."""
        self._parse = parser_of(sampling)
        if self.grammar is None:
            return sampling
        check_alone(sampling)
        return {**sampling, "grammar": self.grammar}

    def chunk(self, chunk: Chunk) -> Chunk:
        """The chunk with what is certain by now."""
        if chunk.index not in self._readers:
            self._readers[chunk.index] = self.make()
        content, reasoning = self._readers[chunk.index].feed(chunk.text)
        return replace(chunk, text=content, reasoning=reasoning)

    def rest(self) -> list[Chunk]:
        """What the ends of the answers settle."""
        chunks = []
        for index, reader in sorted(self._readers.items()):
            content, reasoning = reader.finish()
            if content or reasoning:
                chunks.append(Chunk(content, index=index, reasoning=reasoning))
        self._readers.clear()
        return chunks

    def completion(self, completion: Completion) -> ChatCompletion:
        """The answer taken apart, each choice by itself."""
        first, *others = [self._read(i, choice) for i, choice in enumerate(completion.choices)]
        return with_parser(replace(first, others=list(others)), self._parse)

    def _read(self, index: int, completion: Completion) -> ChatCompletion:
        reader = self.make()
        content, reasoning = reader.feed(completion.text)
        more_content, more_reasoning = reader.finish()
        calls = [{"id": f"call_{index}_{i}", **call} for i, call in enumerate(reader.tool_calls)]
        return ChatCompletion(
            text=content + more_content,
            tokens=completion.tokens,
            logprobs=completion.logprobs,
            finish_reason="tool_calls" if calls else completion.finish_reason,
            usage=completion.usage,
            timings=completion.timings,
            reasoning=(reasoning + more_reasoning) or None,
            tool_calls=calls,
        )


class Stream(Generic[C]):
    """An iterator over the chunks of one answer, and a context manager that ends it.

    Dropping the stream, or leaving the `with` block, cancels what is left of the request and frees
    its memory.
    """

    def __init__(self, request: _native.Request, reading: Reading[C]) -> None:
        self._request = request
        self._reading = reading
        self._ready: list[Chunk] = []
        self._completion: C | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        while True:
            if self._ready:
                return self._ready.pop(0)
            event = self._request.next()
            if event is None:
                raise StopIteration
            if isinstance(event, Completion):
                self._ready += self._reading.rest()
                self._completion = self._reading.completion(event)
            else:
                chunk = self._reading.chunk(event)
                if chunk.text or chunk.tokens or chunk.reasoning:
                    return chunk

    def cancel(self) -> None:
        """Ends the request; the iteration ends soon, with the finish reason `cancelled`."""
        self._request.cancel()

    def close(self) -> None:
        """As `cancel`."""
        self.cancel()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: the end was reached, or `cancel` called."""
        return self._request.is_over or self._request.is_cancelled

    @property
    def completion(self) -> C:
        """The whole answer, once the stream is over or was cancelled.

        Raises:
            InvalidRequestError: the stream is not over.
        """
        if self._completion is None and self._request.is_cancelled:
            for _ in self:
                pass
        if self._completion is None:
            raise invalid("completion", "the stream is not over")
        return self._completion

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

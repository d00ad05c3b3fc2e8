"""A chat that remembers what was said and keeps what was computed of it between turns."""

from __future__ import annotations

import copy
import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alloyforge import _native
from alloyforge.errors import invalid
from alloyforge.media.keep import check_kept, settled
from alloyforge.messages import Media, Message, Tool, ToolChoice, checked_messages
from alloyforge.results import ChatCompletion, Completion
from alloyforge.stream import ChatReading, Stream

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from alloyforge.aio import AsyncStream
    from alloyforge.sampling import Sampling
    from alloyforge.session import Session

Content = str | Message | Sequence[Message]
"""What is said in a turn: a user's text, a message, or several (the results of tools, say)."""


class Conversation:
    """A chat that remembers what was said and keeps what was computed of it between turns.

    A turn gives exactly what `Session.chat` would give for all of `messages`, only sooner. It becomes
    part of the conversation when its answer is there, a cancelled one with as much of it as was written;
    one that fails leaves the conversation as it was. There is one turn at a time: forks have others.

    Pictures and videos in a message become part of it as `data:` addresses, so that they stay what they
    were; they are encoded again only where their rows were forgotten.

    Made by `Session.conversation`. The blocks of the KV cache that it keeps are not those of a live
    request: where memory is wanted they go, after everything else, and are computed again.
    """

    def __init__(
        self,
        session: Session,
        kept: _native.Conversation,
        system: str | None = None,
        template: str | None = None,
    ) -> None:
        self._template = template
        self._session = session
        self._kept = kept
        self._messages: list[dict[str, Any]] = []
        if system is not None:
            self._messages.append({"role": "system", "content": system})
        self._lock = threading.Lock()
        self._turn: _Turn | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What was said, as OpenAI's dictionaries: copies."""
        return copy.deepcopy(self._messages)

    def send(
        self,
        content: Content,
        *,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice = "auto",
        **sampling: Unpack[Sampling],
    ) -> ChatCompletion:
        """Says something and gives the answer.

        Args:
            content: A user's text, a message, or several: the results of tools, say.
            tools: Functions that the model may ask to have called.
            tool_choice: As in `Session.chat`.
            **sampling: How tokens are drawn: see `alloyforge.Sampling`.

        Raises:
            InvalidRequestError: a message or parameter is wrong, the template fails, or a turn is under
                way.
            ContextLengthError: the conversation does not fit the context.
        """
        prompt, turn = self._begin(content, tools, tool_choice)
        try:
            request = self._session._submit(prompt, sampling, turn, conversation=self._kept)
            return turn.completion(_whole(request.wait()))
        finally:
            self._end(turn)

    def stream(
        self,
        content: Content,
        *,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice = "auto",
        **sampling: Unpack[Sampling],
    ) -> Stream[ChatCompletion]:
        """As `send`, giving the answer while it is written."""
        prompt, turn = self._begin(content, tools, tool_choice)
        try:
            request = self._session._submit(prompt, sampling, turn, stream=True, conversation=self._kept)
        except BaseException:
            self._end(turn)
            raise
        stream: Stream[ChatCompletion] = Stream(request, turn)
        turn.request = weakref.ref(stream)
        return stream

    async def asend(
        self,
        content: Content,
        *,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice = "auto",
        **sampling: Unpack[Sampling],
    ) -> ChatCompletion:
        """As `send`, on asyncio. Cancelling the task cancels the turn."""
        prompt, turn = self._begin(content, tools, tool_choice)
        try:
            return await self._session._asubmit(prompt, sampling, turn, conversation=self._kept).wait()
        finally:
            self._end(turn)

    def astream(
        self,
        content: Content,
        *,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice = "auto",
        **sampling: Unpack[Sampling],
    ) -> AsyncStream[ChatCompletion]:
        """As `stream`, on asyncio."""
        prompt, turn = self._begin(content, tools, tool_choice)
        try:
            stream = self._session._asubmit(prompt, sampling, turn, stream=True, conversation=self._kept)
        except BaseException:
            self._end(turn)
            raise
        turn.request = weakref.ref(stream)
        return stream

    def fork(self) -> Conversation:
        """A second conversation that has said the same and shares what was computed of it."""
        fork = Conversation(self._session, self._kept.fork(), template=self._template)
        fork._messages = self.messages
        return fork

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the conversation to a file, with what was computed of it.

        Raises:
            InvalidRequestError: a message holds something that is no JSON: frames without a file, say.
            OSError: the file cannot be written.
        """
        try:
            text = json.dumps({"messages": self._messages}, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise invalid("messages", f"cannot be saved: {error}") from error
        self._kept.save(os.fspath(path), text)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Goes on with a conversation that was saved, in place of this one.

        Raises:
            FileNotFoundError: there is no such file.
            ModelFormatError: the file is damaged, or no conversation.
            InvalidRequestError: another model has saved it, or the same with other options that change
                what it computes (`quantize`, `kv_dtype`, `dtype`, the device), or a turn is under way.
        """
        with self._lock:
            self._check_idle()
            text = self._kept.restore(os.fspath(path))
            # The file's checksum was right; what it holds is still somebody else's.
            try:
                said = json.loads(text)
                messages = said["messages"]
                check_kept(messages)
                if messages:
                    checked_messages(messages, Media())
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise invalid("path", f"holds no messages: {error}") from error
            self._messages = messages

    def close(self) -> None:
        """Lets go of what was computed; the conversation may go on, from its messages."""
        with self._lock:
            self._check_idle()
            self._kept = self._session._core.conversation()

    def __repr__(self) -> str:
        return f"<alloyforge.Conversation of {len(self._messages)} messages>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn = None
        self.close()

    def _begin(
        self, content: Content, tools: Sequence[Tool] | None, tool_choice: ToolChoice
    ) -> tuple[_native.Prompt, _Turn]:
        if isinstance(content, str):
            said: list[Any] = [{"role": "user", "content": content}]
        elif isinstance(content, Mapping):
            said = [dict(content)]
        elif isinstance(content, Sequence):
            said = [dict(message) if isinstance(message, Mapping) else message for message in content]
        else:
            raise invalid("content", f"must be text or messages, found {type(content).__name__}")
        if not said:
            raise invalid("content", "must not be empty")
        with self._lock:
            self._check_idle()
            first = len(self._messages)
            said = [settled(message, f"messages[{first + i}]") for i, message in enumerate(said)]
            messages = [*self._messages, *said]
            prompt, reading = self._session._chat(messages, tools, tool_choice, self._template)
            self._turn = turn = _Turn(self, said, reading)
        return prompt, turn

    def _check_idle(self) -> None:
        if self._turn is not None and self._turn.is_under_way():
            raise invalid("conversation", "a turn is under way: wait for it or cancel it, or fork")

    def _commit(self, turn: _Turn, message: dict[str, Any]) -> None:
        with self._lock:
            if self._turn is turn:
                self._messages += [*turn.said, message]
                self._turn = None

    def _end(self, turn: _Turn) -> None:
        with self._lock:
            if self._turn is turn:
                self._turn = None


class _Turn(ChatReading):
    """The reading of a turn's answer, which becomes part of the conversation at its end."""

    def __init__(self, conversation: Conversation, said: list[dict[str, Any]], reading: ChatReading) -> None:
        super().__init__(reading.make, reading.has_special_text, reading.grammar)
        self.said = said
        self.request: weakref.ref[Any] | None = None
        """The stream that brings the answer, where it is streamed."""
        self._conversation = conversation

    def completion(self, completion: Completion) -> ChatCompletion:
        """The answer taken apart, and remembered."""
        answer = super().completion(completion)
        self._conversation._commit(self, answer.message)
        return answer

    def is_under_way(self) -> bool:
        """Whether an answer may still come: not from a stream that was dropped or cancelled."""
        if self.request is None:
            return True
        stream = self.request()
        return stream is not None and not stream.is_over


def _whole(event: Completion | None) -> Completion:
    if event is None:
        raise invalid("conversation", "the answer was taken before")
    return event

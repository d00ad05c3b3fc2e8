"""A model, loaded and ready to write."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from alloyforge import _native
from alloyforge.aio import AsyncStream, delivery
from alloyforge.batch import run_batch
from alloyforge.conversation import Conversation
from alloyforge.dialects import dialect_of
from alloyforge.errors import invalid, not_supported
from alloyforge.forms import forced
from alloyforge.media.audio import Audio
from alloyforge.media.prepare import Preparer
from alloyforge.messages import Media, Message, Tool, ToolChoice, checked_messages, checked_tools
from alloyforge.models import find_model
from alloyforge.results import (
    ChatCompletion,
    Completion,
    Label,
    Ranked,
    Score,
    SessionInfo,
    SessionStats,
    Transcription,
)
from alloyforge.speech import SpeechModel, TranscriptionStream, refuse_text
from alloyforge.stream import ChatReading, Reading, Stream, TextReading

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Self, Unpack

    from alloyforge.sampling import Sampling

C = TypeVar("C", bound=Completion)

Prompt = str | Sequence[int]
"""Text, or token ids."""


class Session:
    """A model, loaded and ready to write.

    All methods may be called from several threads and from asyncio at once; requests that are there
    together are computed together.

    Args:
        model: A `.gguf` file (the first shard of a split one), a folder with `config.json` and
            `*.safetensors`, a Hugging Face id (`org/name`, `org/name:file.gguf`), or a name in the
            catalogue such as `smollm2-135m`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `metal`.
        backend: `auto`, `native` or `candle`.
        dtype: What unquantised weights are computed in: `auto`, `f32`, `f16` or `bf16`.
        quantize: A type to quantise weights to at load: `q8_0`, `q4_0`, ...; `int8` and `int4` are
            names for `q8_0` and `q4_k`.
        context_len: Most tokens that one sequence may hold; the model's own, bounded by memory, where
            nothing is said.
        kv_dtype: What the KV cache is kept in: `auto`, `f32`, `f16`, `bf16` or `q8_0`.
        kv_memory: Bytes for the KV cache; sized from free memory where nothing is said.
        threads: Threads that compute; the physical cores that this process may use where nothing is
            said.
        max_batch: Most sequences in one step.
        prefix_cache: Whether prompts that begin alike share what was computed.
        projector: A GGUF file (`mmproj`) of what a text model sees with, beside its own GGUF file.
        draft: Where guesses at the tokens to come are from, which change how fast an answer comes and
            nothing else: `ngram` for the text so far, or a smaller model with the same tokens, named as
            `model` is. Where they do not pay they are left out.
        progress: Told how far loading is, from 0 to 1.

    Raises:
        FileNotFoundError: there is no such model.
        ModelFormatError: the file is damaged.
        UnsupportedModelError: the file is sound, but of a kind that is not known.
        InvalidRequestError: an argument is out of range.
        OutOfMemoryError: the model does not fit.
        DeviceError: the device is missing.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str = "auto",
        backend: str = "auto",
        dtype: str = "auto",
        quantize: str | None = None,
        context_len: int | None = None,
        kv_dtype: str = "auto",
        kv_memory: int | None = None,
        threads: int | None = None,
        max_batch: int | None = None,
        prefix_cache: bool = True,
        projector: str | os.PathLike[str] | None = None,
        draft: str | os.PathLike[str] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        path = os.fspath(find_model(model))
        self._speech: SpeechModel | None = None
        self._text: _native.Session | None = None
        self._template: str | None = None
        if _native.is_speech(path):
            _refuse(projector=projector, draft=draft)
            speech = _native.Speech(
                path,
                device=device,
                backend=backend,
                dtype=dtype,
                quantize=quantize,
                kv_dtype=kv_dtype,
                kv_memory=kv_memory,
                threads=threads,
                max_batch=max_batch,
                progress=progress,
            )
            self._speech = SpeechModel(speech)
            return
        if draft is not None and draft != "ngram":
            draft = os.fspath(find_model(draft))
        self._text = _native.Session(
            path,
            device=device,
            backend=backend,
            dtype=dtype,
            quantize=quantize,
            context_len=context_len,
            kv_dtype=kv_dtype,
            kv_memory=kv_memory,
            threads=threads,
            max_batch=max_batch,
            prefix_cache=prefix_cache,
            projector=None if projector is None else os.fspath(find_model(projector)),
            draft=draft,
            progress=progress,
        )
        self._template = self._core.info().chat_template

    def generate(
        self,
        prompt: Prompt,
        *,
        images: object = None,
        audio: object = None,
        videos: object = None,
        **sampling: Unpack[Sampling],
    ) -> Completion:
        """Completes `prompt`.

        Args:
            prompt: Text, in which special tokens are read as such, or token ids. A BOS token is put
                in front of text where the model wants one and the text does not begin with it.
            images: Pictures for the prompt's placeholders, in their order: each a path, bytes, a
                Pillow image or a uint8 array `(h, w, 3)`.
            audio: Sounds likewise: each a path, bytes or `(samples, rate)`; for a speech model one, and
                `prompt` is then its decoder's prompt.
            videos: Videos likewise: each a path, bytes or an `alloyforge.Video`.
            **sampling: How tokens are drawn: see `alloyforge.Sampling`.

        Raises:
            InvalidRequestError: a parameter is out of range, or media and placeholders differ in number.
            MediaError: a picture, video or sound that cannot be used.
            ContextLengthError: the prompt does not fit the context.
        """
        if self._speech is not None and audio is not None:
            _refuse(images=images, videos=videos)
            return self._speech.complete(prompt, audio, sampling)
        reading = TextReading()
        return reading.completion(
            self._submit(self._prompt(prompt, images, audio, videos), sampling, reading).wait()
        )

    def generate_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        progress: Callable[[int, int], object] | bool | None = None,
        **sampling: Unpack[Sampling],
    ) -> list[Completion]:
        """Completes the prompts together; the answers come in their order.

        Args:
            prompts: As `generate` takes them.
            progress: Told how many are done, and how many there are, whenever one is. Where nothing is
                said, a progress bar shows on a terminal, behind the first second; `False` shows none.
            **sampling: How tokens are drawn: see `alloyforge.Sampling`.

        Raises:
            InvalidRequestError: a parameter, or any of the prompts, is wrong; then none is completed.
        """
        if isinstance(prompts, str):
            raise invalid("prompts", "must be a list of prompts, found one text")
        return run_batch(self._core, list(prompts), sampling, progress)

    def stream(
        self,
        prompt: Prompt,
        *,
        images: object = None,
        audio: object = None,
        videos: object = None,
        **sampling: Unpack[Sampling],
    ) -> Stream[Completion]:
        """As `generate`, giving the answer while it is written."""
        given = self._prompt(prompt, images, audio, videos)
        reading = TextReading()
        return Stream(self._submit(given, sampling, reading, stream=True), reading)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice = "auto",
        template: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> ChatCompletion:
        """Answers a conversation.

        Args:
            messages: OpenAI's dictionaries. Content may be parts: `text`, `image_url` and `video_url`
                with a `data:` address, and `image` and `video` with what `generate` takes.
            tools: Functions that the model may ask to have called.
            tool_choice: `auto`, `none` (the model is not told of them), `required`, or
                `{"type": "function", "function": {"name": …}}`. The latter two make the answer one call, as
                the model writes calls, whose arguments keep to the function's `parameters`.
            template: A chat template in place of the model's own.
            **sampling: How tokens are drawn: see `alloyforge.Sampling`.

        Raises:
            InvalidRequestError: a message or parameter is wrong, the template fails, or the model
                has none.
            ContextLengthError: the conversation does not fit the context.
        """
        prompt, reading = self._chat(messages, tools, tool_choice, template)
        return reading.completion(self._submit(prompt, sampling, reading).wait())

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice = "auto",
        template: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> Stream[ChatCompletion]:
        """As `chat`, giving the answer while it is written."""
        prompt, reading = self._chat(messages, tools, tool_choice, template)
        return Stream(self._submit(prompt, sampling, reading, stream=True), reading)

    def conversation(self, system: str | None = None, *, template: str | None = None) -> Conversation:
        """A chat that remembers what was said and keeps what was computed of it between turns.

        Args:
            system: What the model is told before everything else.
            template: A chat template in place of the model's own.

        Raises:
            InvalidRequestError: the model has no chat template.
        """
        core = self._core
        if template is None and self._template is None:
            raise invalid("template", "the model has no chat template")
        return Conversation(self, core.conversation(), system, template)

    async def agenerate(
        self,
        prompt: Prompt,
        *,
        images: object = None,
        audio: object = None,
        videos: object = None,
        **sampling: Unpack[Sampling],
    ) -> Completion:
        """As `generate`, on asyncio. Cancelling the task cancels the request."""
        given = await self._aprompt(prompt, images, audio, videos)
        return await self._asubmit(given, sampling, TextReading()).wait()

    def astream(
        self,
        prompt: Prompt,
        *,
        images: object = None,
        audio: object = None,
        videos: object = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncStream[Completion]:
        """As `stream`, on asyncio."""
        given = self._prompt(prompt, images, audio, videos)
        return self._asubmit(given, sampling, TextReading(), stream=True)

    async def achat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice = "auto",
        template: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> ChatCompletion:
        """As `chat`, on asyncio. Cancelling the task cancels the request."""
        prompt, reading = self._chat(messages, tools, tool_choice, template)
        return await self._asubmit(prompt, sampling, reading).wait()

    def astream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice = "auto",
        template: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncStream[ChatCompletion]:
        """As `stream_chat`, on asyncio."""
        prompt, reading = self._chat(messages, tools, tool_choice, template)
        return self._asubmit(prompt, sampling, reading, stream=True)

    def logits(
        self, prompt: Prompt, *, images: object = None, audio: object = None, videos: object = None
    ) -> npt.NDArray[np.float32]:
        """The logits behind every token of `prompt`, before any sampling change.

        Their shape is `(n_tokens, vocab)`.

        Raises:
            ContextLengthError: the prompt does not fit the context.
        """
        if self._speech is not None and audio is not None:
            _refuse(images=images, videos=videos)
            return self._speech.logits(prompt, audio)
        return self._core.logits(self._prompt(prompt, images, audio, videos))

    def embed(self, texts: str | Sequence[str], *, normalize: bool = True) -> npt.NDArray[np.float32]:
        """The embeddings of texts, pooled as the model's own files say.

        BERT and its kin, the text towers of CLIP and SigLIP, and decoders whose files say how they pool
        (Qwen3-Embedding): sentence-transformers' `modules.json`, or a GGUF file's `pooling_type`. What a
        model wants before a query is the caller's to write. A text longer than the model takes is
        cut. Models whose own answer has unit length give that either way.

        Args:
            texts: One text or several.
            normalize: Whether each embedding is brought to unit length.

        Returns:
            float32 of shape `(n, dim)`.

        Raises:
            InvalidRequestError: the model embeds no texts.
        """
        return self._core.embed([texts] if isinstance(texts, str) else list(texts), normalize=normalize)

    def rerank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> list[Ranked]:
        """The documents, those that answer the query best first.

        Cross-encoders: BERT and its kin with a head of one label. Of equal scores the earlier document
        comes first; a document longer than the model takes is cut.

        Args:
            query: What is asked.
            documents: The texts to choose from.
            top_n: How many to give; all of them where nothing is said.

        Raises:
            InvalidRequestError: the model scores no pairs of texts, or `top_n` is below 1.
            ContextLengthError: the query leaves no room for a document.
        """
        if top_n is not None and top_n < 1:
            raise invalid("top_n", f"must be at least 1, not {top_n}")
        given = list(documents)
        scores = self._core.rerank(query, given)
        order = sorted(range(len(given)), key=lambda i: -scores[i])
        return [Ranked(i, scores[i], given[i]) for i in order[:top_n]]

    def embed_images(self, images: object, *, normalize: bool = True) -> npt.NDArray[np.float32]:
        """The embeddings of pictures: CLIP, SigLIP, DINOv2, ViT without a head.

        Args:
            images: One picture or several, each a path, bytes, a Pillow image or a uint8 array
                `(h, w, 3)`.
            normalize: Whether each embedding is brought to unit length.

        Returns:
            float32 of shape `(n, dim)`.

        Raises:
            InvalidRequestError: the model embeds no pictures.
            MediaError: a picture that cannot be used.
        """
        return self._core.embed_images(self._preparer.items(images), normalize=normalize)

    def classify(self, images: object, labels: Sequence[str] | None = None) -> list[list[Label]]:
        """What pictures show, for each the labels with their scores, best first.

        Args:
            images: One picture or several, as in `embed_images`.
            labels: Texts to choose from, for a model that compares pictures with texts (CLIP, SigLIP);
                a model with a head (ViT) has labels of its own.

        Raises:
            InvalidRequestError: a model without labels of its own was given none, or one with was.
            MediaError: a picture that cannot be used.
        """
        given = None if labels is None else list(labels)
        found = self._core.classify(self._preparer.items(images), given)
        return [[Label(*pair) for pair in scores] for scores in found]

    def score(self, text_or_tokens: Prompt) -> Score:
        """How probable the model finds a text.

        Raises:
            InvalidRequestError: fewer than two tokens.
            ContextLengthError: the text does not fit the context.
        """
        return self._core.score(text_or_tokens)

    def tokenize(self, text: str, *, special: bool = True, add_bos: bool | None = None) -> list[int]:
        """The token ids of `text`.

        Args:
            text: The text.
            special: Whether special tokens written in it become their ids, or stay ordinary text.
            add_bos: Whether the BOS token is put in front; as the model wants it where nothing is
                said, and never a second one.
        """
        if self._speech is not None:
            return self._speech.native.tokenize(text, special=special)
        return self._core.tokenize(text, special=special, add_bos=add_bos)

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of token ids. A BOS token in front, which `tokenize` puts there, gives none.

        Args:
            tokens: The token ids.
            skip_special: Whether other special tokens give no text either.

        Raises:
            InvalidRequestError: an id outside the vocabulary.
        """
        model = self._core if self._speech is None else self._speech.native
        return model.detokenize(tokens, skip_special=skip_special)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        *,
        template: str | None = None,
    ) -> str:
        """The prompt text that `chat` would send.

        Raises:
            InvalidRequestError: a message is wrong, the template fails, or the model has none.
        """
        return self._core.render(checked_messages(messages, Media()), checked_tools(tools, None), template)

    @property
    def info(self) -> SessionInfo:
        """What is loaded, and where."""
        return self._core.info() if self._speech is None else self._speech.native.info()

    def stats(self) -> SessionStats:
        """What the session is doing, and what it did so far."""
        return self._core.stats()

    def close(self) -> None:
        """Ends all requests and frees the memory now; calls after it raise `SessionClosedError`."""
        if self._speech is not None:
            self._speech.native.close()
        else:
            self._core.close()

    def __repr__(self) -> str:
        info = self.info
        return f"<alloyforge.Session {info.architecture} on {info.device}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def transcribe(
        self,
        audio: Audio,
        *,
        language: str | None = None,
        task: Literal["transcribe", "translate"] = "transcribe",
        timestamps: bool | Literal["segment", "word"] = False,
        temperature: float | Sequence[float] | None = None,
        vad: bool | str | os.PathLike[str] = False,
        progress: Callable[[float], None] | None = None,
        **options: Any,
    ) -> Transcription:
        """Writes down what is said.

        The decoding is OpenAI's: windows of 30 seconds, each told the text before it, decoded again at
        higher temperatures where the text repeats itself or is improbable, passed over where nobody
        speaks.

        Args:
            audio: A path, a file's bytes, or `(samples, rate)`. WAV and FLAC are read as they are,
                everything else takes the extra `media`.
            language: A code such as `de`, or a name such as `german`; found from the first window where
                nothing is said.
            task: `translate` writes English whatever is spoken.
            timestamps: Segments have their times in any case; `True` or `"word"` gives them to each
                word too.
            temperature: One, or several that are tried in turn; 0 to 1 in steps of 0.2 where nothing is
                said.
            vad: Whether only what Silero's network finds to be speech is heard; or the path of that
                network's safetensors.
            progress: Told the share that is done, from 0 to 1.
            **options: `beam_size` (1), `best_of` (5), `patience` (1), `initial_prompt`,
                `condition_on_previous_text` (True), `compression_ratio_threshold` (2.4),
                `logprob_threshold` (-1), `no_speech_threshold` (0.6), `suppress_tokens` (the model's),
                `suppress_blank` (True), `max_initial_timestamp` (1 s), `max_tokens` (a window's),
                `seed` (0), `vad_threshold` (0.5), `vad_min_silence` (2 s), `vad_pad` (0.4 s), and
                `batch_size` (1): windows that are decoded together, for which the sound is cut where it
                is quiet, and no window is told what came before its cut.

        Raises:
            InvalidRequestError: an option is out of range, or the model is not one that transcribes.
            MediaError: the sound cannot be used.
        """
        stream = self._transcription(audio, language, task, timestamps, temperature, vad, progress, options)
        return stream.wait()

    def stream_transcribe(
        self,
        audio: Audio,
        *,
        language: str | None = None,
        task: Literal["transcribe", "translate"] = "transcribe",
        timestamps: bool | Literal["segment", "word"] = False,
        temperature: float | Sequence[float] | None = None,
        vad: bool | str | os.PathLike[str] = False,
        progress: Callable[[float], None] | None = None,
        **options: Any,
    ) -> TranscriptionStream:
        """As `transcribe`, giving each segment as soon as it is found."""
        return self._transcription(audio, language, task, timestamps, temperature, vad, progress, options)

    def _transcription(
        self,
        audio: object,
        language: str | None,
        task: str,
        timestamps: bool | str,
        temperature: object,
        vad: bool | str | os.PathLike[str],
        progress: Callable[[float], None] | None,
        options: Mapping[str, Any],
    ) -> TranscriptionStream:
        if self._speech is None:
            raise invalid("transcribe", "this is a text model, which hears nothing: use `generate` or `chat`")
        return self._speech.start(audio, language, task, timestamps, temperature, vad, progress, options)

    @property
    def _core(self) -> _native.Session:
        """The text model; a speech model has none."""
        if self._text is None:
            refuse_text("prompt")
        return self._text

    @cached_property
    def _preparer(self) -> Preparer:
        return Preparer(self._core)

    def _chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        tool_choice: ToolChoice,
        template: str | None,
    ) -> tuple[_native.Prompt, ChatReading]:
        offered = checked_tools(tools, tool_choice)
        called = forced(offered, tool_choice)
        media = Media()
        checked = checked_messages(messages, media)
        items = self._preparer.items(**media.lists())
        prompt = self._core.chat_prompt(checked, offered, template, items)
        source = template or self._template or ""
        dialect = dialect_of(source)
        reader = dialect.reader
        grammar = dialect.call(self._mark, source, prompt.text, called) if called else None
        return prompt, ChatReading(
            lambda: reader(prompt.text, offered or ()), dialect.has_special_text, grammar
        )

    def _mark(self, text: str) -> str:
        """A mark of a chat template in a grammar."""
        tokens = self._core.tokenize(text, special=True, add_bos=False)
        return f"<[{tokens[0]}]>" if len(tokens) == 1 else json.dumps(text)

    def _prompt(
        self, prompt: Prompt, images: object, audio: object, videos: object
    ) -> Prompt | _native.Prompt:
        if images is None and audio is None and videos is None:
            return prompt
        return self._core.media_prompt(prompt, self._preparer.items(images, audio, videos))

    async def _aprompt(
        self, prompt: Prompt, images: object, audio: object, videos: object
    ) -> Prompt | _native.Prompt:
        """As `_prompt`; pictures are decoded on a thread, so that the event loop goes on."""
        if images is None and audio is None and videos is None:
            return prompt
        return await asyncio.to_thread(self._prompt, prompt, images, audio, videos)

    def _submit(
        self,
        prompt: Prompt | _native.Prompt,
        sampling: Mapping[str, Any],
        reading: Reading[Any],
        *,
        stream: bool = False,
        conversation: _native.Conversation | None = None,
    ) -> _native.Request:
        return self._core.submit(
            prompt,
            reading.prepare(sampling),
            stream=stream,
            special_text=reading.has_special_text,
            conversation=conversation,
        )

    def _asubmit(
        self,
        prompt: Prompt | _native.Prompt,
        sampling: Mapping[str, Any],
        reading: Reading[C],
        *,
        stream: bool = False,
        conversation: _native.Conversation | None = None,
    ) -> AsyncStream[C]:
        post = delivery()
        tag = post.new_tag()
        request = self._core.submit(
            prompt,
            reading.prepare(sampling),
            stream=stream,
            bell=post.bell,
            tag=tag,
            special_text=reading.has_special_text,
            conversation=conversation,
        )
        answer = AsyncStream(request, reading)
        post.watch(tag, answer)
        return answer


def _refuse(**later: object) -> None:
    """Refuses what the interface names and a speech model cannot do."""
    for name, value in later.items():
        if value is not None:
            raise not_supported(name)

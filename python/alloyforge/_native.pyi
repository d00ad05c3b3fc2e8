"""The core of AlloyForge, as its Python module shows it."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Unpack

from alloyforge.processors.common import Item
from alloyforge.results import (
    Chunk,
    Completion,
    DeviceInfo,
    Inspection,
    Quantized,
    Score,
    SessionInfo,
    SessionStats,
    TranscriptSegment,
)
from alloyforge.results import (
    Transcription as Transcript,
)
from alloyforge.sampling import Sampling

__all__ = [
    "Bell",
    "ChatTemplate",
    "Conversation",
    "Prompt",
    "Request",
    "Session",
    "Speech",
    "Tokenizer",
    "Transcription",
    "VoiceActivity",
    "__version__",
    "decode_flac",
    "dequantize",
    "device_faults",
    "devices",
    "error_samples",
    "features",
    "inspect",
    "is_speech",
    "log_mel",
    "probabilities",
    "quantize",
    "quantize_model",
    "resample",
    "seek_cuda_libraries",
]

__version__: str
features: tuple[str, ...]

@final
class Bell:
    """A socket that becomes readable when requests have news."""

    def __new__(cls) -> Bell: ...
    def fileno(self) -> int:
        """The file descriptor that becomes readable."""

    def answer(self) -> list[int]:
        """Silences the bell; gives the tags of the requests that have news."""

@final
class ChatTemplate:
    """A chat template, as models carry it: jinja2 as transformers sets it up, with bounds.

    Raises:
        InvalidRequestError: the source is no template.
    """

    def __new__(cls, source: str) -> ChatTemplate: ...
    def render(
        self,
        context: Mapping[str, Any] | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        now: str | None = None,
    ) -> str:
        """Renders the template.

        Args:
            context: Variables.
            messages: The variable of that name.
            tools: The variable of that name.
            add_generation_prompt: The variable of that name, where `context` has none.
            now: An ISO time for templates that ask the clock; the system's local time where nothing is said.

        Raises:
            InvalidRequestError: the template fails, or uses more time or memory than it may.
        """

@final
class Conversation:
    """A mark that keeps the blocks of a chat. Dropping it lets them go."""

    def fork(self) -> Conversation:
        """A second one that keeps the same blocks."""

    def save(self, path: str, text: str) -> None:
        """Writes the blocks to a file, with a text."""

    def restore(self, path: str) -> str:
        """Takes the blocks from a file; gives the text."""

@final
class Prompt:
    """A prompt that is put together: a chat's, in which the messages' text is literal, or one with media."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> list[int]: ...

@final
class Request:
    """A request that is under way. Dropping it cancels it."""

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""

    @property
    def is_over(self) -> bool:
        """Whether the completion, or the failure, has been taken."""

    def cancel(self) -> None:
        """Ends the request; what was written so far comes as its completion."""

    def next(self) -> Chunk | Completion | None:
        """The next chunk, or the completion; `None` when that has been taken. Waits for it."""

    def poll(self) -> Chunk | Completion | None:
        """As `next`, without waiting: `None` also where there is nothing yet."""

    def wait(self) -> Completion:
        """The completion, passing over chunks."""

@final
class Session:
    """A loaded model."""

    def __new__(
        cls,
        path: str,
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
        projector: str | None = None,
        draft: str | os.PathLike[str] | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> Session: ...
    def submit(
        self,
        prompt: str | Sequence[int] | Prompt,
        sampling: Mapping[str, Any],
        *,
        stream: bool = False,
        bell: Bell | None = None,
        tag: int = 0,
        special_text: bool = False,
        conversation: Conversation | None = None,
    ) -> Request:
        """Puts a request in line; `bell` is rung with `tag` when it has news.

        With `special_text`, special tokens give the answer their text, but those that end it.
        """

    def conversation(self) -> Conversation:
        """A mark that keeps the blocks of the requests that name it."""

    def chat_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        template: str | None,
        media: Sequence[Item] | None = None,
    ) -> Prompt:
        """The prompt of a chat, with prepared media in it."""

    def media_prompt(self, prompt: str | Sequence[int], media: Sequence[Item]) -> Prompt:
        """A prompt with prepared media in the places of its placeholders."""

    def embed(self, texts: Sequence[str], *, normalize: bool = True) -> npt.NDArray[np.float32]:
        """The embeddings of texts, of shape `(n, dim)`."""

    def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        """How well each document answers a query, in the documents' order."""

    def embed_images(self, items: Sequence[Item], *, normalize: bool = True) -> npt.NDArray[np.float32]:
        """The embeddings of prepared pictures, of shape `(n, dim)`."""

    def classify(
        self, items: Sequence[Item], labels: Sequence[str] | None = None
    ) -> list[list[tuple[str, float]]]:
        """For each prepared picture its labels with their scores, best first."""

    def processor(self) -> str:
        """Which processor prepares the model's media, and how, as JSON; `null` where it takes none."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        template: str | None,
    ) -> str:
        """The text of a chat's prompt."""

    def logits(self, prompt: str | Sequence[int] | Prompt) -> npt.NDArray[np.float32]:
        """Logits of shape `(n_tokens, vocab)`."""

    def score(self, prompt: str | Sequence[int]) -> Score:
        """How probable a text is."""

    def tokenize(self, text: str, *, special: bool = True, add_bos: bool | None = None) -> list[int]:
        """Text to token ids."""

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """Token ids to text."""

    def info(self) -> SessionInfo:
        """What is loaded."""

    def stats(self) -> SessionStats:
        """Counts."""

    def close(self) -> None:
        """Ends all requests and frees the memory."""

@final
class Tokenizer:
    """A model's tokenizer, from a GGUF file (one without tensors too), a folder, or a `tokenizer.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFormatError: the file is damaged.
        UnsupportedModelError: a kind of vocabulary that is not known.
    """

    def __new__(cls, path: str | os.PathLike[str]) -> Tokenizer: ...
    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""

    def encode(self, text: str, *, special: bool = True, add_bos: bool | None = None) -> list[int]:
        """The token ids of `text`.

        Args:
            text: The text.
            special: Whether special tokens written in it become their ids, or stay ordinary text.
            add_bos: Whether the BOS token is put in front; as the model wants it where nothing is
                said, and never a second one.
        """

    def decode(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of token ids. A BOS token in front, which `encode` puts there, gives none.

        Args:
            tokens: The token ids.
            skip_special: Whether other special tokens give no text either.

        Raises:
            InvalidRequestError: an id outside the vocabulary.
        """

def dequantize(data: bytes, type: str) -> npt.NDArray[np.float32]:
    """The numbers that `data`, blocks of `type` (`q4_k`, say), mean.

    Raises:
        InvalidRequestError: a type that is not known, or bytes that are no whole blocks.
    """

@final
class Speech:
    """A loaded speech model. For the arguments see `alloyforge.Session`.

    Raises:
        ModelFormatError: the file is damaged.
        UnsupportedModelError: the file is sound, but of a kind that is not known.
    """

    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        backend: str = "auto",
        dtype: str = "auto",
        quantize: str | None = None,
        kv_dtype: str = "auto",
        kv_memory: int | None = None,
        threads: int | None = None,
        max_batch: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Speech: ...
    def transcribe(
        self,
        samples: npt.NDArray[np.float32],
        options: dict[str, Any],
        *,
        vad: VoiceActivity | None = None,
    ) -> Transcription:
        """Begins to transcribe mono samples at 16 kHz."""

    def logits(self, samples: npt.NDArray[np.float32], tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits of shape `(n_tokens, vocab)` over the first window of the samples."""

    def complete(
        self,
        samples: npt.NDArray[np.float32],
        tokens: Sequence[int],
        *,
        max_tokens: int = 224,
        temperature: float = 0.0,
        seed: int = 0,
        ignore_eos: bool = False,
    ) -> tuple[list[int], str, bool]:
        """Writes on behind `tokens`: tokens, text, and whether the end was written."""

    def languages(self) -> list[str]:
        """The codes of the languages that the model knows."""

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Text to token ids."""

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """Token ids to text."""

    def info(self) -> SessionInfo:
        """What is loaded."""

    def close(self) -> None:
        """Frees the memory."""

@final
class Transcription:
    """A transcription on its way."""

    def next(self) -> tuple[str, float] | TranscriptSegment | float | Transcript | None:
        """The language, segments, shares that are done, at last the transcript; `None` behind it."""

    def cancel(self) -> None:
        """Ends it behind the window at hand."""

@final
class VoiceActivity:
    """Silero's network for voice activity, from its safetensors for 16 kHz."""

    def __new__(cls, path: str | os.PathLike[str], *, threads: int | None = None) -> VoiceActivity: ...
    def probabilities(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """How probable speech is in each 512 samples."""

    def speech(
        self,
        samples: npt.NDArray[np.float32],
        *,
        threshold: float = 0.5,
        min_silence: float = 2.0,
        min_speech: float = 0.0,
        pad: float = 0.4,
    ) -> list[tuple[int, int]]:
        """Stretches of speech, in samples."""

def decode_flac(data: bytes, max_samples: int) -> tuple[npt.NDArray[np.float32], int]:
    """FLAC as one channel, the mean of all: samples, and how many a second.

    Raises:
        MediaError: it is damaged or longer.
    """

def is_speech(path: str | os.PathLike[str]) -> bool:
    """Whether the model at `path` is one that transcribes."""

def log_mel(
    samples: npt.NDArray[np.float32],
    *,
    num_mels: int = 80,
    padded_len: int | None = None,
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """Whisper's log-mel spectrum of mono samples at 16 kHz, of shape `(num_mels, frames)`.

    Args:
        samples: From -1 to 1.
        num_mels: 80, or 128 for the newest models.
        padded_len: Samples that silence fills up to; 480000 is a window.
        threads: Threads that compute.
    """

def resample(samples: npt.NDArray[np.float32], from_rate: int, to_rate: int) -> npt.NDArray[np.float32]:
    """Samples at another rate, as long as they last.

    Raises:
        MediaError: a rate below 1 or above 768 kHz.
    """

def device_faults() -> dict[str, str]:
    """What keeps the accelerators that this build is for from being used, by their kind."""

def devices() -> list[DeviceInfo]:
    """The devices that this build can use on this machine."""

def error_samples() -> list[Exception]:
    """One error of every kind that the core knows, as the exception that it raises."""

def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Describes a model file or folder; one that AlloyForge cannot run too.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFormatError: the file is damaged.
    """

def probabilities(
    logits: npt.ArrayLike, *, tokens: Sequence[int] = (), **sampling: Unpack[Sampling]
) -> npt.NDArray[np.float32]:
    """The distribution that a draw would be made from, of the shape of `logits`.

    Args:
        logits: One a token.
        tokens: What was drawn before, which penalties look at.
        **sampling: See `alloyforge.Sampling`.

    Raises:
        InvalidRequestError: a parameter out of range.
    """

def quantize(array: npt.ArrayLike, type: str) -> bytes:
    """`array` in blocks of `type`, bit for bit as ggml's own tools write them.

    Args:
        array: Numbers; the last axis is a row, a multiple of the type's block.
        type: `q4_k`, say.

    Raises:
        InvalidRequestError: a type that is not known or can only be read, or rows of another length.
    """

def seek_cuda_libraries(folders: list[str]) -> None:
    """Says in which folders to look first for the CUDA libraries."""

def quantize_model(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    type: str,
    threads: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> Quantized:
    """Writes the model at `source` to one GGUF file at `target`, its matrices in the types of a mix.

    The file appears under its name when it is whole, in the place of one that was there.

    Args:
        source: A GGUF file, or the first shard of one.
        target: The file to write, which must not be one of the source's.
        type: llama.cpp's names in any case: `q8_0`, `q4_k_m`, `f16`; `int8` and `int4` are names for
            `q8_0` and `q4_k_m`.
        threads: Threads that convert; the physical cores where nothing is said.
        progress: Told how much is done, from 0 to 1.

    Raises:
        FileNotFoundError: there is no source.
        InvalidRequestError: a type that is not known or can only be read, or a target that is the source.
        ModelFormatError: the source is damaged or holds numbers that are not finite.
        UnsupportedModelError: the source is of another kind, a folder too.
    """

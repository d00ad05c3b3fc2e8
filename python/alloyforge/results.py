"""What a session returns: plain, frozen data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token and its natural log probability, before any sampling change."""

    token: int
    logprob: float
    top: list[Logprob] = field(default_factory=list)
    """The most probable tokens at its place, best first; their own `top` is empty."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request took."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that were found in the prefix cache."""
    completion_tokens: int
    drafted_tokens: int = 0
    """Tokens that were guessed and computed beside those before them, with `draft=`."""
    accepted_tokens: int = 0
    """Those of them that turned out right: so many steps were saved."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds."""

    queue: float
    """From the call until its first step began."""
    prefill: float
    """From its first step until the prompt was read."""
    decode: float
    """From the first token to the last."""
    first_token: float
    """From the call until the first token."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer: whole characters, as soon as they are certain."""

    text: str
    tokens: list[int] = field(default_factory=list)
    """The tokens that were drawn since the chunk before, which `text` may lag behind."""
    logprobs: list[Logprob] | None = None
    """Where asked for, one a token."""
    index: int = 0
    """Which of `n` choices."""
    reasoning: str = ""
    """In a chat, what the model thinks before it answers; it is no part of `text`."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Completion:
    """A finished answer. `str()` of it is its text."""

    text: str
    tokens: list[int]
    """What was drawn, without the token that ended it."""
    logprobs: list[Logprob] | None
    """Where asked for, one a token."""
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    others: list[Completion] = field(default_factory=list, repr=False)
    """With `n > 1`, the choices after this one."""
    parse: Callable[[str], Any] | None = field(default=None, repr=False, compare=False)
    """With `schema=`, what makes `parsed` of the text."""

    @cached_property
    def parsed(self) -> Any:
        """With `schema=`, the object that the answer is: of a pydantic model where that was the schema.

        `None` without a schema, and where the answer was cut off before its end.

        Raises:
            ValueError: a stop text cut the answer, or a validator of a pydantic model refuses it.
        """
        if self.parse is None or self.finish_reason != "stop":
            return None
        return self.parse(self.text)

    @property
    def choices(self) -> list[Completion]:
        """All `n` choices, this one first."""
        return [self, *self.others]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class ChatCompletion(Completion):
    """A finished chat answer; `text` is what the model says to the user."""

    reasoning: str | None = None
    """What the model thought before it answered, where its template marks that."""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """The calls it asks for, as OpenAI's dictionaries."""

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, to be appended to the conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning is not None:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        return message


@dataclass(frozen=True, eq=False)
class Score:
    """How probable a text is to the model."""

    tokens: list[int]
    logprobs: npt.NDArray[np.float32]
    """Natural log probabilities of all tokens but the first, of shape `(n_tokens - 1,)`."""
    perplexity: float
    """`exp(-mean(logprobs))`."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a picture may show, and how sure the model is of it."""

    label: str
    score: float
    """From 0 to 1. Of a model that compares pictures with texts by a sigmoid (SigLIP) the scores of one
    picture do not add up to 1."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document, and how well it answers a query."""

    index: int
    """Its place among the documents that were given."""
    score: float
    """Higher is better: from 0 to 1 unless the model's own files say that its scores are unbounded."""
    document: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that a session holds, in bytes."""

    weights: int
    kv: int
    """The KV cache."""
    workspace: int
    """Buffers between the phases of a step."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv + self.workspace


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a session has loaded, and where."""

    architecture: str
    parameters: int
    file_type: str
    """The format that most weights are stored in."""
    vocab_size: int
    context_len: int
    """The most tokens that one sequence may hold."""
    device: str
    threads: int
    chat_template: str | None
    kv_dtype: str
    """What the KV cache is kept in."""
    kv_bytes_per_token: int
    memory: Memory


@dataclass(frozen=True, slots=True)
class SessionStats:
    """What a session is doing, and what it did since it was opened."""

    running: int
    """Requests that take part in steps."""
    waiting: int
    """Requests in the queue."""
    kv_blocks_used: int
    """Blocks of the KV cache that live requests hold."""
    kv_blocks_total: int
    prefix_hit_tokens: int
    """Prompt tokens that were found in the prefix cache."""
    preemptions: int
    """Requests that gave up their blocks for others and were computed again."""
    prompt_tokens: int
    completion_tokens: int
    drafted_tokens: int = 0
    """Tokens that were guessed and computed beside those before them, with `draft=`."""
    accepted_tokens: int = 0
    """Those of them that turned out right."""
    steps: int = 0
    """Steps computed, each for all requests that took part."""
    busy_seconds: float = 0.0
    """How long the engine was at work on steps."""
    model_seconds: float = 0.0
    """Which of it the model took; the rest is scheduling, drawing and delivery."""


@dataclass(frozen=True, slots=True)
class TranscriptWord:
    """A word of a transcript, its times in seconds."""

    text: str
    """With the space before it."""
    start: float
    end: float
    probability: float
    """The mean probability of its tokens."""


@dataclass(frozen=True, slots=True)
class TranscriptSegment:
    """A piece of a transcript, its times in seconds."""

    id: int
    start: float
    end: float
    text: str
    tokens: list[int]
    """Timestamps among them."""
    temperature: float
    """The temperature that its window was decoded at."""
    avg_logprob: float
    """The mean log probability of a token of its window."""
    compression_ratio: float
    """How many times smaller its window's text becomes when it is compressed."""
    no_speech_prob: float
    """How probable it is that nobody speaks in its window."""
    words: list[TranscriptWord] = field(default_factory=list)
    """Where asked for."""


@dataclass(frozen=True)
class Transcription:
    """A finished transcript. `str()` of it is its text."""

    text: str
    language: str
    """The language's code, given or found."""
    segments: list[TranscriptSegment]
    duration: float
    """Seconds of sound."""
    language_probability: float = 1.0
    """1 where the language was given."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device that a session can run on."""

    name: str
    """What `device=` takes."""
    kind: str
    """`cpu`, `cuda` or `metal`."""
    product: str | None
    """What its maker calls it."""
    memory: int | None
    """Bytes, where they are known."""
    capability: str | None
    """The CUDA compute capability."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor in a model file."""

    name: str
    type: str
    shape: tuple[int, ...]
    """Outermost dimension first."""
    bytes: int


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The decoder that a model file describes."""

    architecture: str
    parameters: int
    file_type: str
    """The format that most weights are stored in."""
    num_layers: int
    hidden_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ff_dim: int
    """Width of a layer's MLP, or of one of its experts."""
    num_experts: int
    num_experts_per_token: int
    vocab_size: int
    context_len: int
    """The most tokens that it was made for."""
    window: int | None
    """Tokens that windowed layers see."""
    num_windowed_layers: int
    has_tied_head: bool
    """Whether the head is the embedding matrix."""
    kv_bytes_per_token: int
    """Bytes that one token takes in a KV cache of f16."""

    @property
    def kv_bytes(self) -> int:
        """Bytes that one sequence as long as the context takes in a KV cache of f16."""
        return self.kv_bytes_per_token * self.context_len


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model file or folder, described."""

    format: Literal["gguf", "safetensors"]
    files: list[str]
    metadata: dict[str, str]
    """The file's keys or the folder's configuration, long values shortened."""
    tensors: list[TensorInfo]
    tensor_bytes: int
    chat_template: str | None
    model: ModelSummary | None
    """The decoder; `None` where AlloyForge cannot run it."""
    fault: str | None
    """Why it cannot."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What `quantize_model` has written."""

    file_type: str
    """The mix, by its own name."""
    tensors: int
    """Tensors in the file."""
    converted: int
    """Those whose type is another than before."""
    requantized: int
    """Those of them that a block type had rounded before."""
    fallbacks: int
    """Those whose rows are no whole blocks of the type that the mix has for them."""
    bytes_before: int
    """Bytes of all tensors before."""
    bytes: int
    """Bytes of all tensors in the file."""

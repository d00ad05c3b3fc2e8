"""AlloyForge: language models, from a file to a streamed answer.

import alloyforge as af

with af.Session("smollm2-135m") as session:
    for chunk in session.stream_chat([{"role": "user", "content": "What is gravity?"}]):
        print(chunk.text, end="", flush=True)
"""

from __future__ import annotations

from alloyforge import _native
from alloyforge._native import (
    ChatTemplate,
    Tokenizer,
    __version__,
    dequantize,
    devices,
    inspect,
    probabilities,
    quantize,
    quantize_model,
)
from alloyforge.aio import AsyncStream
from alloyforge.conversation import Conversation
from alloyforge.cuda import library_folders
from alloyforge.errors import (
    AlloyForgeError,
    ContextLengthError,
    DeviceError,
    DownloadError,
    InternalError,
    InvalidRequestError,
    MediaError,
    MissingDependencyError,
    ModelFormatError,
    OutOfMemoryError,
    QueueFullError,
    RequestTimeout,
    SessionClosedError,
    UnsupportedModelError,
)
from alloyforge.media import Video, load_audio
from alloyforge.models import find_model
from alloyforge.results import (
    ChatCompletion,
    Chunk,
    Completion,
    DeviceInfo,
    Label,
    Logprob,
    Memory,
    Quantized,
    Ranked,
    Score,
    SessionInfo,
    SessionStats,
    Timings,
    Transcription,
    TranscriptSegment,
    TranscriptWord,
    Usage,
)
from alloyforge.sampling import Sampling
from alloyforge.session import Session
from alloyforge.speech import TranscriptionStream
from alloyforge.stream import Stream

__all__ = [
    "AlloyForgeError",
    "AsyncStream",
    "ChatCompletion",
    "ChatTemplate",
    "Chunk",
    "Completion",
    "ContextLengthError",
    "Conversation",
    "DeviceError",
    "DeviceInfo",
    "DownloadError",
    "Inspection",
    "InternalError",
    "InvalidRequestError",
    "Label",
    "Logprob",
    "MediaError",
    "Memory",
    "MissingDependencyError",
    "ModelFormatError",
    "ModelSummary",
    "OutOfMemoryError",
    "Quantized",
    "QueueFullError",
    "Ranked",
    "RequestTimeout",
    "Sampling",
    "Score",
    "Session",
    "SessionClosedError",
    "SessionInfo",
    "SessionStats",
    "Stream",
    "TensorInfo",
    "Timings",
    "Tokenizer",
    "TranscriptSegment",
    "TranscriptWord",
    "Transcription",
    "TranscriptionStream",
    "UnsupportedModelError",
    "Usage",
    "Video",
    "__version__",
    "dequantize",
    "devices",
    "find_model",
    "inspect",
    "load_audio",
    "probabilities",
    "quantize",
    "quantize_model",
]

if "cuda" in _native.features:
    _native.seek_cuda_libraries(library_folders())

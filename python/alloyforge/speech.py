"""What a session on a speech model does: options, the stream of segments, files of subtitles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from alloyforge import _native
from alloyforge.errors import invalid
from alloyforge.media import load_audio
from alloyforge.models import find_model
from alloyforge.results import Completion, Timings, Transcription, TranscriptSegment, Usage

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Self

VAD_MODEL = "silero-vad"
"""The catalogue's name for the network that finds voices."""

_PLAIN = frozenset(
    (
        "beam_size",
        "best_of",
        "patience",
        "initial_prompt",
        "condition_on_previous_text",
        "compression_ratio_threshold",
        "logprob_threshold",
        "no_speech_threshold",
        "suppress_tokens",
        "suppress_blank",
        "max_initial_timestamp",
        "batch_size",
        "max_tokens",
        "seed",
        "vad_threshold",
        "vad_min_silence",
        "vad_pad",
    )
)


class TranscriptionStream:
    """Segments as they are found. Iterate over it; `transcription` is there once it is over."""

    def __init__(self, native: _native.Transcription, progress: Callable[[float], None] | None) -> None:
        self._native = native
        self._progress = progress
        self.language: str | None = None
        """The language's code, known before the first segment."""
        self.language_probability: float | None = None
        """How probable that language is; 1 where it was given."""
        self.transcription: Transcription | None = None
        """All of it, once it is over."""

    def __iter__(self) -> Iterator[TranscriptSegment]:
        return self

    def __next__(self) -> TranscriptSegment:
        while True:
            found = self._native.next()
            if found is None:
                raise StopIteration
            if isinstance(found, TranscriptSegment):
                return found
            if isinstance(found, tuple):
                self.language, self.language_probability = found
            elif isinstance(found, Transcription):
                self.transcription = found
            elif self._progress is not None:
                self._progress(found)

    def wait(self) -> Transcription:
        """All of it, passing over what was not looked at."""
        for _ in self:
            pass
        if self.transcription is None:
            raise invalid("stream", "failed before, and has no transcription")
        return self.transcription

    def cancel(self) -> None:
        """Ends it behind the window at hand; what is there by then is its transcription."""
        self._native.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


class SpeechModel:
    """A loaded speech model behind a session."""

    def __init__(self, native: _native.Speech) -> None:
        self.native = native
        self._vad: dict[str, _native.VoiceActivity] = {}

    def start(
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
        """Begins to transcribe."""
        if task not in ("transcribe", "translate"):
            raise invalid("task", f"must be transcribe or translate, found {task!r}")
        if timestamps not in (False, True, "segment", "word"):
            raise invalid("timestamps", f"must be False, True, 'segment' or 'word', found {timestamps!r}")
        for name in options:
            if name not in _PLAIN:
                raise TypeError(f"transcribe() got an unexpected keyword argument {name!r}")
        asked: dict[str, Any] = {
            **options,
            "language": language,
            "translate": task == "translate",
            "words": timestamps in (True, "word"),
        }
        if temperature is not None:
            asked["temperature"] = _temperatures(temperature)
        network = None
        if vad:
            network = self._network(VAD_MODEL if vad is True else vad)
            asked.setdefault("vad_threshold", 0.5)
        elif any(name.startswith("vad_") for name in options):
            raise invalid("vad", "is not asked for, and its settings are given")
        samples = load_audio(audio)
        try:
            native = self.native.transcribe(samples, asked, vad=network)
        except (TypeError, OverflowError) as error:
            raise invalid("options", str(error)) from error
        return TranscriptionStream(native, progress)

    def complete(self, prompt: object, audio: object, sampling: Mapping[str, Any]) -> Completion:
        """Writes on behind a decoder's prompt."""
        tokens, samples = self.prompt(prompt), self.samples(audio)
        known = {"max_tokens", "temperature", "seed", "ignore_eos"}
        if unknown := [name for name, value in sampling.items() if name not in known and value is not None]:
            raise invalid(unknown[0], "is not supported by speech models")
        asked = {name: value for name, value in sampling.items() if value is not None}
        written, text, is_ended = self.native.complete(samples, tokens, **asked)
        return Completion(
            text=text,
            tokens=written,
            logprobs=None,
            finish_reason="stop" if is_ended else "length",
            usage=Usage(len(tokens), 0, len(written)),
            timings=Timings(0.0, 0.0, 0.0, 0.0),
        )

    def logits(self, prompt: object, audio: object) -> npt.NDArray[np.float32]:
        """The logits behind every token of a decoder's prompt."""
        return self.native.logits(self.samples(audio), self.prompt(prompt))

    def prompt(self, prompt: Any) -> list[int]:
        """The prompt's tokens."""
        if isinstance(prompt, str):
            return self.native.tokenize(prompt)
        try:
            return [int(token) for token in prompt]
        except (TypeError, ValueError) as error:
            raise invalid("prompt", "must be text or a list of token ids") from error

    def samples(self, audio: object) -> npt.NDArray[np.float32]:
        """The one sound that goes with a prompt."""
        clips = audio if isinstance(audio, list) else [audio]
        if len(clips) != 1:
            raise invalid("audio", f"must be one sound, found {len(clips)}")
        return load_audio(clips[0])

    def _network(self, name: str | os.PathLike[str]) -> _native.VoiceActivity:
        key = str(name)
        if key not in self._vad:
            self._vad[key] = _native.VoiceActivity(find_model(name))
        return self._vad[key]


def refuse_text(name: str) -> NoReturn:
    """The error for a text model's method on a speech model."""
    raise invalid(name, "this is a speech model, which does not write from text alone: use `transcribe`")


def _temperatures(given: Any) -> list[float]:
    try:
        return [float(given)] if isinstance(given, int | float) else [float(t) for t in given]
    except (TypeError, ValueError) as error:
        raise invalid("temperature", "must be a number or several") from error


def timestamp(seconds: float, *, comma: bool = False, hours: bool = True) -> str:
    """`seconds` as subtitles write it: `00:01:02.340`."""
    milliseconds = max(0, round(seconds * 1000))
    hour, rest = divmod(milliseconds, 3_600_000)
    minute, rest = divmod(rest, 60_000)
    second, milli = divmod(rest, 1000)
    front = f"{hour:02}:" if hours or hour else ""
    return f"{front}{minute:02}:{second:02}{',' if comma else '.'}{milli:03}"


def to_srt(transcription: Transcription) -> str:
    """SubRip subtitles."""
    return "".join(
        f"{i}\n{timestamp(s.start, comma=True)} --> {timestamp(s.end, comma=True)}\n{_line(s.text)}\n\n"
        for i, s in enumerate(transcription.segments, 1)
    )


def to_vtt(transcription: Transcription) -> str:
    """WebVTT subtitles."""
    cues = (
        f"{timestamp(s.start, hours=False)} --> {timestamp(s.end, hours=False)}\n{_line(s.text)}\n\n"
        for s in transcription.segments
    )
    return "WEBVTT\n\n" + "".join(cues)


def to_tsv(transcription: Transcription) -> str:
    """A table: start and end in milliseconds, text."""
    rows = (
        f"{round(s.start * 1000)}\t{round(s.end * 1000)}\t{s.text.strip()}\n".replace("\r", " ")
        for s in transcription.segments
    )
    return "start\tend\ttext\n" + "".join(rows)


def to_txt(transcription: Transcription) -> str:
    """The text alone, a line a segment."""
    return "".join(f"{s.text.strip()}\n" for s in transcription.segments)


def to_json(transcription: Transcription) -> str:
    """Everything, in the shape of OpenAI's `verbose_json`."""
    import json
    from dataclasses import asdict

    def segment(s: TranscriptSegment) -> dict[str, Any]:
        found = asdict(s)
        words = found.pop("words")
        return {**found, "words": words} if words else found

    whole = {
        "text": transcription.text,
        "language": transcription.language,
        "duration": transcription.duration,
        "segments": [segment(s) for s in transcription.segments],
    }
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


WRITERS: dict[str, Callable[[Transcription], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "json": to_json,
}
"""What a transcription is written as, by the file's ending."""


def _line(text: str) -> str:
    """A cue's text: an arrow in it would read as a time."""
    return " ".join(text.replace("-->", "->").split())

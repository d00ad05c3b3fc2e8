"""Subtitles a sound file: `python examples/subtitles.py talk.flac` writes `talk.srt` beside it."""

from __future__ import annotations

import argparse
import pathlib

import alloyforge as af
from alloyforge.speech import to_srt


def subtitle(sound: pathlib.Path, model: str, *, batch_size: int = 1) -> pathlib.Path:
    """Writes the subtitles; gives their path."""
    with (
        af.Session(model) as session,
        session.stream_transcribe(sound, batch_size=batch_size) as stream,
    ):
        for segment in stream:
            print(f"{segment.start:8.2f} {segment.text.strip()}", flush=True)
        transcription = stream.wait()
    target = sound.with_suffix(".srt")
    target.write_text(to_srt(transcription), encoding="utf-8")
    return target


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sound", type=pathlib.Path)
    parser.add_argument("--model", default="whisper-tiny.en", help="a folder or a name in the catalogue")
    parser.add_argument("--batch-size", type=int, default=1, help="windows decoded together")
    arguments = parser.parse_args()
    print(subtitle(arguments.sound, arguments.model, batch_size=arguments.batch_size))


if __name__ == "__main__":
    main()

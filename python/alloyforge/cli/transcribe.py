"""Write down what is said, as text or subtitles."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from alloyforge.cli import options
from alloyforge.errors import invalid
from alloyforge.progress import ProgressBar
from alloyforge.results import TranscriptSegment
from alloyforge.speech import WRITERS, timestamp

_OPTIONS: dict[str, dict[str, Any]] = {
    "language": {"help": "the language's code or name; found where it is not said"},
    "beam-size": {"type": int, "metavar": "N", "help": "hypotheses kept side by side"},
    "batch-size": {"type": int, "metavar": "N", "help": "windows decoded together"},
    "temperature": {"type": float, "metavar": "X", "help": "one temperature instead of the usual steps"},
    "initial-prompt": {"metavar": "TEXT", "help": "text that came before the sound"},
    "seed": {"type": int, "metavar": "N", "help": "same seed, same text"},
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    options.add_model(parser)
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="a file; several one after another")
    parser.add_argument(
        "-f",
        "--format",
        choices=(*WRITERS, "all"),
        help="what is written; txt on a terminal, or what --output ends with",
    )
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="a file, or a folder for files named after the sound"
    )
    group = parser.add_argument_group("transcription")
    for name, rest in _OPTIONS.items():
        group.add_argument(f"--{name}", **rest)
    group.add_argument("--translate", action="store_true", help="write English whatever is spoken")
    group.add_argument("--words", action="store_true", help="find the times of each word")
    group.add_argument("--vad", action="store_true", help="hear only what is found to be speech")
    options.add_loading(parser)


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    output = None if arguments.output is None else pathlib.Path(arguments.output)
    into_folder = output is not None and (output.is_dir() or len(arguments.audio) > 1)
    form = arguments.format or (output.suffix[1:] if output is not None and not into_folder else "txt")
    if form not in (*WRITERS, "all"):
        raise invalid("output", f"ends with none of {', '.join(WRITERS)}, and no --format is given")
    if form == "all" and not into_folder:
        raise invalid("format", "`all` takes a folder as --output")
    names = [name.replace("-", "_") for name in _OPTIONS]
    asked = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    task = "translate" if arguments.translate else "transcribe"
    if into_folder and output is not None:
        output.mkdir(parents=True, exist_ok=True)
    with options.open_session(arguments) as session:
        for audio in arguments.audio:
            with ProgressBar(f"transcribing {audio}", patience=0.5) as bar:
                stream = session.stream_transcribe(
                    audio,
                    task=task,  # type: ignore[arg-type] # one of the two by the line above
                    timestamps="word" if arguments.words else False,
                    vad=arguments.vad,
                    progress=bar.fraction,
                    **asked,
                )
                for segment in stream:
                    if arguments.verbose:
                        print(_shown(segment), file=sys.stderr)
            transcription = stream.wait()
            if arguments.verbose:
                print(f"{audio}: {transcription.language}", file=sys.stderr)
            for ending in WRITERS if form == "all" else (form,):
                text = WRITERS[ending](transcription)
                if output is None:
                    print(text, end="")
                else:
                    path = output / f"{pathlib.Path(audio).stem}.{ending}" if into_folder else output
                    path.write_text(text, encoding="utf-8")


def _shown(segment: TranscriptSegment) -> str:
    return f"[{timestamp(segment.start)} --> {timestamp(segment.end)}]{segment.text}"

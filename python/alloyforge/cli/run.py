"""Complete a prompt, streaming the answer."""

from __future__ import annotations

import argparse
import sys

from alloyforge.cli import options

_MAX_TOKENS = 512


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    options.add_model(parser, optional=True)
    parser.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="the text to go on from; stdin where it is - or left out. Alone and with a space in it, it "
        "needs no MODEL before it",
    )
    parser.add_argument(
        "--image", action="append", metavar="FILE", help="a picture for the prompt's next place"
    )
    parser.add_argument("--video", action="append", metavar="FILE", help="likewise a video")
    parser.add_argument("--audio", action="append", metavar="FILE", help="likewise a sound")
    options.add_sampling(parser)
    options.add_loading(parser)


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    model, prompt = arguments.model, arguments.prompt
    if prompt is None and model is not None and (model == "-" or any(c.isspace() for c in model)):
        model, prompt = None, model
    if prompt is None:
        if sys.stdin.isatty():
            arguments.usage_error("a PROMPT is needed")
        prompt = "-"
    arguments.model = model
    prompt = options.text_of(prompt)
    with options.open_session(arguments) as session:
        sampling = {"max_tokens": _MAX_TOKENS, **options.sampling(arguments)}
        media = {"images": arguments.image, "videos": arguments.video, "audio": arguments.audio}
        with session.stream(prompt, **media, **sampling) as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        print(flush=True)
        if arguments.stats or arguments.verbose:
            options.print_stats(stream.completion)

"""Print the token ids of a text."""

from __future__ import annotations

import argparse
import json

from alloyforge import _native
from alloyforge.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    options.add_model(parser)
    parser.add_argument(
        "text", nargs="?", default="-", metavar="TEXT", help="stdin where it is - or left out"
    )
    parser.add_argument("--literal", action="store_true", help="special tokens in the text are ordinary text")
    parser.add_argument(
        "--add-bos", action=argparse.BooleanOptionalAction, help="as the model wants it if left out"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a token, with its text")


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    tokenizer = _native.Tokenizer(options.locate(arguments.model))
    text = options.text_of(arguments.text)
    ids = tokenizer.encode(text, special=not arguments.literal, add_bos=arguments.add_bos)
    if arguments.json:
        for token in ids:
            print(json.dumps({"token": token, "text": tokenizer.decode([token])}))
    else:
        print(*ids)

"""Print the embeddings of texts or pictures."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

import numpy as np

from alloyforge.cli import options
from alloyforge.errors import invalid


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    options.add_model(parser)
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="a text, before the options; without any, each line of stdin"
    )
    parser.add_argument("--image", action="append", metavar="PATH", help="embed pictures; repeatable")
    parser.add_argument("--query", metavar="TEXT", help="rank the texts by how well they answer this one")
    parser.add_argument("--no-normalize", action="store_true", help="leave the length of embeddings as it is")
    parser.add_argument(
        "-o", "--output", metavar="FILE.npy", help="write an array (n, dim) in place of JSON lines"
    )
    options.add_loading(parser)


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    if arguments.image and (arguments.texts or arguments.query):
        raise invalid("image", "does not go together with texts")
    if arguments.query is not None and arguments.output is not None:
        raise invalid("output", "takes embeddings, and --query gives scores")
    texts = arguments.texts or []
    if not texts and not arguments.image:
        texts = [line for line in sys.stdin.read().splitlines() if line]
        if not texts:
            raise invalid("texts", "must not be empty")
    with options.open_session(arguments) as session:
        if arguments.query is not None:
            for ranked in session.rerank(arguments.query, texts):
                row = {"index": ranked.index, "score": ranked.score, "document": ranked.document}
                print(json.dumps(row, ensure_ascii=False))
            return
        normalize = not arguments.no_normalize
        if arguments.image:
            rows = session.embed_images(arguments.image, normalize=normalize)
        else:
            rows = session.embed(texts, normalize=normalize)
    if arguments.output is not None:
        with pathlib.Path(arguments.output).open("wb") as file:
            np.save(file, rows)
        return
    for row in rows:
        print(json.dumps([round(float(value), 7) for value in row]))

"""Fetch a model and print where it is."""

from __future__ import annotations

import argparse

from alloyforge.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    options.add_model(parser)


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    print(options.locate(arguments.model))

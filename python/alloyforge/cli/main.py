"""The entry point: which command, and how it ends."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from alloyforge import __version__
from alloyforge.cli import (
    batch,
    bench,
    chat,
    devices,
    embed,
    inspect,
    perplexity,
    pull,
    quantize,
    run,
    tokenize,
    transcribe,
)
from alloyforge.errors import AlloyForgeError, InvalidRequestError

COMMANDS = (
    run,
    chat,
    batch,
    bench,
    inspect,
    quantize,
    perplexity,
    tokenize,
    embed,
    transcribe,
    pull,
    devices,
)

OK, FAILED, USAGE = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    """The parser of all commands, each of which is a module."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    root = argparse.ArgumentParser(prog="alloyforge", description="Language models on this machine.")
    root.add_argument("--version", action="version", version=f"alloyforge {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        summary = (module.__doc__ or "").strip().splitlines()[0]
        command = commands.add_parser(
            name, parents=[common], help=summary[0].lower() + summary[1:].rstrip("."), description=summary
        )
        module.configure(command)
        command.set_defaults(handler=module.handle, usage_error=command.error)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; gives the exit status."""
    arguments = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character must not end an answer.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
    try:
        arguments.handler(arguments)
        sys.stdout.flush()
        return OK
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # Whoever read the output has left. What is still buffered goes nowhere, in silence.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if arguments.verbose:
            traceback.print_exc()
        print(f"alloyforge: {_line(error)}", file=sys.stderr)
        is_usage = isinstance(error, InvalidRequestError) and getattr(error, "name", None) in vars(arguments)
        return USAGE if is_usage else FAILED


def _line(error: Exception) -> str:
    """The error in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, (AlloyForgeError, OSError)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split()) or type(error).__name__

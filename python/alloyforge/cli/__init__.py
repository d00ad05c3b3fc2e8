"""The command line.

What is meant for a program goes to stdout, everything else to stderr, and nothing at all is said there
unless something is wrong or `-v` was given. The exit status is 0, 1 for a failed run, 2 for wrong
usage.
"""

from __future__ import annotations

from alloyforge.cli.main import main

__all__ = ["main"]

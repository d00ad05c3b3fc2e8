"""List the devices that a session can run on."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from alloyforge import _native


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    for device in _native.devices():
        if arguments.json:
            print(json.dumps(dataclasses.asdict(device)))
            continue
        memory = f"{device.memory / 2**30:.1f} GiB" if device.memory else ""
        capability = f"capability {device.capability}" if device.capability else ""
        print("  ".join(filter(None, (device.name, device.kind, device.product, memory, capability))))
    if arguments.verbose:
        for kind, fault in _native.device_faults().items():
            print(f"{kind}: {fault}", file=sys.stderr)

"""The soak of `benches/serving.py` for a minute: nothing lost, nothing changed, nothing left."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

BENCH = pathlib.Path(__file__).parent.parent / "benches" / "serving.py"


def test_a_minute_of_soak(tiny_path: pathlib.Path) -> None:
    command = [sys.executable, str(BENCH), str(tiny_path), "--what", "soak", "--seconds", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'wrong': 0" in done.stdout
    preemptions = re.search(r"\b(\d+) preemptions", done.stdout)
    assert preemptions is not None
    assert int(preemptions[1]) > 0

"""Ctrl-C ends a generation at once and frees its request."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from tests.support.interrupting import interruptible

SCRIPT = """
import sys, time
import alloyforge as af

session = af.Session(sys.argv[1], threads=1)
what = {
    "generate": lambda: session.generate([10], **options),
    "stream": lambda: [None for _ in session.stream([10], **options)],
    "batch": lambda: session.generate_batch([[10], [11]], **options),
    "prompt": lambda: session.generate(list(range(100, 4000)), **options),
}[sys.argv[2]]
options = dict(max_tokens=250, ignore_eos=True, temperature=0)
print("ready", flush=True)
try:
    while True:
        what()
except KeyboardInterrupt:
    caught = time.monotonic()
while session.stats().running or session.stats().kv_blocks_used:
    assert time.monotonic() - caught < 5
    time.sleep(0.001)
# the session goes on
print("after", len(session.generate([10], max_tokens=3, ignore_eos=True).tokens), flush=True)
"""


@pytest.mark.parametrize("what", ["generate", "stream", "batch", "prompt"])
def test_ctrl_c(request: pytest.FixtureRequest, what: str) -> None:
    # A long prompt takes a model that is busy with it for seconds.
    model = request.getfixturevalue("smollm2" if what == "prompt" else "tiny_path")
    with interruptible([sys.executable, "-c", SCRIPT, str(model), what]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("after 3\n", "", 0)

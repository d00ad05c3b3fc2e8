"""Fetch NVIDIA's CUDA compiler from the Python package index, for machines without a toolkit.

    python3 tools/cuda_toolkit.py            # into .cuda, and print where it is
    python3 tools/cuda_toolkit.py --env      # print the lines for a shell that runs other builds with it

Where CUDA_HOME names a toolkit, that one is used and nothing is fetched.

The packages carry what the build scripts of Candle and of this project ask for, laid out as a toolkit is:
`bin/nvcc`, `include`, `lib/libcudart_static.a`. Nothing else is linked: see `rust/cuda-libraries`.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FETCHED = ROOT / ".cuda"
# All of one release: newer ones need a newer driver, and bindings that Candle does not have yet.
PACKAGES = {
    "nvidia-cuda-nvcc": "13.0.*",
    "nvidia-nvvm": "13.0.*",
    "nvidia-cuda-crt": "13.0.*",
    "nvidia-cuda-runtime": "13.0.*",
    "nvidia-cuda-cccl": "13.0.*",
}
OLDEST = (12, 0)


class ToolkitError(Exception):
    """There is no usable toolkit, and why."""


def version(home: Path) -> tuple[int, int]:
    """The release of the compiler in `home`.

    Raises:
        ToolkitError: there is none, or it does not run.
    """
    compiler = home / "bin" / "nvcc"
    try:
        said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolkitError(f"`{compiler}` does not run: {error}") from error
    found = re.search(r"release (\d+)\.(\d+)", said)
    if found is None:
        raise ToolkitError(f"`{compiler}` does not say its release: {said!r}")
    return int(found[1]), int(found[2])


def system() -> Path | None:
    """The toolkit that CUDA_HOME names.

    Raises:
        ToolkitError: CUDA_HOME is set, and is no toolkit, or is too old.
    """
    named = os.environ.get("CUDA_HOME")
    if not named:
        return None
    home = Path(named)
    release = version(home)
    if release < OLDEST:
        raise ToolkitError(f"CUDA_HOME is `{home}`, of release {release[0]}.{release[1]}; 12.0 is the oldest")
    return home


def fetched(folder: Path = FETCHED) -> Path:
    """The toolkit made of NVIDIA's packages in `folder`, fetched where it is not there yet.

    Raises:
        ToolkitError: it could not be fetched.
    """
    home = folder / "nvidia" / "cu13"
    if (home / "bin" / "nvcc").exists():
        return home
    # all of it or none: an interrupted fetch leaves nothing that looks whole
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        packages = [f"{name}=={wanted}" for name, wanted in PACKAGES.items()]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "--only-binary", ":all:", "--no-warn-script-location", "--target", str(partial)]
        if subprocess.run([*pip, *packages], stdout=sys.stderr, check=False).returncode != 0:
            raise ToolkitError(f"pip could not fetch {', '.join(packages)}")
        version(partial / "nvidia" / "cu13")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return home


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--env", action="store_true", help="print shell lines that export where it is")
    arguments = parser.parse_args()
    try:
        home = system() or fetched()
    except ToolkitError as error:
        print(f"cuda_toolkit: {error}", file=sys.stderr)
        return 1
    print(f"export CUDA_HOME={shlex.quote(str(home))}" if arguments.env else home)
    return 0


if __name__ == "__main__":
    sys.exit(main())

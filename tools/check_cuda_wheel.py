"""Check that a wheel with CUDA starts on machines without any of it.

    python3 tools/check_cuda_wheel.py WHEEL

The module must name no CUDA library among its needs, leave no function of one undefined, and fit in 60 MB.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LARGEST = 60_000_000
CUDA = re.compile(r"^(lib)?(cu[A-Z]\w*|cuda\w*|cublas\w*|curand\w*|nvrtc\w*|__cuda\w*|nvidia\w*)(\.so.*)?$")


def readelf(option: str, module: Path) -> list[str]:
    """The lines that readelf prints of `module`."""
    said = subprocess.run(["readelf", "-W", option, module], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()


def faults(wheel: Path) -> list[str]:
    """What is wrong with `wheel`."""
    found = []
    size = wheel.stat().st_size
    if size > LARGEST:
        found.append(f"it takes {size:,} bytes, and may take {LARGEST:,}")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if re.search(r"/_native\.[\w.]*so$", name)]
            if len(names) != 1:
                return [*found, f"it holds {len(names)} modules, and should hold one"]
            module = Path(archive.extract(names[0], folder))
        needed = [
            match[1] for line in readelf("-d", module) if (match := re.search(r"NEEDED.*\[(.*)\]", line))
        ]
        symbols = [line.split() for line in readelf("--dyn-syms", module)]
        undefined = [
            fields[7].partition("@")[0] for fields in symbols if len(fields) > 7 and fields[6] == "UND"
        ]
    print(f"{wheel.name}: {size:,} bytes; needs {', '.join(needed)}")
    found += [f"the module needs `{name}`" for name in needed if CUDA.match(name)]
    found += [
        f"`{name}` is undefined: it belongs into rust/cuda-libraries/src/trampolines.rs"
        for name in undefined
        if CUDA.match(name)
    ]
    return found


def main() -> int:
    """Runs it."""
    if len(sys.argv) != 2:
        print(f"usage: {sys.argv[0]} WHEEL", file=sys.stderr)
        return 2
    found = faults(Path(sys.argv[1]))
    for fault in found:
        print(f"{sys.argv[1]}: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

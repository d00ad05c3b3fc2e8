"""CUDA without toolkit, driver or GPU: what is found, what is fetched, and what is said to be missing."""

from __future__ import annotations

import importlib
import pathlib
import subprocess
import sys
import zipfile

import pytest

import alloyforge as af
from alloyforge import _native
from alloyforge.cuda import library_folders

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
COMMAND = str(pathlib.Path(sys.executable).with_name("alloyforge"))

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the features are for Linux")


def test_folders_of_packages_are_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("nvidia/cu13/lib", "nvidia/cu13/include", "nvidia/cublas/lib", "other/nvidia/cu12/lib"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    assert [pathlib.Path(folder) for folder in library_folders()] == [
        tmp_path / "nvidia/cublas/lib",
        tmp_path / "nvidia/cu13/lib",
    ]


def test_a_device_that_is_missing_is_told(tiny_path: pathlib.Path) -> None:
    if "cuda" in _native.features and "cuda" not in _native.device_faults():
        pytest.skip("there is a GPU")
    with pytest.raises(
        af.DeviceError, match=r"device `cuda`: (this build has no CUDA|the NVIDIA driver|`libcu)"
    ):
        af.Session(tiny_path, device="cuda", backend="candle")
    assert [device.kind for device in af.devices() if device.kind == "cuda"] == []
    with af.Session(tiny_path, device="auto") as session:
        assert session.info.device in {"cpu", "metal"}


def test_devices_says_why_one_is_left_out() -> None:
    quiet, verbose = (
        subprocess.run([COMMAND, "devices", *options], capture_output=True, text=True, check=True)
        for options in ([], ["-v"])
    )
    assert (quiet.stderr, quiet.stdout) == ("", verbose.stdout)
    faults = [line.partition(":")[0] for line in verbose.stderr.splitlines()]
    assert faults == list(_native.device_faults())


def fake_toolkit(folder: pathlib.Path) -> pathlib.Path:
    """A toolkit whose compiler prints its arguments."""
    compiler = folder / "bin" / "nvcc"
    compiler.parent.mkdir(parents=True)
    compiler.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\necho 'release 12.4, V12.4.1'\n")
    compiler.chmod(0o755)
    return folder


def nvcc(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TOOLS / "nvcc", *arguments], env=environment, capture_output=True, text=True)


@on_linux
@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_80,code=[sm_80,compute_80]"),
        ("-gencode=arch=compute_90a,code=sm_90a", "-gencode=arch=compute_90a,code=sm_90a"),
        ("-gencode=arch=compute_121f,code=sm_121f", "-gencode=arch=compute_121f,code=sm_121f"),
        ("-arch=compute_80", "-arch=compute_80"),
        ("-Dname=a b'c", "-Dname=a b'c"),
    ],
)
def test_ptx_is_added_to_machine_code(tmp_path: pathlib.Path, given: str, called: str) -> None:
    home = fake_toolkit(tmp_path)
    said = nvcc("-c", given, "file.cu", PATH="/usr/bin:/bin", CUDA_HOME=str(home))
    assert said.stdout.splitlines()[:-1] == ["-c", called, "file.cu"]


@on_linux
def test_a_compiler_is_found_on_the_path(tmp_path: pathlib.Path) -> None:
    home = fake_toolkit(tmp_path)
    said = nvcc("--version", PATH=f"{TOOLS}:{home}/bin:/usr/bin:/bin", CUDA_HOME="/nonesuch")
    assert "release 12.4" in said.stdout


@on_linux
@pytest.mark.skipif(pathlib.Path("/usr/local/cuda").exists(), reason="there is a toolkit")
def test_no_compiler_names_the_script() -> None:
    said = nvcc("--version", PATH="/usr/bin:/bin", CUDA_HOME="/nonesuch")
    assert said.returncode == 127
    assert "/nonesuch/bin" in said.stderr
    assert "tools/cuda_toolkit.py" in said.stderr


@on_linux
def test_candles_kernels_are_left_out_of_a_type_check(tmp_path: pathlib.Path) -> None:
    crate = tmp_path / "candle-kernels-1.2.3"
    crate.mkdir()
    ours = tmp_path / "kernels"
    ours.mkdir()
    environment = {"PATH": "/usr/bin:/bin", "CUDA_HOME": str(fake_toolkit(tmp_path / "toolkit"))}
    for arguments, made in (
        (("--ptx", "--output-directory", str(tmp_path), "src/unary.cu"), "unary.ptx"),
        (("-c", "-o", str(tmp_path / "moe.o"), "src/moe.cu"), "moe.o"),
        (("--lib", "-o", str(tmp_path / "libmoe.a"), "moe.o"), "libmoe.a"),
    ):
        for folder in (ours, crate):
            said = subprocess.run(
                [TOOLS / "nvcc-types", *arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert said.returncode == 0
            assert (tmp_path / made).exists() == (folder == crate)
            assert ("release 12.4" in said.stdout) == (folder == ours)


def toolkit(home: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "cuda_toolkit.py")]
    return subprocess.run(command, env={"CUDA_HOME": home}, capture_output=True, text=True)


@on_linux
def test_the_toolkit_that_is_named_is_used(tmp_path: pathlib.Path) -> None:
    home = fake_toolkit(tmp_path)
    assert toolkit(str(home)).stdout == f"{home}\n"
    compiler = home / "bin" / "nvcc"
    compiler.write_text(compiler.read_text().replace("12.4", "11.8"))
    assert "of release 11.8; 12.0 is the oldest" in toolkit(str(home)).stderr
    assert "`/nonesuch/bin/nvcc` does not run" in toolkit("/nonesuch").stderr


@on_linux
def test_a_wheel_that_needs_a_cuda_library_is_refused(tmp_path: pathlib.Path) -> None:
    def compile_c(name: str, source: str, *libraries: str) -> pathlib.Path:
        (tmp_path / "source.c").write_text(source)
        command = ["cc", "-shared", "-fPIC", "-o", str(tmp_path / name), str(tmp_path / "source.c")]
        subprocess.run([*command, f"-L{tmp_path}", *libraries], check=True)
        return tmp_path / name

    def check(module: pathlib.Path) -> subprocess.CompletedProcess[str]:
        wheel = tmp_path / "alloyforge-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.write(module, "alloyforge/_native.abi3.so")
        command = [sys.executable, str(TOOLS / "check_cuda_wheel.py"), str(wheel)]
        return subprocess.run(command, capture_output=True, text=True)

    compile_c("libcublas.so", "int cublasCreate_v2(void) { return 0; }", "-Wl,-soname,libcublas.so.13")
    sound = check(compile_c("sound.so", "int PyErr_Clear(void); int f(void) { return PyErr_Clear(); }"))
    assert (sound.returncode, sound.stderr) == (0, "")
    source = "int cublasCreate_v2(void); int f(void) { return cublasCreate_v2(); }"
    linked = check(compile_c("linked.so", source, "-lcublas"))
    assert linked.returncode == 1
    assert "needs `libcublas.so.13`" in linked.stderr
    assert "`cublasCreate_v2` is undefined" in check(compile_c("open.so", source)).stderr

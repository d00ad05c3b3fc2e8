//! Makes the linker take this crate's trampolines for the CUDA libraries, and NVIDIA's static runtime for the
//! shared one, whatever a toolkit has beside them.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What Candle and its bindings ask the linker for. A file of each name has to be there; the functions
/// are the trampolines', so that none of them needs to have anything in it.
const ASKED_FOR: [&str; 6] = ["cuda", "cublas", "cublasLt", "curand", "nvrtc", "cudart"];

/// The release whose bindings are used where nothing else is said, as CUDA writes it.
const RELEASE: u32 = 13000;

fn main() -> ExitCode {
    for name in ["CUDA_HOME", "CUDA_PATH", "CUDARC_CUDA_VERSION", "NVCC", "PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CUDA_COMPUTE_CAP");
    println!("cargo:rustc-env=CUDA_CAPABILITY={}", capability());
    let bindings =
        env::var("CUDARC_CUDA_VERSION").ok().and_then(|v| v.parse::<u32>().ok()).unwrap_or(RELEASE);
    println!("cargo:rustc-env=CUDA_MAJOR={}", bindings / 1000);
    let release = match env::var_os("CARGO_FEATURE_LINK") {
        None => Ok(RELEASE),
        Some(_) => link(),
    };
    match release {
        Ok(release) => {
            println!("cargo:rustc-env=CUDA_RELEASE={release}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("the feature `cuda` needs a CUDA toolkit: {fault}");
            eprintln!(
                "Let CUDA_HOME name one, or fetch NVIDIA's compiler with `python3 tools/cuda_toolkit.py`,"
            );
            eprintln!("which `make cuda` does by itself.");
            ExitCode::FAILURE
        }
    }
}

/// The capability that the kernels are compiled for, `80` where nothing is said; written as in `8.0`, `90a`,
/// `sm_90` too, which Candle's build script understands.
fn capability() -> u32 {
    let said = env::var("CUDA_COMPUTE_CAP").unwrap_or_default();
    let digits: String = said.chars().filter(char::is_ascii_digit).collect();
    match digits.parse() {
        Ok(major @ 1..20) => 10 * major,
        Ok(number) => number,
        Err(_) => 80,
    }
}

/// Says what to link, and gives the release of the compiler.
fn link() -> Result<u32, String> {
    let release = compiler_release()?;
    let made = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    empty_archives(&made).map_err(|e| format!("{}: {e}", made.display()))?;
    println!("cargo:rustc-link-search=native={}", made.display());
    if let Some(folder) = static_runtime() {
        println!("cargo:rustc-link-search=native={}", folder.display());
    }
    // whole, so that it is there before anybody asks for the shared one, which then nothing needs
    println!("cargo:rustc-link-lib=static:-bundle,+whole-archive=cudart_static");
    for needed in ["rt", "pthread", "dl"] {
        println!("cargo:rustc-link-lib={needed}");
    }
    Ok(release)
}

/// The release of the compiler of the kernels, as CUDA writes it: 13000 is 13.0.
fn compiler_release() -> Result<u32, String> {
    let compiler = env::var_os("NVCC").unwrap_or_else(|| "nvcc".into());
    let shown = Path::new(&compiler).display();
    let output = Command::new(&compiler).arg("--version").output().map_err(|e| format!("`{shown}`: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = said.split_once("release ").and_then(|(_, rest)| rest.split([',', ' ']).next());
    let release = number
        .and_then(|n| n.split_once('.'))
        .and_then(|(major, minor)| Some(1000 * major.parse::<u32>().ok()? + 10 * minor.parse::<u32>().ok()?));
    release.ok_or_else(|| format!("`{shown} --version` does not say its release: {said}"))
}

fn empty_archives(folder: &Path) -> io::Result<()> {
    for name in ASKED_FOR {
        fs::write(folder.join(format!("lib{name}.a")), b"!<arch>\n")?;
    }
    Ok(())
}

/// The folder with the static runtime, where it is none that the linker knows by itself.
fn static_runtime() -> Option<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let beside_compiler: Vec<_> = env::split_paths(&path)
        .filter(|folder| folder.join("nvcc").exists())
        .filter_map(|folder| Some(folder.parent()?.to_owned()))
        .collect();
    let usual = ["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from);
    let machine = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let targets = match machine.as_str() {
        "aarch64" => "targets/sbsa-linux/lib".to_owned(),
        machine => format!("targets/{machine}-linux/lib"),
    };
    named
        .chain(beside_compiler)
        .chain(usual)
        .flat_map(|root| [root.join("lib64"), root.join("lib"), root.join(&targets)])
        .find(|folder| folder.join("libcudart_static.a").exists())
}

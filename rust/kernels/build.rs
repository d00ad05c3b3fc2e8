//! Compiles the CUDA kernels to PTX, where the feature `flash-attn` asks for them.
//!
//! PTX is text that the driver compiles for the GPU at hand, so that one build serves every GPU from the
//! asked capability on. Each module is compiled by itself: a driver compiles all of a module before its
//! first launch, and no model needs more than one width of heads.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Kernels that are made for each width of heads, a module a width.
const ATTENTION: [&str; 2] = ["prefill", "decode"];
const HEAD_DIMS: [u32; 4] = [64, 96, 128, 256];

/// The others, a module a file.
const OTHERS: [&str; 6] = ["rope", "norm", "gate", "product", "route", "draw"];

/// The capability whose matrix products and asynchronous copies the kernels are written in.
const LEAST_CAPABILITY: u32 = 80;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_FLASH_ATTN").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=cuda");
    for name in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(fault) = compile() {
        eprintln!("the feature `flash-attn`: {fault}");
        exit(1);
    }
}

fn compile() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?);
    let nvcc = Nvcc { path: find_nvcc(), capability: capability()? };
    let widths = ATTENTION.iter().flat_map(|file| HEAD_DIMS.map(|dim| (*file, Some(dim))));
    let modules: Vec<(&str, Option<u32>)> = widths.chain(OTHERS.map(|file| (file, None))).collect();
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    for some in modules.chunks(jobs) {
        std::thread::scope(|scope| {
            let running: Vec<_> =
                some.iter().map(|(file, dim)| scope.spawn(|| nvcc.compile(file, *dim, &out))).collect();
            running.into_iter().try_for_each(|job| job.join().unwrap_or(Err("a compile panicked".into())))
        })?;
    }
    Ok(())
}

struct Nvcc {
    path: PathBuf,
    capability: u32,
}

impl Nvcc {
    fn compile(&self, file: &str, head_dim: Option<u32>, out: &Path) -> Result<(), String> {
        let name = head_dim.map_or(file.to_owned(), |dim| format!("{file}_{dim}"));
        let mut command = Command::new(&self.path);
        command.args(["-ptx", "-std=c++17", "-O3"]).arg(format!("-arch=compute_{}", self.capability));
        if let Some(dim) = head_dim {
            command.arg(format!("-DHEAD_DIM={dim}"));
        }
        command.arg("-o").arg(out.join(format!("{name}.ptx"))).arg(format!("cuda/{file}.cu"));
        let done = command.output().map_err(|e| {
            format!(
                "`{}` cannot be run: {e}. It takes NVIDIA's compiler: set CUDA_HOME to a toolkit or NVCC to its \
                 nvcc, or put nvcc on the PATH",
                self.path.display()
            )
        })?;
        if done.status.success() {
            return Ok(());
        }
        let text = [done.stdout, done.stderr].concat();
        Err(format!("cuda/{file}.cu does not compile:\n{}", String::from_utf8_lossy(&text)))
    }
}

/// `NVCC`, or the one in `CUDA_HOME`, or the one on the path.
fn find_nvcc() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("NVCC").or_else(|| set("CUDA_HOME").map(|home| home.join("bin/nvcc"))).unwrap_or("nvcc".into())
}

/// `CUDA_COMPUTE_CAP`, as `80` or `8.0`.
fn capability() -> Result<u32, String> {
    let Ok(text) = env::var("CUDA_COMPUTE_CAP") else { return Ok(LEAST_CAPABILITY) };
    let digits = text.trim().replace('.', "");
    match digits.parse() {
        Ok(capability) if capability >= LEAST_CAPABILITY => Ok(capability),
        Ok(_) => Err(format!("CUDA_COMPUTE_CAP is `{text}`; our kernels take {LEAST_CAPABILITY} or more")),
        Err(_) => Err(format!("CUDA_COMPUTE_CAP is `{text}`; it takes a number such as `80` or `9.0`")),
    }
}

//! The CUDA kernels on the host: each against its naive reference, and what is compiled of them.
//!
//! The sources compile as plain C++ with the device emulated on fibers (`cuda/check/emulator.h`), so this
//! needs a C++ compiler, which nvcc needs as well, and no GPU.
#![cfg(feature = "flash-attn")]

use std::path::Path;
use std::process::Command;

use alloyforge_kernels::cuda::MODULES;

#[test]
fn kernels_compute_what_their_references_do() {
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/check");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-check");
    let compiler = std::env::var("CXX").unwrap_or("g++".to_owned());
    let sources = ["main", "attention", "rope", "norm", "gate", "product", "route", "draw"]
        .map(|name| format!("{name}.cpp"));
    let compiled = Command::new(&compiler)
        .current_dir(&check)
        .args(["-std=c++17", "-O2", "-ffp-contract=off", "-x", "c++", "-o"])
        .arg(&program)
        .args(sources)
        .output()
        .unwrap_or_else(|e| panic!("`{compiler}` cannot be run: {e}"));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let done = Command::new(&program).arg(&check).output().expect("the checks run");
    let text = String::from_utf8_lossy(&done.stdout);
    print!("{text}");
    assert!(done.status.success(), "{text}\n{}", String::from_utf8_lossy(&done.stderr));
    assert!(text.lines().count() >= 7, "{text}");
}

#[test]
fn modules_are_ptx_with_kernels() {
    assert_eq!(MODULES.len(), 14);
    for (name, ptx) in MODULES {
        assert!(ptx.contains(".version") && ptx.contains(".target sm_"), "{name}");
        assert!(ptx.contains(".visible .entry"), "{name}");
    }
}

//! A driver made here stands in for NVIDIA's: what is missing is told, and calls arrive.
#![cfg(target_os = "linux")]

use std::ffi::{c_int, c_uint};
use std::fs;
use std::path::Path;
use std::process::Command;

use alloyforge_cuda_libraries::{Fault, Gpu, Library, open, seek_in};

/// What the fake answers follows from the numbers that it is compiled with.
const DRIVER: &str = r#"
#include <string.h>
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return ordinal < COUNT ? 0 : 101; }
int cuDeviceGetName(char *name, int len, int device) { strncpy(name, "Fake GPU", len); return 0; }
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = (unsigned long)(device - 39) << 33; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? device - 37 : -1;
    return 0;
}
int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_FAKE"; return error == 803 ? 0 : 1; }
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    return gx == 1 && gy == 2 && gz == 3 && bx == 4 && by == 5 && bz == 6 && shared == 7
        && stream == (void *)8 && arguments == (void *)9 && extra == (void *)10 ? 77 : 1;
}
"#;

const CUBLAS: &str = "int cublasCreate_v2(void **handle) { *handle = (void *)5; return 0; }";
const CURAND: &str = "int curandCreateGenerator(void **generator, int kind) { return kind; }";

unsafe extern "C" {
    fn cuLaunchKernel(
        function: usize,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared: c_uint,
        stream: usize,
        arguments: usize,
        extra: usize,
    ) -> c_int;
    fn cuGraphLaunch(graph: usize, stream: usize) -> c_int;
    fn cublasCreate_v2(handle: *mut usize) -> c_int;
    fn curandCreateGenerator(generator: *mut usize, kind: c_int) -> c_int;
}

fn compile(folder: &Path, file: &str, source: &str, defines: &[(&str, u32)]) {
    let text = folder.join("source.c");
    fs::write(&text, source).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-o"]).arg(folder.join(file)).arg(&text);
    compiler.args(defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    assert!(compiler.status().expect("a C compiler").success(), "{file} does not compile");
}

/// A folder of its own, because a library that was opened stays.
fn with_driver(version: u32, init: u32, count: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    compile(
        folder.path(),
        Library::Driver.file(),
        DRIVER,
        &[("VERSION", version), ("INIT", init), ("COUNT", count)],
    );
    seek_in(vec![folder.path().to_owned()]);
    folder
}

fn launch() -> c_int {
    // SAFETY: neither the fake nor what stands in for a missing function follows a pointer.
    unsafe { cuLaunchKernel(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10) }
}

/// One test, because the process has one driver: each step needs those before it.
#[test]
fn opens_the_libraries_and_says_what_is_missing() {
    let mut handle = 0;
    // before anything is open every function answers with an error of its library
    assert_eq!(launch(), 302);
    // SAFETY: nothing is written by what stands in for it.
    assert_eq!(unsafe { cublasCreate_v2(&raw mut handle) }, 1);
    // SAFETY: as above.
    assert_eq!(unsafe { curandCreateGenerator(&raw mut handle, 100) }, 203);

    if Path::new("/dev/nvidiactl").exists() {
        return; // a real driver would be found where the fake is not
    }
    let nowhere = tempfile::tempdir().unwrap();
    seek_in(vec![nowhere.path().to_owned()]);
    let fault = open().unwrap_err();
    assert!(matches!(&fault, Fault::NoDriver { said } if said.contains("libcuda.so.1")), "{fault}");
    assert!(fault.to_string().starts_with("the NVIDIA driver is not installed (libcuda.so.1: "), "{fault}");

    fs::write(nowhere.path().join(Library::Driver.file()), "not a library").unwrap();
    let fault = open().unwrap_err().to_string();
    assert!(fault.contains(nowhere.path().to_str().unwrap()), "names the file that is damaged: {fault}");

    let old = with_driver(12080, 0, 1);
    assert_eq!(open(), Err(Fault::OldDriver { found: 12080, needed: 13000 }));
    assert_eq!(
        open().unwrap_err().to_string(),
        "the NVIDIA driver is for CUDA 12.8, and this build needs one for CUDA 13.0 or newer"
    );

    let empty = with_driver(13000, 100, 0);
    assert_eq!(open(), Err(Fault::NoGpu));
    let none = with_driver(13000, 0, 0);
    assert_eq!(open(), Err(Fault::NoGpu));
    let refusing = with_driver(13000, 803, 1);
    let fault = open().unwrap_err();
    assert_eq!(fault, Fault::Driver { code: 803, name: Some("CUDA_ERROR_FAKE".into()) });
    assert_eq!(fault.to_string(), "the NVIDIA driver does not start: error 803 (CUDA_ERROR_FAKE)");
    assert_eq!(launch(), 302, "a driver that does not serve is not called");

    let sound = with_driver(13010, 0, 2);
    let fault = open().unwrap_err().to_string();
    assert!(fault.contains("`libcublas.so.13` is missing; `pip install 'alloyforge[cuda]'`"), "{fault}");
    // PyTorch for CUDA 12 brings this one
    compile(sound.path(), "libcublas.so.12", CUBLAS, &[]);
    let fault = open().unwrap_err().to_string();
    assert!(fault.starts_with("`libcurand.so.10` is missing"), "{fault}");
    compile(sound.path(), Library::Curand.file(), CURAND, &[]);
    let gpus = open().unwrap();
    let gpu = |memory, minor| Gpu { product: "Fake GPU".into(), memory, capability: (8, minor) };
    assert_eq!(gpus, [gpu(1 << 33, 3), gpu(2 << 33, 4)]);
    assert_eq!(open().unwrap(), gpus);

    assert_eq!(launch(), 77, "all eleven arguments arrive, those on the stack too");
    // SAFETY: the fake writes one address.
    assert_eq!((unsafe { cublasCreate_v2(&raw mut handle) }, handle), (0, 5));
    // SAFETY: the fake writes nothing.
    assert_eq!(unsafe { curandCreateGenerator(&raw mut handle, 100) }, 100);
    // SAFETY: the fake does not have it, so nothing is done.
    assert_eq!(unsafe { cuGraphLaunch(0, 0) }, 302, "what a driver lacks answers with an error");
    drop((old, empty, none, refusing, sound));
}

#[test]
fn kernels_run_from_their_capability_on() {
    let gpu = |capability| Gpu { product: "Fake GPU".into(), memory: 1, capability };
    assert_eq!(gpu((8, 0)).suits(), Ok(()));
    assert_eq!(gpu((9, 0)).suits(), Ok(()));
    assert_eq!(gpu((12, 0)).suits(), Ok(()));
    assert_eq!(
        gpu((7, 5)).suits().unwrap_err().to_string(),
        "the GPU's compute capability is 7.5, and the kernels of this build are for 8.0 or newer; \
         CUDA_COMPUTE_CAP says for which to build"
    );
}

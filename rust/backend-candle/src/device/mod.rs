//! Devices by the names of the public API, and what each one has.

use std::path::PathBuf;

use alloyforge_kernels::memory;
use alloyforge_types::{Error, Result};
use candle_core::Device;

use crate::fault::Place;
use crate::host;

#[cfg_attr(feature = "cuda", path = "cuda/enabled.rs")]
#[cfg_attr(not(feature = "cuda"), path = "cuda/disabled.rs")]
#[allow(unsafe_code, reason = "how a stream and its memory are set up")]
mod cuda;
#[cfg_attr(feature = "metal", path = "metal/enabled.rs")]
#[cfg_attr(not(feature = "metal"), path = "metal/disabled.rs")]
mod metal;

/// A device that this build can use on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The name that [`CandleBackend::load`](crate::CandleBackend::load) takes: `cpu`, `cuda:0`.
    pub name: String,
    /// The kind: `cpu`, `cuda`, `metal`.
    pub kind: String,
    /// What its maker calls it, where that is known.
    pub product: Option<String>,
    /// Its memory, in bytes.
    pub memory: Option<u64>,
    /// The CUDA compute capability, as in `9.0`.
    pub capability: Option<String>,
}

/// The devices of this build on this machine, the CPU first. A kind whose driver is missing is left
/// out: asking [`CandleBackend::load`](crate::CandleBackend::load) for it says what is missing.
pub fn devices() -> Vec<DeviceInfo> {
    let mut all = vec![DeviceInfo {
        name: "cpu".into(),
        kind: "cpu".into(),
        product: host::processor(),
        memory: host::memory(),
        capability: None,
    }];
    all.extend(cuda::list().unwrap_or_default());
    all.extend(metal::list().unwrap_or_default());
    all
}

/// What keeps the accelerators that this build is for from being used, by their kind.
pub fn device_faults() -> Vec<(&'static str, String)> {
    let faults = [("cuda", cuda::list().err()), ("metal", metal::list().err())];
    faults.into_iter().filter_map(|(kind, fault)| Some((kind, fault?))).collect()
}

/// Says in which folders to look first for the CUDA libraries; a build without CUDA looks nowhere.
pub fn seek_cuda_in(folders: Vec<PathBuf>) {
    cuda::seek_in(folders);
}

/// The features of this build that say where it can compute and how.
pub fn features() -> Vec<&'static str> {
    let features = [
        ("cuda", cfg!(feature = "cuda")),
        ("flash-attn", cfg!(feature = "flash-attn")),
        ("metal", cfg!(feature = "metal")),
        ("mkl", cfg!(feature = "mkl")),
        ("accelerate", cfg!(feature = "accelerate")),
    ];
    features.into_iter().filter(|(_, is_in)| *is_in).map(|(name, _)| name).collect()
}

/// Opens the device called `name`.
pub(crate) fn open(name: &str) -> Result<Place> {
    let unknown = || Error::Device {
        device: name.into(),
        fault: "no such device; known are `cpu`, `cuda`, `cuda:N` and `metal`".into(),
    };
    let (kind, ordinal) = match name.split_once(':') {
        Some((kind, ordinal)) => (kind, ordinal.parse::<usize>().map_err(|_| unknown())?),
        None => (name, 0),
    };
    let device = match (kind, ordinal) {
        ("cpu", 0) => Device::Cpu,
        ("cuda", _) => cuda::open(name, ordinal)?,
        ("metal", 0) => metal::open(name)?,
        _ => return Err(unknown()),
    };
    Ok(Place { device, name: name.into() })
}

/// What a device keeps for later steps goes back to the system when this is dropped: a closed model's memory
/// is then there for others, such as other libraries of this process.
#[derive(Debug)]
pub(crate) struct Release(pub(crate) Device);

impl Drop for Release {
    fn drop(&mut self) {
        if self.0.is_cuda() {
            cuda::release(&self.0);
        }
    }
}

/// Bytes that may be taken on `device`; `None` where that cannot be found out.
pub(crate) fn available(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => memory::available(),
        Device::Cuda(_) => cuda::available(device),
        Device::Metal(_) => metal::available(device),
    }
}

//! CUDA, through Candle and the driver bindings that it brings.

use std::path::PathBuf;

use alloyforge_cuda_libraries::Gpu;
use alloyforge_types::{Error, Result};
use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::result;

use super::DeviceInfo;

/// Says in which folders to look first for the CUDA libraries.
pub(super) fn seek_in(folders: Vec<PathBuf>) {
    alloyforge_cuda_libraries::seek_in(folders);
}

/// Opens GPU `ordinal`.
pub(super) fn open(name: &str, ordinal: usize) -> Result<Device> {
    let fault = |fault: String| Error::Device { device: name.into(), fault };
    let gpus = alloyforge_cuda_libraries::open().map_err(|e| fault(e.to_string()))?;
    let gpu = gpus
        .get(ordinal)
        .ok_or_else(|| fault(format!("there is no such GPU; the driver knows {}", gpus.len())))?;
    gpu.suits().map_err(|e| fault(e.to_string()))?;
    Device::new_cuda(ordinal).map_err(|e| fault(e.to_string()))
}

/// The GPUs that can be used, or what is missing.
pub(super) fn list() -> std::result::Result<Vec<DeviceInfo>, String> {
    let gpus = alloyforge_cuda_libraries::open().map_err(|e| e.to_string())?;
    let suited = gpus.into_iter().enumerate().filter(|(_, gpu)| gpu.suits().is_ok());
    Ok(suited.map(|(ordinal, gpu)| describe(ordinal, gpu)).collect())
}

fn describe(ordinal: usize, gpu: Gpu) -> DeviceInfo {
    let (major, minor) = gpu.capability;
    DeviceInfo {
        name: format!("cuda:{ordinal}"),
        kind: "cuda".into(),
        product: Some(gpu.product),
        memory: Some(gpu.memory),
        capability: Some(format!("{major}.{minor}")),
    }
}

/// Free bytes on the GPU.
pub(super) fn available(device: &Device) -> Option<u64> {
    let stream = device.as_cuda_device().ok()?.cuda_stream();
    stream.context().bind_to_thread().ok()?;
    result::mem_get_info().ok().map(|(free, _)| free as u64)
}

//! CUDA, through Candle and the driver bindings that it brings.

use std::path::PathBuf;

use alloyforge_cuda_libraries::Gpu;
use alloyforge_types::{Error, Result};
use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::{result, sys};

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
    // a stream of its own for all threads: Candle's usual one is another stream in each thread
    let device = Device::new_cuda_with_stream(ordinal).map_err(|e| fault(e.to_string()))?;
    set_up(&device).map_err(|e| fault(e.to_string()))?;
    Ok(device)
}

/// Switches off what several streams would need, and keeps memory that was given back for the next step.
fn set_up(device: &Device) -> candle_core::Result<()> {
    let device = device.as_cuda_device()?;
    // SAFETY: all tensors of a model are made, used and given back on this device's one stream, and no
    // tensor goes from one opened device to another
    unsafe { device.disable_event_tracking() };
    let context = device.cuda_stream().context().clone();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut kept = u64::MAX;
    // SAFETY: the device is one that the driver has given, its pool is the driver's own, and the attribute
    // is a number of 64 bits that the driver copies
    let done = unsafe {
        result::device::get_default_mem_pool(context.cu_device()).and_then(|pool| {
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, attribute, (&raw mut kept).cast())
        })
    };
    done.map_err(candle_core::Error::wrap)
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

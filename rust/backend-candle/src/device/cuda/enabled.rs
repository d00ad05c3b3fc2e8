//! CUDA, through Candle and the driver bindings that it brings.

use std::path::PathBuf;

use alloyforge_cuda_libraries::Gpu;
use alloyforge_types::{Error, Result};
use candle_core::cuda_backend::cudarc::driver::{DriverError, result, sys};
use candle_core::{CudaDevice, Device};

use super::DeviceInfo;

/// What the driver takes while a model runs, for the code of kernels and for cuBLAS: nothing is planned
/// into it.
const DRIVER_BYTES: u64 = 256 << 20;

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
    let Some(pool) = pool(device).map_err(candle_core::Error::wrap)? else { return Ok(()) };
    let mut kept = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the driver's own, and the attribute is a number of 64 bits that the driver copies
    let done = unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut kept).cast()) };
    done.map_err(candle_core::Error::wrap)
}

/// The pool that tensors are taken from, where the GPU has one.
fn pool(device: &CudaDevice) -> std::result::Result<Option<sys::CUmemoryPool>, DriverError> {
    let context = device.cuda_stream().context().clone();
    if !context.has_async_alloc() {
        return Ok(None);
    }
    // SAFETY: the device is one that the driver has given
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }.map(Some)
}

/// Gives back what nobody uses of the GPU's pool.
pub(super) fn release(device: &Device) {
    let Ok(device) = device.as_cuda_device() else { return };
    let stream = device.cuda_stream();
    // tensors are given back in the stream's order; behind a fault nothing can be
    if stream.context().bind_to_thread().is_err() || stream.synchronize().is_err() {
        return;
    }
    if let Ok(Some(pool)) = pool(device) {
        // SAFETY: the pool is the driver's own; what is in use stays
        let _ = unsafe { result::mem_pool::trim_to(pool, 0) };
    }
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

/// Free bytes on the GPU, those of its pool that nobody uses among them.
pub(super) fn available(device: &Device) -> Option<u64> {
    let device = device.as_cuda_device().ok()?;
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().ok()?;
    // what was given back on the stream is counted as such once the stream gets there
    stream.synchronize().ok()?;
    let (free, _) = result::mem_get_info().ok()?;
    let idle = match pool(device).ok()? {
        None => 0,
        Some(pool) => {
            use sys::CUmemPool_attribute as Attribute;
            let held = counter(pool, Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
            held.saturating_sub(counter(pool, Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?)
        }
    };
    Some((free as u64).saturating_add(idle).saturating_sub(DRIVER_BYTES))
}

/// A count of bytes that `pool` keeps.
fn counter(pool: sys::CUmemoryPool, attribute: sys::CUmemPool_attribute) -> Option<u64> {
    let mut bytes = 0u64;
    // SAFETY: the pool is the driver's own, and both counts that are asked for are numbers of 64 bits
    let done = unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) };
    done.ok().map(|()| bytes)
}

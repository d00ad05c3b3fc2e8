//! CUDA, through Candle and the driver bindings that it brings.

use alloyforge_types::{Error, Result};
use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, result};

use super::DeviceInfo;

/// Opens GPU `ordinal`.
pub(super) fn open(name: &str, ordinal: usize) -> Result<Device> {
    let fault = |fault: String| Error::Device { device: name.into(), fault };
    let count =
        CudaContext::device_count().map_err(|e| fault(format!("the CUDA driver does not answer: {e}")))?;
    if ordinal >= count.max(0) as usize {
        return Err(fault(format!("there is no such GPU; the driver knows {count}")));
    }
    Device::new_cuda(ordinal).map_err(|e| fault(e.to_string()))
}

/// The GPUs that the driver knows; none where there is no driver.
pub(super) fn list() -> Vec<DeviceInfo> {
    let count = CudaContext::device_count().unwrap_or(0).max(0) as usize;
    (0..count)
        .filter_map(|ordinal| {
            let context = CudaContext::new(ordinal).ok()?;
            let capability = context.compute_capability().ok();
            Some(DeviceInfo {
                name: format!("cuda:{ordinal}"),
                kind: "cuda".into(),
                product: context.name().ok(),
                memory: context.total_mem().ok().map(|bytes| bytes as u64),
                capability: capability.map(|(major, minor)| format!("{major}.{minor}")),
            })
        })
        .collect()
}

/// Free bytes on the GPU.
pub(super) fn available(device: &Device) -> Option<u64> {
    let stream = device.as_cuda_device().ok()?.cuda_stream();
    stream.context().bind_to_thread().ok()?;
    result::mem_get_info().ok().map(|(free, _)| free as u64)
}

//! Metal, through what Candle itself offers. It type-checks against Candle's interface on Linux, where
//! Candle's own Metal code does not compile; it was never run.

use alloyforge_types::{Error, Result};
use candle_core::Device;

use super::DeviceInfo;

/// Opens the GPU.
pub(super) fn open(name: &str) -> Result<Device> {
    Device::new_metal(0).map_err(|e| Error::Device { device: name.into(), fault: e.to_string() })
}

/// The GPU, or why there is none.
pub(super) fn list() -> std::result::Result<Vec<DeviceInfo>, String> {
    Device::new_metal(0).map_err(|e| e.to_string())?;
    Ok(vec![DeviceInfo {
        name: "metal".into(),
        kind: "metal".into(),
        product: None,
        // the GPU shares the machine's memory
        memory: crate::host::memory(),
        capability: None,
    }])
}

/// Free bytes: the GPU shares the machine's memory.
pub(super) fn available(_device: &Device) -> Option<u64> {
    alloyforge_kernels::memory::available()
}

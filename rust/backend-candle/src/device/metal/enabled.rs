//! Metal, through what Candle itself offers. Type-checked only: no machine of the project has it.

use alloyforge_types::{Error, Result};
use candle_core::Device;

use super::DeviceInfo;

/// Opens the GPU.
pub(super) fn open(name: &str) -> Result<Device> {
    Device::new_metal(0).map_err(|e| Error::Device { device: name.into(), fault: e.to_string() })
}

/// The GPU, where there is one.
pub(super) fn list() -> Vec<DeviceInfo> {
    if Device::new_metal(0).is_err() {
        return Vec::new();
    }
    vec![DeviceInfo {
        name: "metal".into(),
        kind: "metal".into(),
        product: None,
        // the GPU shares the machine's memory
        memory: crate::host::memory(),
        capability: None,
    }]
}

/// Free bytes: the GPU shares the machine's memory.
pub(super) fn available(_device: &Device) -> Option<u64> {
    alloyforge_kernels::memory::available()
}

//! Metal, through what Candle itself offers. Written from its documentation: no machine of the project can compile it.

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

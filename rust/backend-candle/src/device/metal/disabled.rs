//! Metal in a build without it: nothing to list, and a clear word to whoever asks.

use alloyforge_types::{Error, Result};
use candle_core::Device;

use super::DeviceInfo;

/// As in a build with Metal: opens the GPU.
pub(super) fn open(name: &str) -> Result<Device> {
    Err(Error::Device {
        device: name.into(),
        fault: "this build has no Metal; it takes one made with the feature `metal` on macOS".into(),
    })
}

/// As in a build with Metal: the GPU.
pub(super) fn list() -> std::result::Result<Vec<DeviceInfo>, String> {
    Ok(Vec::new())
}

/// As in a build with Metal: free bytes on the GPU.
pub(super) fn available(_device: &Device) -> Option<u64> {
    None
}

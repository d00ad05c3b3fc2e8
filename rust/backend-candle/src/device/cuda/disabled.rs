//! CUDA in a build without it: nothing to list, and a clear word to whoever asks.

use std::path::PathBuf;

use alloyforge_types::{Error, Result};
use candle_core::Device;

use super::DeviceInfo;

/// As in a build with CUDA: opens GPU `_ordinal`.
pub(super) fn open(name: &str, _ordinal: usize) -> Result<Device> {
    Err(Error::Device {
        device: name.into(),
        fault: "this build has no CUDA; it takes one made with the feature `cuda`".into(),
    })
}

/// As in a build with CUDA: where to look for its libraries.
pub(super) fn seek_in(_folders: Vec<PathBuf>) {}

/// As in a build with CUDA: the GPUs.
pub(super) fn list() -> std::result::Result<Vec<DeviceInfo>, String> {
    Ok(Vec::new())
}

/// As in a build with CUDA: gives back what is kept for later.
pub(super) fn release(_device: &Device) {}

/// As in a build with CUDA: free bytes on the GPU.
pub(super) fn available(_device: &Device) -> Option<u64> {
    None
}

//! A device with its name, and how its failures are told.

use alloyforge_types::Error;
use candle_core::Device;

/// An open device.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Candle's handle.
    pub(crate) device: Device,
    /// The name that the caller used.
    pub(crate) name: String,
}

impl Place {
    /// What a failure of Candle means: on the CPU nothing can fail but our own use of it, anything
    /// else has a device that may.
    pub(crate) fn fault(&self, error: candle_core::Error) -> Error {
        match self.device {
            Device::Cpu => Error::internal(error.to_string()),
            _ => Error::Device { device: self.name.clone(), fault: error.to_string() },
        }
    }
}

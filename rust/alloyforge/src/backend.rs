//! Which backend runs a model.

use alloyforge_backend_candle::CandleBackend;
use alloyforge_backend_cpu::CpuBackend;
use alloyforge_interfaces::{LoadOptions, Model};
use alloyforge_models::{Decoder, Resolved};
use alloyforge_types::{Error, Result};

/// The implementations of the decoder's phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendChoice {
    /// Native on the CPU, Candle elsewhere.
    #[default]
    Auto,
    /// AlloyForge's own kernels, on the CPU.
    Native,
    /// Candle, on any device.
    Candle,
}

impl BackendChoice {
    /// The choice called `name`.
    ///
    /// # Errors
    /// `InvalidRequest` for another name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "candle" => Ok(Self::Candle),
            other => Err(Error::invalid("backend", format!("`{other}` is none of auto, native, candle"))),
        }
    }
}

/// The device that `name` asks for: `auto` is the first accelerator that this build and machine have,
/// else the CPU.
///
/// # Errors
/// `InvalidRequest` for a name that is no device's.
pub fn choose_device(name: &str, backend: BackendChoice) -> Result<String> {
    let is_known = matches!(name, "auto" | "cpu" | "cuda" | "metal")
        || name.strip_prefix("cuda:").is_some_and(|n| n.parse::<u16>().is_ok());
    if !is_known {
        return Err(Error::invalid("device", format!("`{name}` is none of auto, cpu, cuda, cuda:N, metal")));
    }
    if backend == BackendChoice::Native && !matches!(name, "auto" | "cpu") {
        return Err(Error::invalid("backend", format!("`native` runs on the CPU, not on `{name}`")));
    }
    if name != "auto" {
        return Ok(name.to_owned());
    }
    if backend == BackendChoice::Native {
        return Ok("cpu".to_owned());
    }
    let devices = alloyforge_backend_candle::devices();
    Ok(devices.into_iter().map(|d| d.name).find(|n| n != "cpu").unwrap_or_else(|| "cpu".to_owned()))
}

/// Loads the weights onto `device`.
///
/// # Errors
/// `Format` for a weight that does not fit its role, `OutOfMemory`, `Device`, `Unsupported`.
pub fn load(
    resolved: Resolved,
    device: &str,
    backend: BackendChoice,
    options: &LoadOptions,
) -> Result<Box<dyn Model>> {
    let Resolved { spec, weights, .. } = resolved;
    if device == "cpu" && backend != BackendChoice::Candle {
        let backend = CpuBackend::load(&spec, &*weights, options)?;
        return Ok(Box::new(
            Decoder::new(spec, backend).with_limits(options.max_rows, options.max_logit_rows),
        ));
    }
    let backend = CandleBackend::load(&spec, &*weights, device, options)?;
    Ok(Box::new(Decoder::new(spec, backend).with_limits(options.max_rows, options.max_logit_rows)))
}

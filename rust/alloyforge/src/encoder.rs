//! Which backend computes an encoder's layers.

use alloyforge_backend_candle::{CandleTextEncoder, CandleVisionEncoder};
use alloyforge_backend_cpu::CpuBackend;
use alloyforge_interfaces::{TensorStore, TowerLayers};
use alloyforge_models::BackendLayers;
use alloyforge_types::{Result, TextSpec, TowerSpec, VisionSpec};

use crate::backend::BackendChoice;

/// Where encoders run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncoderPlace<'a> {
    pub(crate) device: &'a str,
    pub(crate) backend: BackendChoice,
    pub(crate) threads: Option<usize>,
}

impl EncoderPlace<'_> {
    /// The layers on the native backend, where that is what computes on the device.
    fn layers(&self, tower: &TowerSpec, store: &dyn TensorStore) -> Result<Option<Box<dyn TowerLayers>>> {
        if self.device != "cpu" || self.backend == BackendChoice::Candle {
            return Ok(None);
        }
        Ok(Some(Box::new(BackendLayers::load(tower, store, self.threads, CpuBackend::load)?)))
    }

    /// Loads an encoder of pictures.
    pub(crate) fn vision(&self, spec: &VisionSpec, store: &dyn TensorStore) -> Result<CandleVisionEncoder> {
        let layers = self.layers(&spec.tower, store)?;
        CandleVisionEncoder::load(spec, store, self.device, self.threads, layers)
    }

    /// Loads an encoder of texts.
    pub(crate) fn text(&self, spec: &TextSpec, store: &dyn TensorStore) -> Result<CandleTextEncoder> {
        let layers = self.layers(&spec.tower, store)?;
        CandleTextEncoder::load(spec, store, self.device, self.threads, layers)
    }
}

//! Weights by name, as f32 tensors on a device.

use std::cell::Cell;

use alloyforge_interfaces::TensorStore;
use alloyforge_kernels::dequant::dequantize;
use alloyforge_kernels::memory;
use alloyforge_types::{EncoderNorm, Error, Result};
use candle_core::Tensor;

use super::ops;
use crate::fault::Place;

/// Reads tensors, their shapes checked.
pub(super) struct Weights<'a> {
    store: &'a dyn TensorStore,
    place: &'a Place,
    bytes: Cell<u64>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(store: &'a dyn TensorStore, place: &'a Place) -> Self {
        Self { store, place, bytes: Cell::new(0) }
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.store.tensor(name).is_some()
    }

    /// The first dimension of `name`, where it is there.
    pub(super) fn num_rows(&self, name: &str) -> Option<usize> {
        self.store.tensor(name)?.shape.first().copied()
    }

    /// The tensor `name` with as many numbers as `shape`, in that shape.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let fault = |fault: String| Error::format(self.store.label(), format!("tensor `{name}`"), fault);
        let view = self.store.tensor(name).ok_or_else(|| fault("is missing".into()))?;
        let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let found = view.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let Some(len) = len.filter(|&n| Some(n) == found && n > 0) else {
            return Err(fault(format!("has shape {:?}, expected {shape:?}", view.shape)));
        };
        let needed = 4 * len as u64;
        let available = memory::available().unwrap_or(u64::MAX);
        let mut values: Vec<f32> = Vec::new();
        if needed > available || values.try_reserve_exact(len).is_err() {
            return Err(Error::OutOfMemory { what: format!("tensor `{name}`"), needed, available });
        }
        values.resize(len, 0.0);
        dequantize(view.ty, view.data, &mut values)?;
        self.bytes.set(self.bytes.get() + needed);
        Tensor::from_vec(values, shape, &self.place.device).map_err(|e| self.place.fault(e))
    }

    /// The product called `name`, of `rows` outputs.
    pub(super) fn linear(&self, name: &str, rows: usize, cols: usize, has_bias: bool) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[rows, cols])?;
        let bias = has_bias.then(|| self.tensor(&format!("{name}.bias"), &[rows])).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// Several products of one input as one.
    pub(super) fn joined(
        &self,
        names: &[String],
        rows: usize,
        cols: usize,
        has_bias: bool,
    ) -> Result<Linear> {
        let parts = names.iter().map(|name| self.linear(name, rows, cols, has_bias));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let fault = |e| self.place.fault(e);
        let weights: Vec<&Tensor> = parts.iter().map(|p| &p.weight).collect();
        let biases: Option<Vec<&Tensor>> = parts.iter().map(|p| p.bias.as_ref()).collect();
        Ok(Linear {
            weight: Tensor::cat(&weights, 0).map_err(fault)?,
            bias: biases.map(|b| Tensor::cat(&b, 0)).transpose().map_err(fault)?,
        })
    }

    /// The norm called `name`.
    pub(super) fn norm(&self, name: &str, norm: EncoderNorm, width: usize, eps: f32) -> Result<Norm> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        let bias = match norm {
            EncoderNorm::Layer => Some(self.tensor(&format!("{name}.bias"), &[width])?),
            EncoderNorm::Rms => None,
        };
        Ok(Norm { weight, bias, eps })
    }
}

/// A product with its bias.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// A product without a bias.
    pub(super) fn plain(weight: Tensor) -> Self {
        Self::new(weight, None)
    }

    /// From `[n, cols]` to `[n, rows]`.
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => ops::add_row(&y, bias),
            None => Ok(y),
        }
    }
}

/// A layer norm, or without a bias an RMS norm.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f32,
}

impl Norm {
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        ops::norm(x, &self.weight, self.bias.as_ref(), self.eps)
    }

    /// The same norm with one added to its weight.
    pub(super) fn plus_one(self) -> candle_core::Result<Self> {
        Ok(Self { weight: (self.weight + 1.0)?, ..self })
    }
}

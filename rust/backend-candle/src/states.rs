//! Attention over an encoder's states: keys and values that are computed once for each input.

use alloyforge_types::{Error, KvType, ModelSpec, Result};
use candle_core::{D, DType, Tensor};

use crate::backend::{Decoder, left};
use crate::formats;
use crate::layer::Cross;
use crate::step::Step;

/// Keys and values of every slot and layer.
#[derive(Debug)]
pub(crate) struct States {
    /// Inputs that there is room for, and rows of each.
    pub(crate) slots: usize,
    len: usize,
    ty: DType,
    /// What all slots take, in bytes, once they are filled.
    pub(crate) bytes: u64,
    /// For each slot and layer, keys and values as `[heads, len, head_dim]`; none before they are put.
    filled: Vec<Vec<Option<(Tensor, Tensor)>>>,
    /// The probabilities of the step's watched heads, `[heads, rows, len]`.
    pub(crate) watched: Vec<f32>,
}

/// The probabilities of watched heads, each with its number among them.
type Seen = Vec<(usize, Vec<f32>)>;

impl States {
    /// Plans `slots` slots of `len` rows, which find `available` bytes.
    ///
    /// # Errors
    /// `OutOfMemory` where they would not fit once filled.
    pub(crate) fn reserve(
        spec: &ModelSpec,
        ty: KvType,
        slots: usize,
        len: usize,
        available: Option<u64>,
    ) -> Result<Self> {
        let ty = formats::cached(ty)?;
        let widths = spec.layers.iter().filter_map(|layer| layer.cross.as_ref());
        let widths: u64 = widths.map(|c| 2 * (c.num_heads * c.head_dim * ty.size_in_bytes()) as u64).sum();
        let bytes = widths.saturating_mul(len as u64).saturating_mul(slots as u64);
        if let Some(available) = available
            && bytes > available
        {
            return Err(Error::OutOfMemory { what: "the encoder's states".into(), needed: bytes, available });
        }
        let filled = vec![vec![None; spec.layers.len()]; slots];
        Ok(Self { slots, len, ty, bytes, filled, watched: Vec::new() })
    }
}

impl Decoder {
    /// Every layer's keys and values of `states`, `[len, hidden]`, into `slot`.
    pub(crate) fn put_states(&mut self, slot: usize, states: &[f32]) -> Result<()> {
        let Some(room) = self.states.as_mut().filter(|room| slot < room.slots) else {
            return Err(Error::internal(format!("no slot {slot} for states")));
        };
        let hidden = self.spec.hidden_dim;
        if states.len() != room.len * hidden {
            return Err(Error::internal(format!("{} numbers for slot {slot}", states.len())));
        }
        let fault = |e| self.place.fault(e);
        let x = Tensor::from_slice(states, (room.len, hidden), &self.place.device).map_err(fault)?;
        for (i, (layer, spec)) in self.weights.layers.iter().zip(&self.spec.layers).enumerate() {
            let (Some(cross), Some(spec)) = (&layer.cross, &spec.cross) else { continue };
            let heads = |x: Tensor| {
                x.reshape((room.len, spec.num_heads, spec.head_dim))?
                    .transpose(0, 1)?
                    .to_dtype(room.ty)?
                    .contiguous()
            };
            let keys = cross.k.forward(&x).and_then(heads).map_err(fault)?;
            let values = cross.v.forward(&x).and_then(heads).map_err(fault)?;
            room.filled[slot][i] = Some((keys, values));
        }
        Ok(())
    }

    /// Norm, queries, attention over the states of each slot, output, residual.
    pub(crate) fn cross(&mut self, step: &Step, layer: usize) -> Result<()> {
        let weights = self.weights.layers.get(layer).and_then(|layer| layer.cross.as_ref());
        let Some(weights) = weights else {
            return Err(Error::internal(format!("layer {layer} has no cross attention")));
        };
        let residual = left(&mut self.state.residual)?;
        let out = self.over_states(weights, step, layer, &residual);
        self.state.residual = Some(residual);
        let (out, watched) = out.map_err(|e| self.place.fault(e))?;
        let rows = step.rows;
        if let Some(states) = &mut self.states {
            let len = states.len;
            states.watched.resize(step.watched_heads.len() * rows * len, 0.0);
            for (index, probabilities) in watched {
                states.watched[index * rows * len..][..rows * len].copy_from_slice(&probabilities);
            }
        }
        self.state.residual = Some(self.add(&out, None)?);
        Ok(())
    }

    /// What the attention adds, and the probabilities of this layer's watched heads with their numbers.
    fn over_states(
        &self,
        weights: &Cross,
        step: &Step,
        layer: usize,
        residual: &Tensor,
    ) -> candle_core::Result<(Tensor, Seen)> {
        let (Some(spec), Some(states)) = (&self.spec.layers[layer].cross, &self.states) else {
            candle_core::bail!("no slots were reserved")
        };
        let x = weights.norm.forward(residual, self.spec.norm_eps)?;
        let q = (weights.q.forward(&x)? * f64::from(spec.scale))?;
        let q = q.reshape((step.rows, spec.num_heads, spec.head_dim))?;
        let watched = step.watched_heads.iter().enumerate().filter(|(_, (of, _))| *of == layer);
        let mut seen: Vec<(usize, usize, Vec<f32>)> =
            watched.map(|(index, (_, head))| (index, *head, Vec::new())).collect();
        let mut parts = Vec::with_capacity(step.shares.len());
        for &(slot, first, count) in &step.shares {
            let Some((keys, values)) = &states.filled[slot][layer] else {
                candle_core::bail!("slot {slot} was not filled")
            };
            let q = q.narrow(0, first, count)?.transpose(0, 1)?.contiguous()?;
            let scores = q.matmul(&keys.to_dtype(DType::F32)?.transpose(1, 2)?)?;
            let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
            let probabilities = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
            for (_, head, out) in &mut seen {
                out.extend(probabilities.get(*head)?.flatten_all()?.to_vec1::<f32>()?);
            }
            let out = probabilities.matmul(&values.to_dtype(DType::F32)?)?;
            let width = spec.num_heads * spec.head_dim;
            parts.push(out.transpose(0, 1)?.contiguous()?.reshape((count, width))?);
        }
        let attended = match parts.as_slice() {
            [one] => one.clone(),
            parts => Tensor::cat(parts, 0)?,
        };
        let seen = seen.into_iter().map(|(index, _, out)| (index, out)).collect();
        Ok((weights.o.forward(&attended)?, seen))
    }
}

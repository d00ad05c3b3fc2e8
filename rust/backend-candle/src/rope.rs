//! Rotary position embeddings (Su et al., arXiv 2104.09864).
//!
//! Angles are made on the host, once a step for each rotary embedding of the model, in f32 and in the
//! reference's order: inverse frequency times position, then cosine and sine, then the magnitude.

use alloyforge_types::{RopeLayout, RopeSpec, RopeTable, SequenceStep};
use candle_core::{D, Device, Result, Tensor};

/// The turn of each row of a step.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Of shape `[rows, 1, dim / 2]`.
    cos: Tensor,
    /// Likewise.
    sin: Tensor,
    /// Coordinates of a head that turn.
    dim: usize,
    layout: RopeLayout,
}

impl Turn {
    /// The turns of all rows of `sequences`.
    pub(crate) fn new(spec: &RopeSpec, sequences: &[SequenceStep], device: &Device) -> Result<Self> {
        let half = spec.dim / 2;
        let axes = spec.axes();
        let rows = sequences.iter().map(|s| s.num_rows).sum::<usize>();
        let (mut cos, mut sin) = (Vec::with_capacity(rows * half), Vec::with_capacity(rows * half));
        let mut known: Option<(usize, RopeTable)> = None;
        for sequence in sequences {
            for row in 0..sequence.num_rows {
                let index = sequence.start + row;
                // frequencies that do not depend on the length are those of length 1
                let len = spec.changes_after().map_or(1, |_| sequence.rope_len.max(index + 1));
                if known.as_ref().is_none_or(|(l, _)| *l != len) {
                    known = Some((len, spec.table(len)));
                }
                let Some((_, table)) = &known else { continue };
                let place = sequence.rope_positions.get(row).copied().unwrap_or([index as u32; 3]);
                for (&frequency, &axis) in table.inv_freq.iter().zip(&axes) {
                    let angle = frequency * place[axis] as f32;
                    cos.push(angle.cos() * table.magnitude);
                    sin.push(angle.sin() * table.magnitude);
                }
            }
        }
        let tensor = |v| Tensor::from_vec(v, (rows, 1, half), device);
        Ok(Self { cos: tensor(cos)?, sin: tensor(sin)?, dim: spec.dim, layout: spec.layout })
    }

    /// `x` of shape `[rows, heads, head_dim]`, turned.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, heads, head_dim) = x.dims3()?;
        let half = self.dim / 2;
        let (a, b) = match self.layout {
            RopeLayout::Half => (x.narrow(2, 0, half)?, x.narrow(2, half, half)?),
            RopeLayout::Interleaved => {
                let pairs = x.narrow(2, 0, self.dim)?.reshape((rows, heads, half, 2))?;
                (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?)
            }
        };
        let turned_a = (a.broadcast_mul(&self.cos)? - b.broadcast_mul(&self.sin)?)?;
        let turned_b = (b.broadcast_mul(&self.cos)? + a.broadcast_mul(&self.sin)?)?;
        let turned = match self.layout {
            RopeLayout::Half => Tensor::cat(&[turned_a, turned_b], D::Minus1)?,
            RopeLayout::Interleaved => {
                Tensor::stack(&[turned_a, turned_b], D::Minus1)?.reshape((rows, heads, self.dim))?
            }
        };
        if self.dim == head_dim {
            return Ok(turned);
        }
        Tensor::cat(&[turned, x.narrow(2, self.dim, head_dim - self.dim)?], D::Minus1)
    }
}

//! Rotary position embeddings (Su et al., arXiv 2104.09864).
//!
//! Angles are made on the host, in f32 and in the reference's order: inverse frequency times position,
//! then cosine and sine, then the magnitude. Where a row's turn follows from its index alone, all turns up
//! to an index are made once and stay on the device.

use std::ops::Range;

use alloyforge_types::{RopeLayout, RopeSpec, RopeTable, SequenceStep};
use candle_core::{D, Device, Result, Tensor};

use crate::words::Words;

/// Fewest turns that are made at once.
const LEAST_TURNS: usize = 256;

/// The turns of one rotary embedding that were made for all steps.
#[derive(Debug, Default)]
pub(crate) struct Known {
    len: usize,
    tables: Option<Tables>,
}

/// Cosines and sines, each of shape `[turns, dim / 2]`.
#[derive(Debug, Clone)]
struct Tables {
    cos: Tensor,
    sin: Tensor,
}

impl Tables {
    /// The turns `angles` of `half` frequencies each.
    fn new(angles: impl Iterator<Item = (f32, f32)>, half: usize, device: &Device) -> Result<Self> {
        let (cos, sin): (Vec<f32>, Vec<f32>) =
            angles.map(|(angle, size)| (angle.cos() * size, angle.sin() * size)).unzip();
        let tensor = |v: Vec<f32>| {
            let turns = v.len() / half.max(1);
            Tensor::from_vec(v, (turns, half), device)
        };
        Ok(Self { cos: tensor(cos)?, sin: tensor(sin)? })
    }
}

impl Known {
    /// The turns of the indices below `len` at the least.
    fn up_to(&mut self, len: usize, spec: &RopeSpec, device: &Device) -> Result<Tables> {
        if let (Some(tables), true) = (&self.tables, len <= self.len) {
            return Ok(tables.clone());
        }
        let len = len.next_power_of_two().max(LEAST_TURNS);
        // frequencies that do not depend on the length are those of length 1
        let table = spec.table(1);
        let angles = (0..len).flat_map(|index| {
            let (index, size) = (index as f32, table.magnitude);
            table.inv_freq.iter().map(move |&frequency| (frequency * index, size))
        });
        let tables = Tables::new(angles, spec.dim / 2, device)?;
        (self.len, self.tables) = (len, Some(tables.clone()));
        Ok(tables)
    }
}

/// The turn of each row of a step.
#[derive(Debug)]
pub(crate) struct Turn {
    tables: Tables,
    /// The row of the tables that turns each row of the step.
    angles: Range<usize>,
    /// Those rows themselves, `[rows, 1, dim / 2]`, once they were asked for.
    gathered: Option<(Tensor, Tensor)>,
    /// Coordinates of a head that turn.
    dim: usize,
    layout: RopeLayout,
}

impl Turn {
    /// The turns of all rows of `sequences`.
    pub(crate) fn new(
        spec: &RopeSpec,
        sequences: &[SequenceStep],
        known: &mut Known,
        words: &mut Words,
        device: &Device,
    ) -> Result<Self> {
        let by_index =
            spec.changes_after().is_none() && sequences.iter().all(|s| s.rope_positions.is_empty());
        let (tables, angles) = if by_index {
            let len = sequences.iter().map(|s| s.start + s.num_rows).max().unwrap_or(0);
            let indices = sequences.iter().flat_map(|s| s.start as u32..(s.start + s.num_rows) as u32);
            (known.up_to(len, spec, device)?, indices.collect())
        } else {
            let rows = sequences.iter().map(|s| s.num_rows as u32).sum();
            (Self::of_rows(spec, sequences, device)?, (0..rows).collect::<Vec<u32>>())
        };
        Ok(Self { tables, angles: words.put(&angles), gathered: None, dim: spec.dim, layout: spec.layout })
    }

    /// A turn a row, where they follow from more than the index.
    fn of_rows(spec: &RopeSpec, sequences: &[SequenceStep], device: &Device) -> Result<Tables> {
        let axes = spec.axes();
        let mut known: Option<(usize, RopeTable)> = None;
        let mut angles = Vec::new();
        for sequence in sequences {
            for row in 0..sequence.num_rows {
                let index = sequence.start + row;
                let len = spec.changes_after().map_or(1, |_| sequence.rope_len.max(index + 1));
                if known.as_ref().is_none_or(|(l, _)| *l != len) {
                    known = Some((len, spec.table(len)));
                }
                let Some((_, table)) = &known else { continue };
                let place = sequence.rope_positions.get(row).copied().unwrap_or([index as u32; 3]);
                let turned = table.inv_freq.iter().zip(&axes).map(|(&f, &axis)| f * place[axis] as f32);
                angles.extend(turned.map(|angle| (angle, table.magnitude)));
            }
        }
        Tables::new(angles.into_iter(), spec.dim / 2, device)
    }

    /// As a kernel is told of it.
    pub(crate) fn told(&self) -> (&Tensor, &Tensor, &Range<usize>, usize, RopeLayout) {
        (&self.tables.cos, &self.tables.sin, &self.angles, self.dim, self.layout)
    }

    /// `x` of shape `[rows, heads, head_dim]`, turned.
    pub(crate) fn apply(&mut self, x: &Tensor, words: &Words) -> Result<Tensor> {
        let (rows, heads, head_dim) = x.dims3()?;
        let half = self.dim / 2;
        let (cos, sin) = match &self.gathered {
            Some(turns) => turns.clone(),
            None => {
                let angles = words.view(&self.angles)?;
                let gather = |table: &Tensor| table.index_select(&angles, 0)?.reshape((rows, 1, half));
                let turns = (gather(&self.tables.cos)?, gather(&self.tables.sin)?);
                self.gathered = Some(turns.clone());
                turns
            }
        };
        let (a, b) = match self.layout {
            RopeLayout::Half => (x.narrow(2, 0, half)?, x.narrow(2, half, half)?),
            RopeLayout::Interleaved => {
                let pairs = x.narrow(2, 0, self.dim)?.reshape((rows, heads, half, 2))?;
                (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?)
            }
        };
        let turned_a = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let turned_b = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
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

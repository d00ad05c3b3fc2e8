//! Softmax attention over the cache, sequence by sequence, in f32.
//!
//! The plain road, right on every device: a sequence's blocks are gathered once a layer, then the
//! queries go over them in pieces whose scores stay within a bound. Query heads of a group share
//! their keys in one product.

use alloyforge_types::AttentionSpec;
use candle_core::{D, Device, Result, Tensor};

use crate::cache::Cache;
use crate::step::{Sequence, Step, first_seen};

/// Scores that exist at a time: 64 MiB of f32.
pub(crate) const SCORE_VALUES: usize = 1 << 24;

/// Attention of one layer.
pub(crate) struct Attention<'a> {
    pub(crate) spec: &'a AttentionSpec,
    /// Of shape `[heads, 1, 1]`.
    pub(crate) sinks: Option<&'a Tensor>,
    pub(crate) cache: &'a Cache,
    pub(crate) layer: usize,
    pub(crate) group: usize,
}

impl Attention<'_> {
    /// From queries `[rows, heads, head_dim]` to `[rows, heads * head_dim]`.
    pub(crate) fn run(&self, q: &Tensor, step: &mut Step) -> Result<Tensor> {
        let Step { sequences, masks, rows, .. } = step;
        let window = self.spec.window;
        let mut parts = Vec::with_capacity(sequences.len());
        for (s, sequence) in sequences.iter().enumerate() {
            let span = &sequence.spans[self.group];
            let (k, v) = self.cache.read(self.layer, span, self.spec.num_kv_heads)?;
            let piece = (SCORE_VALUES / (self.spec.num_heads * span.len)).clamp(1, sequence.num_rows);
            for from in (0..sequence.num_rows).step_by(piece) {
                let to = (from + piece).min(sequence.num_rows);
                let seen = Seen::new(sequence, from, to, window);
                let mask = match masks.get(&(s, from, window)) {
                    Some(mask) => mask.clone(),
                    None => {
                        let mask = seen.mask(q.device())?;
                        masks.insert((s, from, window), mask.clone());
                        mask
                    }
                };
                let (offset, len) = (seen.first - span.first, seen.end - seen.first);
                let q = q.narrow(0, sequence.first_row + from, to - from)?;
                let out =
                    self.piece(&q, &k.narrow(1, offset, len)?, &v.narrow(1, offset, len)?, mask.as_ref())?;
                parts.push(out);
            }
        }
        debug_assert_eq!(parts.iter().map(|p| p.dim(0).unwrap_or(0)).sum::<usize>(), *rows);
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            parts => Tensor::cat(parts, 0),
        }
    }

    /// One sequence's queries `[rows, heads, head_dim]` over keys and values
    /// `[kv_heads, len, head_dim]`, with a mask `[rows, len]`.
    fn piece(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (rows, heads, head_dim) = q.dims3()?;
        let (kv_heads, len, _) = k.dims3()?;
        let sharing = heads / kv_heads;
        let q = q
            .reshape((rows, kv_heads, sharing, head_dim))?
            .permute((1, 2, 0, 3))?
            .contiguous()?
            .reshape((kv_heads, sharing * rows, head_dim))?;
        let scores = q.matmul(&k.transpose(1, 2)?)?.reshape((heads, rows, len))?;
        let scale = f64::from(self.spec.scale);
        let scores = match self.spec.softcap.map(f64::from) {
            None => (scores * scale)?,
            Some(cap) => ((scores * (scale / cap))?.tanh()? * cap)?,
        };
        let scores = match mask {
            None => scores,
            Some(mask) => scores.broadcast_add(mask)?,
        };
        self.softmax(&scores)?
            .reshape((kv_heads, sharing * rows, len))?
            .matmul(v)?
            .reshape((kv_heads, sharing, rows, head_dim))?
            .permute((2, 0, 1, 3))?
            .contiguous()?
            .reshape((rows, heads * head_dim))
    }

    /// Over the last dimension of `[heads, rows, len]`. A sink is one more score of its head, without a
    /// value: it enters the sum alone.
    fn softmax(&self, scores: &Tensor) -> Result<Tensor> {
        let max = scores.max_keepdim(D::Minus1)?;
        let max = match self.sinks {
            None => max,
            Some(sinks) => max.broadcast_maximum(sinks)?,
        };
        let exp = scores.broadcast_sub(&max)?.exp()?;
        let sum = exp.sum_keepdim(D::Minus1)?;
        let sum = match self.sinks {
            None => sum,
            Some(sinks) => (sum + sinks.broadcast_sub(&max)?.exp()?)?,
        };
        exp.broadcast_div(&sum)
    }
}

/// Which tokens some rows of a sequence see.
struct Seen<'a> {
    /// The first token that any of them sees.
    first: usize,
    /// One past the last.
    end: usize,
    /// The index of the first row.
    start: usize,
    /// For each row, one past the last token that it sees.
    ends: &'a [usize],
    window: Option<usize>,
}

impl<'a> Seen<'a> {
    /// What rows `from .. to` of `sequence` see.
    fn new(sequence: &'a Sequence, from: usize, to: usize, window: Option<usize>) -> Self {
        let ends = &sequence.ends[from..to];
        let start = sequence.start + from;
        let end = ends.iter().copied().max().unwrap_or(start);
        Self { first: first_seen(start, window), end, start, ends, window }
    }

    /// Zero where a row sees a token and minus infinity elsewhere, of shape `[rows, end - first]`;
    /// `None` where every row sees all.
    fn mask(&self, device: &Device) -> Result<Option<Tensor>> {
        let first = |row: usize| first_seen(self.start + row, self.window);
        if (0..self.ends.len()).all(|row| first(row) == self.first && self.ends[row] == self.end) {
            return Ok(None);
        }
        let len = self.end - self.first;
        let mut mask = vec![f32::NEG_INFINITY; self.ends.len() * len];
        for (row, (mask, &end)) in mask.chunks_mut(len).zip(self.ends).enumerate() {
            mask[first(row) - self.first..end - self.first].fill(0.0);
        }
        Tensor::from_vec(mask, (self.ends.len(), len), device).map(Some)
    }
}

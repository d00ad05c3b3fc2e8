//! Softmax attention over the cache, sequence by sequence: in f32 on the CPU, elsewhere in the cache's type
//! with scores and weights in f32.
//!
//! The plain road, right on every device: a sequence's blocks are gathered once a layer, then the
//! queries go over them in pieces whose scores stay within a bound. Query heads of a group share
//! their keys in one product.

use alloyforge_types::AttentionSpec;
use candle_core::{D, DType, Device, Result, Tensor};

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
    /// The type of the output.
    pub(crate) out: DType,
}

impl Attention<'_> {
    /// From queries `[rows, heads, head_dim]` to `[rows, heads * head_dim]`.
    pub(crate) fn run(&self, q: &Tensor, step: &mut Step) -> Result<Tensor> {
        let Step { sequences, masks, rows, words, .. } = step;
        let window = self.spec.window;
        let mut parts = Vec::with_capacity(sequences.len());
        for (s, sequence) in sequences.iter().enumerate() {
            let span = &sequence.spans[self.group];
            let (k, v) = self.cache.read(self.layer, span, self.spec.num_kv_heads, words)?;
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
            [one] => one.to_dtype(self.out),
            parts => Tensor::cat(parts, 0)?.to_dtype(self.out),
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
        let mut scale = f64::from(self.spec.scale);
        let q = match k.dtype() {
            DType::F32 => q.to_dtype(DType::F32)?,
            // scaled before they are rounded, so that no product leaves a narrow type's range
            narrow => (q.to_dtype(DType::F32)? * std::mem::replace(&mut scale, 1.0))?.to_dtype(narrow)?,
        };
        let scores = q.matmul(&k.transpose(1, 2)?)?.to_dtype(DType::F32)?.reshape((heads, rows, len))?;
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
            .to_dtype(v.dtype())?
            .matmul(v)?
            .to_dtype(DType::F32)?
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
        // made where it is used, from the bounds of each row
        let (rows, shape) = (self.ends.len(), (self.ends.len(), self.end - self.first));
        let begins: Vec<u32> = (0..rows).map(|row| first(row) as u32).collect();
        let ends: Vec<u32> = self.ends.iter().map(|&end| end as u32).collect();
        let tokens = Tensor::arange(self.first as u32, self.end as u32, device)?.broadcast_as(shape)?;
        let bound = |numbers: Vec<u32>| Tensor::from_vec(numbers, (rows, 1), device)?.broadcast_as(shape);
        let is_seen = (tokens.ge(&bound(begins)?)? * tokens.lt(&bound(ends)?)?)?;
        let number = |x: f32| Tensor::full(x, shape, device);
        is_seen.where_cond(&number(0.0)?, &number(f32::NEG_INFINITY)?).map(Some)
    }
}

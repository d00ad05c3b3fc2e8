//! A decoder that embeds: texts go through its layers, and what stands before its head is pooled.

use std::sync::{Mutex, PoisonError};

use alloyforge_interfaces::{MemoryUse, Model, TextEncoder, WeightSource};
use alloyforge_types::{
    BLOCK_LEN, Batch, BlockId, Error, NormKind, Pooling, QuantType, Result, Role, SequenceStep,
};
use half::{bf16, f16};

/// Texts that are computed together at the most.
const MAX_TEXTS: usize = 64;

/// A decoder with a way of pooling.
pub struct DecoderEmbedder {
    model: Mutex<Box<dyn Model>>,
    norm: Vec<f32>,
    norm_eps: f32,
    pooling: Pooling,
    limits: EmbedderLimits,
    vocab_size: usize,
    memory: MemoryUse,
}

/// How much a [`DecoderEmbedder`] takes.
#[derive(Debug, Clone, Copy)]
pub struct EmbedderLimits {
    /// Rows of one step, which the model was loaded for, also as rows that are asked for.
    pub max_rows: usize,
    /// Most tokens of a text.
    pub max_len: usize,
}

/// The weight of the norm before the head, which a pooled row goes through.
///
/// # Errors
/// `Format` where it is missing, `Unsupported` for a kind or type that is not known.
pub fn last_norm(weights: &dyn WeightSource, norm: NormKind) -> Result<Vec<f32>> {
    let weight = weights.weight(Role::FinalNorm)?;
    if norm != NormKind::Rms {
        return Err(Error::unsupported(weight.name, format!("a norm {norm:?} behind which rows are pooled")));
    }
    let pairs = || weight.data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match weight.ty {
        QuantType::F32 => {
            Ok(weight.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        }
        QuantType::F16 => Ok(pairs().map(|bits| f16::from_bits(bits).to_f32()).collect()),
        QuantType::BF16 => Ok(pairs().map(|bits| bf16::from_bits(bits).to_f32()).collect()),
        ty => Err(Error::unsupported(weight.name, format!("a norm of type {}", ty.name()))),
    }
}

/// A text, or a piece of a long one, in a step.
struct Piece {
    text: usize,
    from: usize,
    to: usize,
}

/// What becomes of a text's rows.
struct Pooled {
    sum: Vec<f64>,
    count: usize,
}

impl DecoderEmbedder {
    /// Embeds with `model`, behind whose last norm, of weight `norm`, rows are pooled.
    ///
    /// # Errors
    /// `Unsupported` for a way of pooling that is none of a decoder's; `OutOfMemory`.
    pub fn new(
        mut model: Box<dyn Model>,
        norm: Vec<f32>,
        pooling: Pooling,
        limits: EmbedderLimits,
    ) -> Result<Self> {
        let spec = model.spec();
        if matches!(pooling, Pooling::HighestId | Pooling::Token(_)) {
            return Err(Error::unsupported(&spec.architecture, format!("pooling {pooling:?}")));
        }
        if norm.len() != spec.hidden_dim || limits.max_rows == 0 || limits.max_len == 0 {
            return Err(Error::internal(format!("an embedder of {limits:?}")));
        }
        let (norm_eps, vocab_size, groups) = (spec.norm_eps, spec.vocab_size, spec.kv_groups.len());
        let short = limits.max_rows.div_ceil(BLOCK_LEN) + MAX_TEXTS;
        model.reserve_kv(&vec![limits.max_len.div_ceil(BLOCK_LEN).max(short); groups])?;
        let memory = model.memory();
        Ok(Self { model: Mutex::new(model), norm, norm_eps, pooling, limits, vocab_size, memory })
    }

    /// Bytes held.
    pub fn memory(&self) -> MemoryUse {
        self.memory
    }

    /// Runs the steps of texts that fit the cache together, and adds up what their rows give.
    fn run(&self, texts: &[Vec<u32>], group: &[usize], pooled: &mut [Pooled]) -> Result<()> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let num_groups = model.spec().kv_groups.len();
        let hidden = model.spec().hidden_dim;
        let mut next = 0;
        let tables: Vec<Vec<BlockId>> = group
            .iter()
            .map(|&i| {
                let first = next;
                next += texts[i].len().div_ceil(BLOCK_LEN);
                (first as BlockId..next as BlockId).collect()
            })
            .collect();
        let longest = group.iter().map(|&i| texts[i].len()).max().unwrap_or(0);
        let mut out = Vec::new();
        // one step, but for a text that is longer than one
        for from in (0..longest).step_by(self.limits.max_rows) {
            let piece =
                |&text: &usize| Piece { text, from, to: texts[text].len().min(from + self.limits.max_rows) };
            let pieces: Vec<Piece> = group.iter().map(piece).filter(|p| p.from < p.to).collect();
            let mut batch = Batch::default();
            let mut owners = Vec::new();
            for (piece, table) in pieces.iter().zip(&tables) {
                let (text, first) = (&texts[piece.text], batch.tokens.len());
                let wanted = match self.pooling {
                    Pooling::Last => text.len() - 1..text.len(),
                    Pooling::First => 0..1,
                    _ => 0..text.len(),
                };
                for at in wanted.start.max(piece.from)..wanted.end.min(piece.to) {
                    batch.logit_rows.push(first + at - piece.from);
                    owners.push(piece.text);
                }
                batch.tokens.extend_from_slice(&text[piece.from..piece.to]);
                batch.sequences.push(SequenceStep {
                    num_rows: piece.to - piece.from,
                    start: piece.from,
                    rope_len: text.len(),
                    tables: vec![table[..piece.to.div_ceil(BLOCK_LEN)].to_vec(); num_groups],
                    ..SequenceStep::default()
                });
            }
            model.hidden(&batch, &mut out)?;
            for (row, owner) in out.chunks_exact(hidden).zip(owners) {
                self.take(row, &mut pooled[owner]);
            }
        }
        Ok(())
    }

    /// Adds the norm of one row.
    fn take(&self, row: &[f32], pooled: &mut Pooled) {
        let square = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (square + f64::from(self.norm_eps)).sqrt();
        let normed = row.iter().zip(&self.norm).map(|(x, w)| f64::from(*x) * scale * f64::from(*w));
        for (sum, value) in pooled.sum.iter_mut().zip(normed) {
            *sum = match self.pooling {
                Pooling::Max if pooled.count > 0 => sum.max(value),
                Pooling::Mean => *sum + value,
                _ => value,
            };
        }
        pooled.count += 1;
    }
}

impl TextEncoder for DecoderEmbedder {
    fn max_len(&self) -> usize {
        self.limits.max_len
    }

    fn dim(&self) -> usize {
        self.norm.len()
    }

    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        for text in texts {
            if text.is_empty() {
                return Err(Error::invalid("texts", "holds a text without tokens"));
            }
            if text.len() > self.limits.max_len {
                return Err(Error::ContextLength { tokens: text.len(), limit: self.limits.max_len });
            }
            if let Some(id) = text.iter().find(|&&id| id as usize >= self.vocab_size) {
                return Err(Error::invalid("texts", format!("token id {id} is outside the vocabulary")));
            }
        }
        let dim = self.dim();
        let mut pooled: Vec<Pooled> =
            texts.iter().map(|_| Pooled { sum: vec![0.0; dim], count: 0 }).collect();
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| texts[i].len());
        let mut first = 0;
        while first < order.len() {
            let mut rows = 0;
            let fits = |&&i: &&usize| {
                rows += texts[i].len();
                rows <= self.limits.max_rows
            };
            let count = order[first..].iter().take(MAX_TEXTS).take_while(fits).count().max(1);
            self.run(texts, &order[first..first + count], &mut pooled)?;
            first += count;
        }
        let values = pooled.iter().flat_map(|text| {
            let count = if self.pooling == Pooling::Mean { text.count.max(1) as f64 } else { 1.0 };
            text.sum.iter().map(move |sum| (sum / count) as f32)
        });
        Ok(values.collect())
    }

    fn bytes(&self) -> u64 {
        self.memory.weights
    }
}

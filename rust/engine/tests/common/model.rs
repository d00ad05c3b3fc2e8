//! A language model of hashes that keeps its keys and values in real block tables.
//!
//! A cache slot holds a number made of its token, its index, its rotary table and every slot that the
//! token attends to, in every KV group. So a block that is missing, stale, shared wrongly or computed
//! under another table changes every token from there on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alloyforge_interfaces::{MemoryUse, Model};
use alloyforge_types::{
    Activation, AttentionSpec, BLOCK_LEN, Batch, BlockId, DrawnToken, Error, KvType, LayerSpec, MlpSpec,
    ModelSpec, NO_BLOCK, NormPlacement, Result, RopeLayout, RopeScaling, RopeSpec, SequenceStep, TokenDraw,
};

use super::UNSPEAKABLE;

/// The count of tokens: those of the tokenizer and some that have no text.
const VOCAB: usize = 280;

/// A token that the model panics over.
pub const PANIC: u32 = 270;
/// A token behind which the logits are not numbers.
pub const NAN: u32 = 271;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rope {
    Plain,
    /// LongRoPE, with its switch after so many tokens.
    Long(usize),
    /// Dynamic, growing beyond so many tokens.
    Dynamic(usize),
}

pub struct HashLm {
    spec: ModelSpec,
    slots: Vec<Vec<u64>>,
    /// How long a row takes.
    pub row_time: Duration,
    /// How long a step takes beside its rows.
    pub step_time: Duration,
    /// Of how many of its logits' rows one is wrong; 0: none.
    pub wrong_in: u64,
    /// The index of a token from which on it panics.
    pub panics_after: usize,
    /// How many tokens it drew, where it draws them itself.
    pub drawn: Option<Arc<AtomicUsize>>,
}

pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl HashLm {
    /// A model with one layer for each of `windows`.
    pub fn new(windows: &[Option<usize>], rope: Rope) -> Self {
        let scaling = match rope {
            Rope::Plain => RopeScaling::None,
            Rope::Long(original_len) => {
                RopeScaling::LongRope { short: vec![1.0], long: vec![2.0], original_len, magnitude: 1.0 }
            }
            Rope::Dynamic(original_len) => RopeScaling::Dynamic { factor: 2.0, original_len },
        };
        let layer = |&window| LayerSpec {
            attention: AttentionSpec { scale: 1.0, rope: Some(0), window, ..AttentionSpec::plain(1, 1, 2) },
            mlp: MlpSpec::Dense { ff_dim: 2, activation: Activation::Silu, has_bias: false },
            norms: NormPlacement::Pre,
            cross: None,
            kv_group: 0,
        };
        let spec = ModelSpec {
            vocab_size: VOCAB,
            context_len: 512,
            ropes: vec![RopeSpec {
                theta: 10_000.0,
                dim: 2,
                layout: RopeLayout::Half,
                scaling,
                sections: None,
            }],
            ..ModelSpec::plain("hash", 2, windows.iter().map(layer).collect())
        };
        let (row_time, step_time) = (Duration::ZERO, Duration::ZERO);
        Self {
            spec,
            slots: Vec::new(),
            row_time,
            step_time,
            wrong_in: 0,
            panics_after: usize::MAX,
            drawn: None,
        }
    }

    fn table(&self, rope_len: usize, index: usize) -> u64 {
        let len = rope_len.max(index + 1);
        match self.spec.ropes[0].scaling {
            RopeScaling::LongRope { original_len, .. } => u64::from(len > original_len),
            RopeScaling::Dynamic { original_len, .. } => len.saturating_sub(original_len) as u64,
            _ => 0,
        }
    }

    /// Bytes of one block of every group together.
    pub fn block_bytes(&self) -> u64 {
        let groups = 0..self.spec.kv_groups.len();
        groups.map(|g| (self.spec.kv_token_bytes(g, KvType::F32) * BLOCK_LEN) as u64).sum()
    }

    /// What the model says of `tokens` when it is asked without any engine: a row of logits each.
    pub fn plainly(self, tokens: &[u32]) -> Vec<f32> {
        self.plainly_for(tokens, tokens.len())
    }

    /// As [`plainly`](Self::plainly), with the given `rope_len`.
    pub fn plainly_for(mut self, tokens: &[u32], rope_len: usize) -> Vec<f32> {
        let num_blocks = tokens.len().div_ceil(BLOCK_LEN);
        let num_groups = self.spec.kv_groups.len();
        self.reserve_kv(&vec![num_blocks; num_groups]).unwrap();
        let batch = Batch {
            tokens: tokens.to_vec(),
            sequences: vec![SequenceStep {
                num_rows: tokens.len(),
                start: 0,
                rope_len,
                tables: vec![(0..num_blocks as BlockId).collect(); num_groups],
                ..Default::default()
            }],
            logit_rows: (0..tokens.len()).collect(),
            embeds: Vec::new(),
            watched_heads: Vec::new(),
        };
        let mut logits = Vec::new();
        self.forward(&batch, &mut logits).unwrap();
        logits
    }
}

impl Model for HashLm {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn device(&self) -> &str {
        "cpu"
    }

    fn kv_type(&self) -> KvType {
        KvType::F32
    }

    fn threads(&self) -> usize {
        1
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { kv: self.slots.iter().map(|s| s.len() as u64 * 16).sum(), ..MemoryUse::default() }
    }

    fn reserve_kv(&mut self, blocks: &[usize]) -> Result<()> {
        self.slots = blocks.iter().map(|n| vec![0; n * BLOCK_LEN]).collect();
        Ok(())
    }

    fn forward(&mut self, batch: &Batch, logits: &mut Vec<f32>) -> Result<()> {
        std::thread::sleep(self.step_time + self.row_time * batch.tokens.len() as u32);
        logits.clear();
        let mut row = 0;
        for sequence in &batch.sequences {
            for i in sequence.start..sequence.start + sequence.num_rows {
                let token = batch.tokens[row];
                assert!(token != PANIC && i < self.panics_after, "the model panics");
                let mut seen = mix(u64::from(token) << 20 | i as u64) ^ self.table(sequence.rope_len, i);
                for span in &batch.embeds {
                    if (span.first_row..span.first_row + span.rows.len()).contains(&row) {
                        let at = 2 * (span.rows.start + row - span.first_row);
                        seen = mix(seen ^ u64::from(span.values[at].to_bits()));
                    }
                }
                let end = sequence.attend_end.get(i - sequence.start).copied().unwrap_or(i + 1);
                assert!(end <= sequence.start + sequence.num_rows, "row {i} sees {end}");
                seen ^= mix(end as u64);
                for (g, group) in self.spec.kv_groups.iter().enumerate() {
                    let first = group.window.map_or(0, |w| (i + 1).saturating_sub(w));
                    for j in first..i {
                        let block = sequence.tables[g][j / BLOCK_LEN];
                        if block == NO_BLOCK {
                            return Err(Error::internal(format!("row {i} sees a block that is gone")));
                        }
                        seen = mix(seen ^ self.slots[g][block as usize * BLOCK_LEN + j % BLOCK_LEN]);
                    }
                    let block = sequence.tables[g][i / BLOCK_LEN];
                    self.slots[g][block as usize * BLOCK_LEN + i % BLOCK_LEN] = mix(seen ^ g as u64);
                }
                if batch.logit_rows.contains(&row) {
                    if self.wrong_in > 0 && seen.is_multiple_of(self.wrong_in) {
                        seen = mix(seen);
                    }
                    let logit = |v: usize| match v as u32 {
                        // never drawn unless a request says so
                        PANIC | NAN | UNSPEAKABLE => -100.0,
                        _ => (mix(seen ^ (v as u64) << 40) >> 40) as f32 / (1 << 21) as f32 - 4.0,
                    };
                    logits.extend((0..VOCAB).map(|v| if token == NAN { f32::NAN } else { logit(v) }));
                }
                row += 1;
            }
        }
        Ok(())
    }

    fn can_draw(&self) -> bool {
        self.drawn.is_some()
    }

    fn draw(&mut self, batch: &Batch, draws: &[TokenDraw]) -> Result<Vec<DrawnToken>> {
        let mut logits = Vec::new();
        self.forward(batch, &mut logits)?;
        if let Some(drawn) = &self.drawn {
            drawn.fetch_add(draws.len(), Ordering::Relaxed);
        }
        Ok(draws.iter().map(|draw| drawn_from(&logits[draw.row * VOCAB..][..VOCAB], draw)).collect())
    }

    fn read_block(&self, group: usize, block: BlockId, out: &mut Vec<u8>) -> Result<()> {
        let slots = &self.slots[group][block as usize * BLOCK_LEN..][..BLOCK_LEN];
        out.extend(slots.iter().flat_map(|s| s.to_le_bytes()));
        Ok(())
    }

    fn write_block(&mut self, group: usize, block: BlockId, bytes: &[u8]) -> Result<()> {
        if bytes.len() != 8 * BLOCK_LEN {
            return Err(Error::invalid("block", "has another length"));
        }
        let slots = &mut self.slots[group][block as usize * BLOCK_LEN..][..BLOCK_LEN];
        for (slot, bytes) in slots.iter_mut().zip(bytes.chunks_exact(8)) {
            *slot = u64::from_le_bytes(bytes.try_into().unwrap());
        }
        Ok(())
    }

    fn copy_blocks(&mut self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        // all at once, as a device may do it
        let before = self.slots[group].clone();
        for &(from, to) in pairs {
            let (from, to) = (from as usize * BLOCK_LEN, to as usize * BLOCK_LEN);
            self.slots[group][to..to + BLOCK_LEN].copy_from_slice(&before[from..from + BLOCK_LEN]);
        }
        Ok(())
    }
}

/// A draw by its definition, in float64.
fn drawn_from(logits: &[f32], draw: &TokenDraw) -> DrawnToken {
    if logits.iter().any(|l| l.is_nan()) {
        return DrawnToken::NotNumbers;
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if draw.temperature == 0.0 {
        return DrawnToken::Token(logits.iter().position(|&l| l == max).unwrap() as u32);
    }
    let weight = |l: f32| (f64::from(l - max) / f64::from(draw.temperature)).exp();
    let mut left = draw.number * logits.iter().map(|&l| weight(l)).sum::<f64>();
    let place = logits.iter().position(|&l| {
        left -= weight(l);
        left < 0.0
    });
    DrawnToken::Token(place.unwrap_or(logits.len() - 1) as u32)
}

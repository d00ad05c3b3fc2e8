//! Random models and an engine in miniature, for the tests of this crate.
#![allow(dead_code, reason = "every test file uses its own part")]

pub mod oracle;
pub mod random;

use std::borrow::Cow;
use std::collections::HashMap;

use alloyforge_backend_cpu::CpuBackend;
use alloyforge_interfaces::{Backend, LoadOptions, WeightSource};
use alloyforge_types::{
    BLOCK_LEN, Batch, BlockId, Error, KvType, ModelSpec, NO_BLOCK, QuantType, Result, Role, SequenceStep,
    Weight,
};

/// A weight with the numbers that its bytes mean.
pub struct Stored {
    pub ty: QuantType,
    pub rows: usize,
    pub cols: usize,
    pub data: Vec<u8>,
    pub numbers: Vec<f32>,
}

/// A model's weights in memory.
#[derive(Default)]
pub struct Stock(pub HashMap<Role, Stored>);

impl WeightSource for Stock {
    fn weight(&self, role: Role) -> Result<Weight<'_>> {
        let stored =
            self.0.get(&role).ok_or_else(|| Error::format("memory", format!("{role:?}"), "is missing"))?;
        Ok(Weight {
            name: format!("{role:?}"),
            ty: stored.ty,
            rows: stored.rows,
            cols: stored.cols,
            data: Cow::Borrowed(&stored.data),
        })
    }
}

/// Options for small models.
pub fn options(kv_type: KvType, threads: usize) -> LoadOptions {
    LoadOptions {
        dtype: None,
        quantize: None,
        kv_type: Some(kv_type),
        threads: Some(threads),
        max_rows: 512,
        max_logit_rows: 512,
        kv_bytes: None,
        progress: None,
    }
}

/// What a sequence is made of.
#[derive(Debug, Clone, Default)]
pub struct Text {
    pub tokens: Vec<u32>,
    pub embeds: Vec<alloyforge_types::EmbedSpan>,
    /// For every token, or empty.
    pub attend_end: Vec<usize>,
    pub rope_positions: Vec<[u32; 3]>,
    pub rope_len: usize,
}

/// Hands out blocks in a scattered order and runs steps, as an engine would.
pub struct Runner {
    pub backend: CpuBackend,
    pub spec: ModelSpec,
    free: Vec<Vec<BlockId>>,
}

/// A sequence that is being computed.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    pub done: usize,
    pub tables: Vec<Vec<BlockId>>,
}

impl Runner {
    pub fn new(spec: &ModelSpec, mut backend: CpuBackend, num_blocks: usize, seed: u64) -> Self {
        backend.reserve_kv(&vec![num_blocks; spec.kv_groups.len()]).expect("blocks");
        let mut random = random::Random(seed);
        let free = spec.kv_groups.iter().map(|_| random.shuffled(num_blocks)).collect();
        Self { backend, spec: spec.clone(), free }
    }

    /// Gives `cursor` blocks for tokens up to `end` and takes back those behind the windows.
    pub fn cover(&mut self, cursor: &mut Cursor, end: usize) {
        cursor.tables.resize(self.spec.kv_groups.len(), Vec::new());
        for ((table, free), group) in cursor.tables.iter_mut().zip(&mut self.free).zip(&self.spec.kv_groups) {
            while table.len() * BLOCK_LEN < end {
                table.push(free.pop().expect("a free block"));
            }
            let oldest = group.window.map_or(0, |w| (cursor.done + 1).saturating_sub(w));
            for block in table[..oldest / BLOCK_LEN].iter_mut().filter(|b| **b != NO_BLOCK) {
                free.insert(0, std::mem::replace(block, NO_BLOCK));
            }
        }
    }

    /// Computes the next `counts[i]` tokens of every `(text, cursor)`, and gives all their logits.
    pub fn step(&mut self, parts: &mut [(&Text, &mut Cursor, usize)]) -> Result<Vec<Vec<Vec<f32>>>> {
        let mut batch = Batch::default();
        for (text, cursor, count) in parts.iter_mut() {
            let (from, to) = (cursor.done, cursor.done + *count);
            self.cover(cursor, to);
            let first_row = batch.tokens.len();
            batch.tokens.extend(&text.tokens[from..to]);
            for span in &text.embeds {
                let (a, b) = (span.first_row.max(from), (span.first_row + span.rows.len()).min(to));
                if a < b {
                    let at = span.rows.start + a - span.first_row;
                    batch.embeds.push(alloyforge_types::EmbedSpan {
                        first_row: first_row + a - from,
                        values: span.values.clone(),
                        rows: at..at + b - a,
                        deeper: span.deeper.clone(),
                    });
                }
            }
            let part = |all: &[usize]| if all.is_empty() { vec![] } else { all[from..to].to_vec() };
            batch.sequences.push(SequenceStep {
                num_rows: *count,
                start: from,
                rope_len: text.rope_len,
                tables: cursor.tables.clone(),
                attend_end: part(&text.attend_end),
                rope_positions: match text.rope_positions.as_slice() {
                    [] => vec![],
                    all => all[from..to].to_vec(),
                },
                states: None,
            });
            cursor.done = to;
        }
        batch.logit_rows = (0..batch.tokens.len()).collect();
        let logits = self.forward(&batch)?;
        let mut rows = logits.chunks_exact(self.spec.vocab_size).map(<[f32]>::to_vec);
        Ok(parts.iter().map(|(_, _, count)| rows.by_ref().take(*count).collect()).collect())
    }

    /// One step of the phases.
    pub fn forward(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let mut logits = vec![f32::NAN; batch.logit_rows.len() * self.spec.vocab_size];
        let b = &mut self.backend;
        b.begin(batch)?;
        b.embed()?;
        for layer in 0..self.spec.layers.len() {
            b.qkv(layer)?;
            b.attend(layer)?;
            b.output(layer)?;
            b.mlp(layer)?;
        }
        b.final_norm()?;
        b.logits(&mut logits)?;
        Ok(logits)
    }

    /// All logits of `text`, computed alone, in chunks of these lengths.
    pub fn alone(&mut self, text: &Text, chunks: &[usize]) -> Vec<Vec<f32>> {
        let mut cursor = Cursor::default();
        let mut logits = Vec::new();
        for &chunk in chunks {
            logits.extend(self.step(&mut [(text, &mut cursor, chunk)]).expect("a step").remove(0));
        }
        assert_eq!(cursor.done, text.tokens.len());
        self.release(cursor);
        logits
    }

    /// Takes a sequence's blocks back.
    pub fn release(&mut self, cursor: Cursor) {
        for (free, table) in self.free.iter_mut().zip(cursor.tables) {
            free.extend(table.into_iter().filter(|&b| b != NO_BLOCK));
        }
    }
}

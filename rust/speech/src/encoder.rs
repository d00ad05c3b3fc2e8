//! An encoder of sound: convolutions, positions, layers that see everything, a norm.

use std::sync::Arc;

use alloyforge_interfaces::{Model, TensorStore};
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::norm;
use alloyforge_kernels::pool::Pool;
use alloyforge_types::{BLOCK_LEN, Batch, BlockId, EmbedSpan, Error, Result, SequenceStep};

use crate::linear::vector;
use crate::stem::Stem;

/// What an encoder is made of.
pub struct EncoderParts {
    /// Its layers, loaded for steps of `source_len` rows that are all asked for.
    pub layers: Box<dyn Model>,
    /// Where the rest of its weights are.
    pub store: Arc<dyn TensorStore>,
    /// What its tensors' names begin with.
    pub prefix: String,
    /// Numbers in a frame.
    pub num_mels: usize,
    /// Most rows that it gives.
    pub source_len: usize,
    /// Threads for what stands before and behind the layers.
    pub threads: usize,
}

/// A loaded encoder.
pub struct AudioEncoder {
    layers: Box<dyn Model>,
    pool: Arc<Pool>,
    isa: Isa,
    stem: Stem,
    /// `[source_len, width]`.
    positions: Vec<f32>,
    norm: [Vec<f32>; 2],
    num_mels: usize,
    source_len: usize,
    table: Vec<BlockId>,
}

impl AudioEncoder {
    /// Loads what stands around the layers.
    ///
    /// # Errors
    /// `Format` for a tensor that is missing or of the wrong shape; `OutOfMemory`.
    pub fn new(parts: EncoderParts) -> Result<Self> {
        let EncoderParts { mut layers, store, prefix, num_mels, source_len, threads } = parts;
        let (pool, isa) = (Pool::shared(threads)?, Isa::detect());
        let width = layers.spec().hidden_dim;
        let stem = Stem::load(&*store, &prefix, &pool, isa)?;
        let of_len = |name: &str, len: usize| vector(&*store, &format!("{prefix}.{name}"), len);
        let positions = of_len("embed_positions.weight", source_len * width)?;
        let norm = [of_len("layer_norm.weight", width)?, of_len("layer_norm.bias", width)?];
        let blocks = source_len.div_ceil(BLOCK_LEN);
        layers.reserve_kv(&[blocks])?;
        let table = (0..blocks as BlockId).collect();
        Ok(Self { layers, pool, isa, stem, positions, norm, num_mels, source_len, table })
    }

    /// Numbers in a frame.
    pub fn num_mels(&self) -> usize {
        self.num_mels
    }

    /// Most rows that it gives; a spectrum has twice as many frames.
    pub fn source_len(&self) -> usize {
        self.source_len
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.layers.spec().hidden_dim
    }

    /// The layers.
    pub fn layers(&self) -> &dyn Model {
        &*self.layers
    }

    /// The threads that it runs on.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The instruction set that it uses.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Bytes of the weights around the layers.
    pub fn bytes(&self) -> u64 {
        (self.stem.bytes() + 4 * self.positions.len()) as u64
    }

    /// The states of a spectrum `[frames, num_mels]`, `[rows, width]` with `rows` at most half as many;
    /// before the last norm, and only `rows` rows see each other.
    ///
    /// # Errors
    /// `Device`; `Internal` for a spectrum that is too long.
    pub fn raw_states(&mut self, mel: &[f32], rows: usize) -> Result<Vec<f32>> {
        let width = self.width();
        if self.pool.is_stale() {
            // this is a child of the process that loaded the model
            self.pool = Pool::shared(self.pool.threads())?;
        }
        let mut values = self.stem.run(&self.pool, self.isa, mel)?;
        if rows == 0 || rows > self.source_len || rows * width > values.len() {
            return Err(Error::internal(format!("{rows} rows of a spectrum of {} numbers", mel.len())));
        }
        values.truncate(rows * width);
        values.iter_mut().zip(&self.positions).for_each(|(value, position)| *value += position);
        let batch = Batch {
            tokens: vec![0; rows],
            sequences: vec![SequenceStep {
                num_rows: rows,
                rope_len: rows,
                tables: vec![self.table[..rows.div_ceil(BLOCK_LEN)].to_vec()],
                attend_end: vec![rows; rows],
                ..SequenceStep::default()
            }],
            logit_rows: (0..rows).collect(),
            embeds: vec![EmbedSpan {
                first_row: 0,
                values: values.into(),
                rows: 0..rows,
                deeper: Vec::new(),
            }],
            ..Batch::default()
        };
        let mut out = Vec::new();
        self.layers.hidden(&batch, &mut out)?;
        Ok(out)
    }

    /// The last norm, of every row of `states`.
    pub fn norm(&self, states: &[f32]) -> Vec<f32> {
        let width = self.norm[0].len();
        let mut out = vec![0.0; states.len()];
        for (from, to) in states.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            norm::layer_norm(self.isa, from, &self.norm[0], &self.norm[1], 1e-5, to);
        }
        out
    }

    /// The states of a whole window: `[source_len, width]` of a spectrum of twice as many frames.
    ///
    /// # Errors
    /// As [`raw_states`](Self::raw_states).
    pub fn states(&mut self, mel: &[f32]) -> Result<Vec<f32>> {
        let raw = self.raw_states(mel, self.source_len)?;
        Ok(self.norm(&raw))
    }
}

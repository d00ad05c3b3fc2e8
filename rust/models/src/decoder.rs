//! The one decoder.

use alloyforge_interfaces::{Backend, MemoryUse, Model};
use alloyforge_types::{Batch, BlockId, DrawnToken, Error, KvType, ModelSpec, Result, TokenDraw};

use crate::batch_check::BatchCheck;

/// Any spec on any backend: checks each batch, then drives the phases in their order.
#[derive(Debug)]
pub struct Decoder<B: Backend> {
    spec: ModelSpec,
    backend: B,
    check: BatchCheck,
}

impl<B: Backend> Decoder<B> {
    /// A decoder for `spec` on a `backend` that has loaded its weights.
    pub fn new(spec: ModelSpec, backend: B) -> Self {
        let check = BatchCheck::new(spec.kv_groups.len());
        Self { spec, backend, check }
    }

    /// Refuses steps of more rows, or of more rows with logits, than the backend was loaded for.
    #[must_use]
    pub fn with_limits(mut self, max_rows: usize, max_logit_rows: usize) -> Self {
        self.check.max_rows = max_rows;
        self.check.max_logit_rows = max_logit_rows;
        self
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }
}

impl<B: Backend> Decoder<B> {
    /// Runs the phases of every layer.
    fn layers(&mut self, batch: &Batch) -> Result<()> {
        self.check.batch(&self.spec, batch)?;
        if batch.tokens.is_empty() {
            return Ok(());
        }
        self.backend.begin(batch)?;
        self.backend.embed()?;
        for (i, layer) in self.spec.layers.iter().enumerate() {
            self.backend.qkv(i)?;
            self.backend.attend(i)?;
            self.backend.output(i)?;
            if layer.cross.is_some() {
                self.backend.cross(i)?;
            }
            self.backend.mlp(i)?;
        }
        Ok(())
    }
}

impl<B: Backend> Model for Decoder<B> {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn device(&self) -> &str {
        self.backend.device()
    }

    fn kv_type(&self) -> KvType {
        self.backend.kv_type()
    }

    fn threads(&self) -> usize {
        self.backend.threads()
    }

    fn memory(&self) -> MemoryUse {
        self.backend.memory()
    }

    fn free_memory(&self) -> Option<u64> {
        self.backend.free_memory()
    }

    fn reserve_kv(&mut self, blocks: &[usize]) -> Result<()> {
        if blocks.len() != self.spec.kv_groups.len() {
            let fault = format!("{} pools for {} KV groups", blocks.len(), self.spec.kv_groups.len());
            return Err(Error::internal(fault));
        }
        self.backend.reserve_kv(blocks)?;
        self.check.blocks = blocks.to_vec();
        Ok(())
    }

    fn forward(&mut self, batch: &Batch, logits: &mut Vec<f32>) -> Result<()> {
        logits.clear();
        self.layers(batch)?;
        // a chunk of a prompt that asks for nothing fills the cache and ends here
        if batch.logit_rows.is_empty() {
            return Ok(());
        }
        self.backend.final_norm()?;
        resize(logits, batch.logit_rows.len(), self.spec.vocab_size)?;
        self.backend.logits(logits)
    }

    fn can_draw(&self) -> bool {
        self.backend.can_draw()
    }

    fn draw(&mut self, batch: &Batch, draws: &[TokenDraw]) -> Result<Vec<DrawnToken>> {
        if let Some(draw) = draws.iter().find(|draw| draw.row >= batch.logit_rows.len()) {
            return Err(Error::internal(format!("{draw:?} of {} rows", batch.logit_rows.len())));
        }
        self.layers(batch)?;
        if draws.is_empty() {
            return Ok(Vec::new());
        }
        self.backend.final_norm()?;
        self.backend.draw(draws)
    }

    fn hidden(&mut self, batch: &Batch, out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        self.layers(batch)?;
        if batch.logit_rows.is_empty() {
            return Ok(());
        }
        resize(out, batch.logit_rows.len(), self.spec.hidden_dim)?;
        self.backend.hidden(out)
    }

    fn reserve_states(&mut self, slots: usize, len: usize) -> Result<()> {
        self.backend.reserve_states(slots, len)
    }

    fn put_states(&mut self, slot: usize, states: &[f32]) -> Result<()> {
        self.backend.put_states(slot, states)
    }

    fn watched(&mut self) -> Result<Vec<f32>> {
        self.backend.watched()
    }

    fn copy_blocks(&mut self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        self.check.copies(group, pairs)?;
        if pairs.is_empty() { Ok(()) } else { self.backend.copy_blocks(group, pairs) }
    }

    fn read_block(&self, group: usize, block: BlockId, out: &mut Vec<u8>) -> Result<()> {
        self.check.copies(group, &[(block, block)])?;
        self.backend.read_block(group, block, out)
    }

    fn write_block(&mut self, group: usize, block: BlockId, bytes: &[u8]) -> Result<()> {
        self.check.copies(group, &[(block, block)])?;
        self.backend.write_block(group, block, bytes)
    }
}

/// Makes `logits` hold `rows * vocab` numbers.
fn resize(logits: &mut Vec<f32>, rows: usize, vocab: usize) -> Result<()> {
    let full = || Error::OutOfMemory {
        what: "logits".to_owned(),
        needed: (rows as u64).saturating_mul(vocab as u64).saturating_mul(4),
        available: 0,
    };
    let len = rows.checked_mul(vocab).ok_or_else(full)?;
    logits.try_reserve_exact(len).map_err(|_| full())?;
    logits.resize(len, 0.0);
    Ok(())
}

//! What an engine is told when it starts.

use alloyforge_types::{Error, Result};

/// Limits and sizes of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// Most tokens that one sequence may hold; `None`: the model's own, bounded by memory.
    pub context_len: Option<usize>,
    /// Bytes for the KV cache; `None`: sized from the memory that is free.
    pub kv_memory: Option<u64>,
    /// Bytes free on the model's device; `None`: asked of the model, and where it
    /// computes in the host's memory of the operating system.
    pub free_memory: Option<u64>,
    /// Most sequences in one step.
    pub max_batch: usize,
    /// Most rows in one step, which is what the model was loaded for; more than `max_batch`.
    pub max_rows: usize,
    /// Most requests that may wait.
    pub max_queue: usize,
    /// Whether full blocks are kept and found again by their tokens.
    pub prefix_cache: bool,
    /// Rows that media may want computed in one step, because they see each other in both directions.
    pub two_way_rows: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            context_len: None,
            kv_memory: None,
            free_memory: None,
            max_batch: 64,
            max_rows: 512,
            max_queue: 16_384,
            prefix_cache: true,
            two_way_rows: 0,
        }
    }
}

impl EngineOptions {
    /// Most rows whose logits are asked for in one step, which the model must be loaded for: one a
    /// sequence, and some for reading out the logits of a whole text.
    pub fn max_logit_rows(&self) -> usize {
        self.max_batch.saturating_add(self.two_way_rows.max(32))
    }

    /// # Errors
    /// `InvalidRequest` naming the option that is out of range.
    pub(crate) fn check(&self) -> Result<()> {
        let positive = [
            ("max_batch", self.max_batch),
            ("max_queue", self.max_queue),
            ("context_len", self.context_len.unwrap_or(1)),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(Error::invalid(name, "must be at least 1"));
            }
        }
        if self.max_rows <= self.max_batch {
            return Err(Error::invalid(
                "max_batch",
                format!("{} sequences do not fit a step of {} rows", self.max_batch, self.max_rows),
            ));
        }
        if self.two_way_rows > self.max_rows - self.max_batch {
            let fault = format!("{} sequences leave no room for a picture in a step", self.max_batch);
            return Err(Error::invalid("max_batch", fault));
        }
        Ok(())
    }
}

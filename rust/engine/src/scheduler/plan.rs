//! What the scheduler decides for one step.

use alloyforge_types::{Batch, SequenceStep};

use super::{Scheduler, SeqId};
use crate::kv::BlockCopy;

/// One sequence's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedStep {
    /// The sequence.
    pub seq: SeqId,
    /// The index of its first row.
    pub start: usize,
    /// Its rows.
    pub num_rows: usize,
    /// How many of its rows, the last ones, have their logits asked for.
    pub num_logits: usize,
    /// How many of its rows, the last ones, are guesses behind its tokens.
    pub num_drafted: usize,
}

/// One step: what to copy and what to compute, and what happened to whom on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Blocks to copy before the step, in this order.
    pub copies: Vec<(SeqId, BlockCopy)>,
    /// The sequences' parts.
    pub steps: Vec<PlannedStep>,
    /// Sequences that began to be served, with how many of their tokens were found in the prefix
    /// cache; not those that were served before and preempted.
    pub admitted: Vec<(SeqId, usize)>,
    /// Sequences that were taken out because their time was over.
    pub expired: Vec<SeqId>,
    /// Sequences that lost their blocks to others and wait again.
    pub preempted: Vec<SeqId>,
}

impl Plan {
    /// Rows of all sequences together.
    pub fn num_rows(&self) -> usize {
        self.steps.iter().map(|s| s.num_rows).sum()
    }

    /// Rows whose logits are asked for.
    pub fn num_logits(&self) -> usize {
        self.steps.iter().map(|s| s.num_logits).sum()
    }
}

impl Scheduler {
    /// Writes the step of `plan` into `batch`.
    pub fn fill_batch(&self, plan: &Plan, batch: &mut Batch) {
        batch.tokens.clear();
        batch.sequences.clear();
        batch.logit_rows.clear();
        batch.embeds.clear();
        for step in &plan.steps {
            let Some(sequence) = self.sequences.get(&step.seq) else { continue };
            let end = step.start + step.num_rows - step.num_drafted;
            batch.tokens.extend_from_slice(&sequence.tokens[step.start..end]);
            batch.tokens.extend_from_slice(&sequence.draft[..step.num_drafted]);
            batch.logit_rows.extend(batch.tokens.len() - step.num_logits..batch.tokens.len());
            let mut part = SequenceStep {
                num_rows: step.num_rows,
                start: step.start,
                rope_len: sequence.rope_len,
                tables: sequence.blocks.tables().to_vec(),
                attend_end: Vec::new(),
                rope_positions: Vec::new(),
                states: None,
            };
            if let Some(media) = &sequence.media {
                media.fill(&mut part, batch.tokens.len() - step.num_rows, &mut batch.embeds);
            }
            batch.sequences.push(part);
        }
    }
}

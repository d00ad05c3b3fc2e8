//! A sequence as the scheduler sees it.

use std::sync::Arc;
use std::time::Duration;

use alloyforge_types::Priority;

use crate::kv::SequenceBlocks;
use crate::media::SequenceMedia;

/// The number of a sequence, given by whoever submits it; the younger has the higher one.
pub type SeqId = u64;

/// Which logits of a sequence are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readout {
    /// Those of its last token, from which the next one is drawn.
    Last,
    /// Those of every token.
    All,
}

/// A sequence as it is submitted.
#[derive(Debug, Clone)]
pub struct NewSequence {
    /// Its number.
    pub id: SeqId,
    /// Its tokens so far, at least one.
    pub tokens: Vec<u32>,
    /// Who goes first.
    pub priority: Priority,
    /// When it is taken out if it is not over by then.
    pub deadline: Option<Duration>,
    /// Which logits are asked for.
    pub readout: Readout,
    /// Whether its full blocks are kept and found again, whatever holds for others.
    pub is_cached: bool,
    /// What stands in place of some tokens.
    pub media: Option<Arc<SequenceMedia>>,
}

/// A sequence's place in line: the lower goes first.
///
/// `due` is the time of arrival plus a delay for each step of priority below the highest. So a class
/// goes before the next lower one as long as that has not waited [`AGEING`] longer, and within a class
/// the first come is the first served. As it never changes, so does the order of two sequences never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    due: Duration,
    pub(super) seq: SeqId,
}

/// How much longer a request waits than one of the next higher priority before it goes first.
pub const AGEING: Duration = Duration::from_secs(30);

impl Rank {
    pub(super) fn new(arrival: Duration, priority: Priority, seq: SeqId) -> Self {
        let steps = match priority {
            Priority::Critical => 0,
            Priority::High => 1,
            Priority::Normal => 2,
            Priority::Low => 3,
        };
        Self { due: arrival + AGEING * steps, seq }
    }

    /// The same place, for a choice of the same request.
    pub(super) fn sibling(self, seq: SeqId) -> Self {
        Self { seq, ..self }
    }
}

/// The scheduler's record of a sequence.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) tokens: Vec<u32>,
    /// Tokens whose keys and values are in its blocks.
    pub(super) num_computed: usize,
    /// Guesses at the tokens to come, for the next step alone.
    pub(super) draft: Vec<u32>,
    pub(super) rank: Rank,
    pub(super) priority: Priority,
    pub(super) deadline: Option<Duration>,
    pub(super) readout: Readout,
    pub(super) is_cached: bool,
    /// See [`SequenceStep::rope_len`](alloyforge_types::SequenceStep::rope_len).
    pub(super) rope_len: usize,
    pub(super) blocks: SequenceBlocks,
    pub(super) media: Option<Arc<SequenceMedia>>,
    pub(super) is_running: bool,
    /// Whether it has been served before.
    pub(super) was_admitted: bool,
    /// How many others went past it because there were not enough blocks for it.
    pub(super) num_passed: u32,
}

impl Sequence {
    /// Digests of the media rows in its first blocks.
    pub(super) fn marks(&self) -> &[u128] {
        self.media.as_ref().map_or(&[], |m| m.marks())
    }

    pub(super) fn num_pending(&self) -> usize {
        self.tokens.len() - self.num_computed
    }

    /// The tokens that blocks are wanted for: those it has and the one that it will have next.
    pub(super) fn len_ahead(&self) -> usize {
        match self.readout {
            Readout::Last => self.tokens.len() + 1,
            Readout::All => self.tokens.len(),
        }
    }

    /// Whether its next step is one row whose logits give the next token.
    pub(super) fn is_decoding(&self) -> bool {
        self.readout == Readout::Last && self.num_pending() == 1 && self.num_computed > 0
    }
}

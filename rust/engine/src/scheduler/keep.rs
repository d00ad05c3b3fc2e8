//! Texts that will be gone on from: their blocks are kept for longer than others.

use super::{Scheduler, SeqId};
use crate::kv::{KnownBlock, Pin, SequenceBlocks};

/// The number of a text that is kept.
pub type KeepId = u64;

/// A text that is kept.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The regime of rotary tables that its blocks were computed in.
    pub regime: u64,
    /// Its tokens, as far as they were computed.
    pub tokens: Vec<u32>,
    /// For each of its first blocks, a digest of the media rows in it; 0 where there are none.
    pub marks: Vec<u128>,
    pin: Pin,
}

impl Scheduler {
    /// Keeps what was computed of `seq`, in place of what `keep` kept before.
    pub fn keep(&mut self, keep: KeepId, seq: SeqId) {
        let Some(sequence) = self.sequences.get_mut(&seq) else { return };
        let len = sequence.num_computed.min(sequence.tokens.len());
        let marks = sequence.media.as_ref().map_or(&[][..], |m| m.marks());
        self.kv.publish(&mut sequence.blocks, &sequence.tokens, marks, len);
        let regime = self.options.regimes.number(sequence.rope_len);
        let (tokens, marks) = (sequence.tokens[..len].to_vec(), marks.to_vec());
        self.keep_tokens(keep, regime, tokens, marks);
    }

    /// Keeps what there is of `tokens`, whose first blocks have `marks`, in place of what `keep` kept
    /// before.
    pub fn keep_tokens(&mut self, keep: KeepId, regime: u64, tokens: Vec<u32>, marks: Vec<u128>) {
        // the new pins first: what both keep stays where it is in the order of eviction
        let pin = self.kv.pin(regime, &tokens, &marks);
        if let Some(before) = self.kept.insert(keep, Kept { regime, tokens, marks, pin }) {
            self.kv.unpin(&before.pin);
        }
    }

    /// Has `other` keep what `keep` does.
    pub fn keep_too(&mut self, keep: KeepId, other: KeepId) {
        if let Some(Kept { regime, tokens, marks, .. }) = self.kept.get(&keep).cloned() {
            self.keep_tokens(other, regime, tokens, marks);
        }
    }

    /// Keeps what `keep` kept no longer than anything else.
    pub fn let_go(&mut self, keep: KeepId) {
        if let Some(kept) = self.kept.remove(&keep) {
            self.kv.unpin(&kept.pin);
        }
    }

    /// What `keep` keeps, and which of its blocks are still there.
    pub fn kept(&self, keep: KeepId) -> Option<(&Kept, Vec<KnownBlock>)> {
        let kept = self.kept.get(&keep)?;
        Some((kept, self.kv.known(kept.regime, &kept.tokens, &kept.marks)))
    }

    /// Takes back what [`make_known`](Self::make_known) gave.
    pub fn forget_known(&mut self, made: &[KnownBlock]) {
        self.kv.forget_known(made);
    }

    /// Blocks for `rows` rows that nobody else reads, where there are any; they go back by
    /// [`give_back`](Self::give_back).
    pub fn scratch(&mut self, rows: usize) -> Option<SequenceBlocks> {
        let mut blocks = self.kv.start(0, false);
        self.kv.extend(&mut blocks, 0, rows)?;
        Some(blocks)
    }

    /// Gives [`scratch`](Self::scratch) blocks back.
    pub fn give_back(&mut self, blocks: &mut SequenceBlocks) {
        self.kv.release(blocks);
    }

    /// Blocks to be filled with those of a text computed elsewhere; see
    /// [`KvManager::make_known`](crate::kv::KvManager::make_known).
    pub fn make_known(
        &mut self,
        regime: u64,
        tokens: &[u32],
        marks: &[u128],
        wanted: &[(usize, usize)],
    ) -> Vec<KnownBlock> {
        self.kv.make_known(regime, tokens, marks, wanted)
    }
}

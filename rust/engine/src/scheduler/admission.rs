//! From the line into the batch.

use alloyforge_types::BLOCK_LEN;

use super::Scheduler;
use super::plan::Plan;
use super::sequence::{Rank, Readout, Sequence};
use crate::kv::PrefixHit;

/// How many in line are passed over in one step before the rest is left for the next.
const LOOK_AHEAD: usize = 16;

/// How often others may go past one for which there are not enough blocks, before everybody waits
/// until there are.
const MAX_PASSED: u32 = 64;

/// The least count of tokens for which it is worth waiting until another sequence has computed them.
const WORTH_WAITING: usize = 2 * BLOCK_LEN;

/// Why one in line is not served yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// The batch is full.
    NoPlace,
    /// There are not enough blocks.
    NoBlocks,
    /// Another sequence is computing the tokens that it begins with.
    WorthWaiting,
}

impl Scheduler {
    /// Takes sequences from the line into the batch while there are places and blocks.
    pub(super) fn admit(&mut self, plan: &mut Plan) {
        // those who lost their blocks in this step would only take them from each other
        let is_new = |r: &&Rank| !plan.preempted.contains(&r.seq);
        let line: Vec<Rank> =
            self.waiting.iter().filter(is_new).take(LOOK_AHEAD + self.options.max_batch).copied().collect();
        let mut passed: Vec<Rank> = Vec::new();
        for rank in line {
            match self.try_admit(rank, plan) {
                Ok(()) => {
                    for past in &passed {
                        if let Some(past) = self.sequences.get_mut(&past.seq) {
                            past.num_passed += 1;
                        }
                    }
                }
                Err(held) => {
                    let num_passed = self.sequences.get(&rank.seq).map_or(0, |s| s.num_passed);
                    if held == Held::NoBlocks && num_passed >= MAX_PASSED {
                        break;
                    }
                    if held == Held::NoBlocks {
                        passed.push(rank);
                    }
                    if passed.len() >= LOOK_AHEAD {
                        break;
                    }
                }
            }
        }
    }

    /// Admits `rank`, at the cost of those behind it with lower priority if need be.
    fn try_admit(&mut self, rank: Rank, plan: &mut Plan) -> Result<(), Held> {
        let Some(sequence) = self.sequences.get(&rank.seq) else { return Err(Held::NoPlace) };
        let victims: Vec<Rank> = self
            .running
            .iter()
            .rev()
            .take_while(|r| **r > rank)
            .filter(|r| self.sequences.get(&r.seq).is_some_and(|s| s.priority < sequence.priority))
            .copied()
            .collect();
        let num_without_place = (self.running.len() + 1).saturating_sub(self.options.max_batch);
        if num_without_place > victims.len() {
            return Err(Held::NoPlace);
        }
        let regimes = &self.options.regimes;
        let rope_len = if regimes.must_restart(sequence.rope_len, sequence.tokens.len()) {
            sequence.tokens.len()
        } else {
            sequence.rope_len
        };
        let regime = regimes.number(rope_len);
        let hit = match sequence.readout {
            // the last token is computed in any case, for its logits
            Readout::Last if sequence.is_cached => {
                let limit = sequence.tokens.len() - 1;
                self.kv.lookup(regime, &sequence.tokens, sequence.marks(), limit)
            }
            Readout::Last | Readout::All => PrefixHit::default(),
        };
        if self.is_being_computed(sequence, regime, hit.num_tokens()) {
            return Err(Held::WorthWaiting);
        }
        let num_victims = (num_without_place..=victims.len())
            .find(|&n| self.has_blocks(sequence, &hit, &victims[..n]))
            .ok_or(Held::NoBlocks)?;
        for &victim in &victims[..num_victims] {
            self.preempt(victim, plan);
        }
        self.enter(rank, rope_len, regime, &hit, plan);
        Ok(())
    }

    fn enter(&mut self, rank: Rank, rope_len: usize, regime: u64, hit: &PrefixHit, plan: &mut Plan) {
        let Some(sequence) = self.sequences.get_mut(&rank.seq) else { return };
        let blocks = self.kv.adopt(regime, sequence.is_cached, hit);
        sequence.blocks = blocks;
        sequence.rope_len = rope_len;
        sequence.num_computed = hit.num_tokens();
        sequence.is_running = true;
        if !sequence.was_admitted {
            sequence.was_admitted = true;
            self.num_queued -= 1;
            self.prefix_hit_tokens += hit.num_tokens() as u64;
            plan.admitted.push((rank.seq, hit.num_tokens()));
        }
        self.waiting.remove(&rank);
        self.running.insert(rank);
    }

    /// Whether the blocks that nobody has a claim on, once `victims` have lost theirs, hold the
    /// sequence's tokens and one more. Claims are what others admitted before still need for the
    /// tokens they have, and one block each that they may want soon.
    fn has_blocks(&self, sequence: &Sequence, hit: &PrefixHit, victims: &[Rank]) -> bool {
        let mut available = self.kv.available();
        for rank in &self.running {
            let Some(other) = self.sequences.get(&rank.seq) else { continue };
            if victims.contains(rank) {
                for (available, held) in available.iter_mut().zip(self.kv.num_held(&other.blocks)) {
                    *available += held;
                }
            } else {
                let claims = self.kv.shortfall(&other.blocks, other.len_ahead(), BLOCK_LEN);
                for (available, claim) in available.iter_mut().zip(claims) {
                    *available = available.saturating_sub(claim.max(1));
                }
            }
        }
        let needed = self.kv.shortfall_behind(hit, sequence.len_ahead(), BLOCK_LEN);
        // what the hit brings need not be taken, but those of it that are idle can no longer be
        let idle = self.kv.idle_in(hit);
        available
            .iter()
            .zip(needed.iter().zip(idle))
            .all(|(&available, (needed, idle))| needed + idle <= available)
    }

    /// Whether a sequence before this one in line is computing tokens that both begin with: then this
    /// one waits and finds them in the prefix cache.
    fn is_being_computed(&self, sequence: &Sequence, regime: u64, num_found: usize) -> bool {
        if !sequence.is_cached || sequence.readout == Readout::All {
            return false;
        }
        let usable = &sequence.tokens[..sequence.tokens.len() - 1];
        self.running.iter().take_while(|r| **r < sequence.rank).any(|rank| {
            let Some(other) = self.sequences.get(&rank.seq) else { return false };
            let is_other_regime = self.options.regimes.number(other.rope_len) != regime;
            if other.num_pending() <= 1 || !other.is_cached || is_other_regime {
                return false;
            }
            let num_common = usable.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count();
            let mark = |s: &Sequence, block: usize| s.marks().get(block).copied().unwrap_or(0);
            let same = |block: &usize| mark(sequence, *block) == mark(other, *block);
            let num_common = (0..num_common / BLOCK_LEN).take_while(same).count() * BLOCK_LEN;
            num_common >= num_found + WORTH_WAITING && num_common > other.num_computed
        })
    }
}

//! Who is served when: a state machine without threads, without a clock and without a model.
//!
//! Time comes in as an argument, tokens as numbers, and a [`Plan`] goes out for each step, so that the
//! same arrivals always give the same steps and thousands of them can be tried in a second. The owner
//! of a scheduler repeats [`plan`](Scheduler::plan), computes the step, and tells
//! [`commit`](Scheduler::commit) or removes the sequences whose step failed.
//!
//! Blocks are taken while planning. When there are none left, the sequence that is last in line gives
//! its blocks back and is computed again later. The first in line is never made to, so something always
//! moves on, and since a sequence may not be longer than all blocks hold, it can always be served.

mod admission;
mod growth;
mod keep;
mod plan;
mod regime;
mod sequence;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use alloyforge_types::{Error, Result};

pub use keep::{KeepId, Kept};
pub use plan::{Plan, PlannedStep};
pub use regime::RopeRegimes;
pub use sequence::{AGEING, NewSequence, Readout, SeqId};

use crate::kv::KvManager;
use sequence::{Rank, Sequence};

/// What a scheduler keeps to.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// Most sequences in one step.
    pub max_batch: usize,
    /// Most rows in one step; more than `max_batch`.
    pub max_rows: usize,
    /// Most rows whose logits are asked for in one step; more than `max_batch`.
    pub max_logit_rows: usize,
    /// Most sequences that may wait for their first step.
    pub max_queue: usize,
    /// How the model's rotary tables depend on length.
    pub regimes: RopeRegimes,
}

/// Counts of what a scheduler has done and has at hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Sequences that hold blocks.
    pub running: usize,
    /// Sequences that wait.
    pub waiting: usize,
    /// Those of them that have not been served before.
    pub queued: usize,
    /// Blocks that live sequences hold.
    pub blocks_used: usize,
    /// All blocks.
    pub blocks_total: usize,
    /// Tokens found in the prefix cache when sequences began.
    pub prefix_hit_tokens: u64,
    /// How often a sequence lost its blocks to another.
    pub preemptions: u64,
}

/// The state machine.
#[derive(Debug)]
pub struct Scheduler {
    options: SchedulerOptions,
    kv: KvManager,
    sequences: HashMap<SeqId, Sequence>,
    waiting: BTreeSet<Rank>,
    running: BTreeSet<Rank>,
    deadlines: BTreeSet<(Duration, SeqId)>,
    /// Texts whose blocks are kept for longer than others.
    kept: HashMap<KeepId, Kept>,
    num_queued: usize,
    prefix_hit_tokens: u64,
    preemptions: u64,
}

impl Scheduler {
    /// A scheduler over the blocks of `kv`.
    pub fn new(options: SchedulerOptions, kv: KvManager) -> Self {
        Self {
            options,
            kv,
            sequences: HashMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            kept: HashMap::new(),
            num_queued: 0,
            prefix_hit_tokens: 0,
            preemptions: 0,
        }
    }

    /// Puts a sequence in line.
    ///
    /// # Errors
    /// `QueueFull`. `InvalidRequest` for one without tokens, `Internal` for a number in use.
    pub fn submit(&mut self, new: NewSequence, now: Duration) -> Result<()> {
        if self.num_queued >= self.options.max_queue {
            return Err(Error::QueueFull { waiting: self.num_queued, limit: self.options.max_queue });
        }
        if new.tokens.is_empty() {
            return Err(Error::invalid("prompt", "is empty"));
        }
        if self.sequences.contains_key(&new.id) {
            return Err(Error::internal(format!("sequence {} is there already", new.id)));
        }
        let rank = Rank::new(now, new.priority, new.id);
        let rope_len = new.tokens.len();
        let is_cached = new.is_cached || self.kv.has_prefix_cache();
        let sequence = Sequence {
            num_computed: 0,
            draft: Vec::new(),
            rank,
            priority: new.priority,
            deadline: new.deadline,
            readout: new.readout,
            is_cached,
            rope_len,
            blocks: self.kv.start(self.options.regimes.number(rope_len), is_cached),
            is_running: false,
            was_admitted: false,
            num_passed: 0,
            tokens: new.tokens,
            media: new.media,
        };
        self.deadlines.extend(new.deadline.map(|d| (d, new.id)));
        self.waiting.insert(rank);
        self.num_queued += 1;
        self.sequences.insert(new.id, sequence);
        Ok(())
    }

    /// Notes that the step of `plan` has been computed. Of guesses nothing counts until
    /// [`confirm`](Self::confirm).
    pub fn commit(&mut self, plan: &Plan) {
        for step in &plan.steps {
            let Some(sequence) = self.sequences.get_mut(&step.seq) else { continue };
            sequence.num_computed = step.start + step.num_rows - step.num_drafted;
            sequence.draft.clear();
            let marks = sequence.media.as_ref().map_or(&[][..], |m| m.marks());
            self.kv.publish(&mut sequence.blocks, &sequence.tokens, marks, sequence.num_computed);
        }
    }

    /// Has the next step compute `draft`, guesses at the tokens that follow, beside the sequence's last
    /// token, as far as there is room. For a sequence that decodes, and until its next step alone.
    pub fn set_draft(&mut self, seq: SeqId, draft: &[u32]) {
        let regimes = &self.options.regimes;
        let Some(sequence) = self.sequences.get_mut(&seq) else { return };
        sequence.draft.clear();
        let len = sequence.tokens.len();
        // no guess may reach into another table
        let fits = |n: &usize| !regimes.must_restart(sequence.rope_len, len + n);
        let fitting = (1..=draft.len()).take_while(fits).count();
        sequence.draft.extend_from_slice(&draft[..fitting]);
    }

    /// Notes that the last token of a sequence, appended since the step, is what the step guessed: its
    /// keys and values are there.
    pub fn confirm(&mut self, seq: SeqId) {
        if let Some(sequence) = self.sequences.get_mut(&seq) {
            debug_assert!(sequence.num_computed < sequence.tokens.len(), "more was confirmed than there is");
            sequence.num_computed += 1;
            let marks = sequence.media.as_ref().map_or(&[][..], |m| m.marks());
            self.kv.publish(&mut sequence.blocks, &sequence.tokens, marks, sequence.num_computed);
        }
    }

    /// Adds a token to a sequence.
    pub fn append(&mut self, seq: SeqId, token: u32) {
        if let Some(sequence) = self.sequences.get_mut(&seq) {
            sequence.tokens.push(token);
        }
    }

    /// Makes `child` a second sequence with the tokens of `parent` and, where a place in the batch is
    /// free, its blocks. Without a place it waits and is computed again.
    ///
    /// # Errors
    /// `Internal` where `parent` is not there or `child` is.
    pub fn fork(&mut self, parent: SeqId, child: SeqId) -> Result<()> {
        if self.sequences.contains_key(&child) {
            return Err(Error::internal(format!("sequence {child} is there already")));
        }
        let Some(source) = self.sequences.get(&parent) else {
            return Err(Error::internal(format!("sequence {parent} is not there")));
        };
        let is_running = source.is_running && self.running.len() < self.options.max_batch;
        let sequence = Sequence {
            tokens: source.tokens.clone(),
            num_computed: if is_running { source.num_computed } else { 0 },
            draft: Vec::new(),
            rank: source.rank.sibling(child),
            priority: source.priority,
            deadline: source.deadline,
            readout: source.readout,
            is_cached: source.is_cached,
            rope_len: source.rope_len,
            media: source.media.clone(),
            blocks: if is_running {
                self.kv.fork(&source.blocks, source.num_computed)
            } else {
                self.kv.start(self.options.regimes.number(source.rope_len), source.is_cached)
            },
            is_running,
            was_admitted: true,
            num_passed: 0,
        };
        self.deadlines.extend(sequence.deadline.map(|d| (d, child)));
        let line = if is_running { &mut self.running } else { &mut self.waiting };
        line.insert(sequence.rank);
        self.sequences.insert(child, sequence);
        Ok(())
    }

    /// Takes a sequence out, finished or not, and gives its blocks back.
    pub fn remove(&mut self, seq: SeqId) {
        let Some(mut sequence) = self.sequences.remove(&seq) else { return };
        self.kv.release(&mut sequence.blocks);
        self.running.remove(&sequence.rank);
        self.waiting.remove(&sequence.rank);
        if let Some(deadline) = sequence.deadline {
            self.deadlines.remove(&(deadline, seq));
        }
        if !sequence.was_admitted {
            self.num_queued -= 1;
        }
    }

    /// The tokens of a sequence, none where it is not there.
    pub fn tokens(&self, seq: SeqId) -> &[u32] {
        self.sequences.get(&seq).map_or(&[], |s| &s.tokens)
    }

    /// Whether a sequence is here.
    pub fn contains(&self, seq: SeqId) -> bool {
        self.sequences.contains_key(&seq)
    }

    /// Whether no sequence is here.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// How many sequences the next step brings one token further each.
    pub fn num_decoding(&self) -> usize {
        self.decoding().count()
    }

    /// The sequences that the next step brings one token further each, the first in line first.
    pub fn decoding(&self) -> impl Iterator<Item = SeqId> + '_ {
        let is_decoding = |seq: &SeqId| self.sequences.get(seq).is_some_and(Sequence::is_decoding);
        self.running.iter().map(|r| r.seq).filter(is_decoding)
    }

    /// Counts.
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            running: self.running.len(),
            waiting: self.waiting.len(),
            queued: self.num_queued,
            blocks_used: self.kv.held(),
            blocks_total: self.kv.total(),
            prefix_hit_tokens: self.prefix_hit_tokens,
            preemptions: self.preemptions,
        }
    }

    /// Decides the next step. `prefill_rows` bounds the rows of sequences that are not decoding, so
    /// that nobody who is waits longer for a token than the caller wants; sequences that decode are
    /// always all served.
    pub fn plan(&mut self, now: Duration, prefill_rows: usize) -> Plan {
        let mut plan = Plan::default();
        self.expire(now, &mut plan);
        self.restart_where_tables_switch();
        self.plan_decodes(&mut plan);
        self.admit(&mut plan);
        let rows = prefill_rows.min(self.options.max_rows.saturating_sub(plan.num_rows()));
        self.plan_prefills(rows, &mut plan);
        self.preemptions += plan.preempted.len() as u64;
        plan
    }

    fn expire(&mut self, now: Duration, plan: &mut Plan) {
        while let Some(&(deadline, seq)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.remove(seq);
            self.deadlines.remove(&(deadline, seq));
            plan.expired.push(seq);
        }
    }

    /// Sends a running sequence back to wait, without blocks.
    fn send_back(&mut self, rank: Rank) {
        let Some(sequence) = self.sequences.get_mut(&rank.seq) else { return };
        self.kv.release(&mut sequence.blocks);
        sequence.num_computed = 0;
        sequence.draft.clear();
        sequence.is_running = false;
        sequence.num_passed = 0;
        self.running.remove(&rank);
        self.waiting.insert(rank);
    }

    /// As [`send_back`](Self::send_back), and out of the step being planned.
    fn preempt(&mut self, rank: Rank, plan: &mut Plan) {
        self.send_back(rank);
        plan.steps.retain(|s| s.seq != rank.seq);
        plan.copies.retain(|(seq, _)| *seq != rank.seq);
        plan.preempted.push(rank.seq);
    }

    /// Sequences whose rotary tables have switched begin again; what they hold no longer fits.
    fn restart_where_tables_switch(&mut self) {
        let switched: Vec<Rank> = self
            .running
            .iter()
            .filter(|r| {
                self.sequences
                    .get(&r.seq)
                    .is_some_and(|s| self.options.regimes.must_restart(s.rope_len, s.tokens.len()))
            })
            .copied()
            .collect();
        for rank in switched {
            self.send_back(rank);
        }
    }
}

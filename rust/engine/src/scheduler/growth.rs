//! Rows and blocks for the sequences that are being served.

use super::plan::{Plan, PlannedStep};
use super::sequence::{Rank, Readout, Sequence};
use super::{Scheduler, SeqId};

impl Scheduler {
    /// One row for everyone who is decoding, the first in line first, and rows for their guesses where
    /// the step has room for them.
    pub(super) fn plan_decodes(&mut self, plan: &mut Plan) {
        let mut spare =
            self.options.max_rows.min(self.options.max_logit_rows).saturating_sub(self.options.max_batch);
        // nobody shall lose blocks for somebody's guesses
        if self.kv.available().iter().any(|&n| n < 2 * self.running.len()) {
            spare = 0;
        }
        let decoding = |r: &&Rank| self.sequences.get(&r.seq).is_some_and(Sequence::is_decoding);
        let ranks: Vec<Rank> = self.running.iter().filter(decoding).copied().collect();
        for rank in ranks {
            // someone before it in line may have sent it back
            if self.running.contains(&rank) {
                let num_drafted = self.sequences.get(&rank.seq).map_or(0, |s| s.draft.len()).min(spare);
                let num_logits = self.grow(rank, 1 + num_drafted, plan);
                spare -= num_logits.saturating_sub(1).min(spare);
            }
        }
    }

    /// Chunks for everyone who is not, `rows` rows together.
    pub(super) fn plan_prefills(&mut self, rows: usize, plan: &mut Plan) {
        // one is kept for every sequence whose prompt may end in this step
        let num_drafted: usize = plan.steps.iter().map(|s| s.num_drafted).sum();
        let mut logit_rows = self.options.max_logit_rows.saturating_sub(self.running.len() + num_drafted);
        for (rank, wanted) in self.shares(rows) {
            let Some(sequence) = self.sequences.get(&rank.seq).filter(|s| s.is_running) else { continue };
            let num_rows = match sequence.readout {
                Readout::Last => wanted,
                Readout::All => wanted.min(logit_rows),
            };
            let is_readout = sequence.readout == Readout::All;
            // rows that see each other are computed together, even if that takes some more of them
            let num_rows = match &sequence.media {
                Some(media) if num_rows > 0 => {
                    let start = sequence.num_computed;
                    let most = self.options.max_rows.saturating_sub(plan.num_rows());
                    let most = if is_readout { most.min(logit_rows) } else { most };
                    match media.end_before(start, start + num_rows) - start {
                        0 => Some(media.end_behind(start + num_rows) - start).filter(|&n| n <= most),
                        fewer => Some(fewer),
                    }
                    .unwrap_or(0)
                }
                _ => num_rows,
            };
            if num_rows > 0 {
                let num_logits = self.grow(rank, num_rows, plan);
                if is_readout {
                    logit_rows -= num_logits.min(logit_rows);
                }
            }
        }
    }

    /// Who gets how many of `rows` rows: the first in line up to half; then the shortest first within
    /// each priority, so that a short prompt does not wait for a long one to end; what is left goes to
    /// the first.
    fn shares(&self, rows: usize) -> Vec<(Rank, usize)> {
        let mut line: Vec<(Rank, &Sequence)> = self
            .running
            .iter()
            .filter_map(|r| Some((*r, self.sequences.get(&r.seq)?)))
            .filter(|(_, s)| !s.is_decoding() && s.num_pending() > 0)
            .collect();
        let Some(&(first, first_sequence)) = line.first() else { return Vec::new() };
        let mut first_share = first_sequence.num_pending().min(rows.div_ceil(2));
        let mut left = rows - first_share;
        line.remove(0);
        line.sort_by_key(|(rank, s)| (std::cmp::Reverse(s.priority), s.num_pending(), *rank));
        let mut shares = vec![(first, 0)];
        for (rank, sequence) in line {
            let share = sequence.num_pending().min(left);
            left -= share;
            if share > 0 {
                shares.push((rank, share));
            }
        }
        first_share += left.min(first_sequence.num_pending() - first_share);
        shares[0].1 = first_share;
        shares
    }

    /// Plans up to `num_rows` more rows of a sequence, and takes blocks for them from those behind it
    /// in line if need be. A chunk shrinks to what fits before anyone loses blocks for it; a sequence
    /// that decodes and has nobody behind it waits itself. Returns how many logits the rows ask for.
    fn grow(&mut self, rank: Rank, num_rows: usize, plan: &mut Plan) -> usize {
        loop {
            let Some(sequence) = self.sequences.get_mut(&rank.seq) else { return 0 };
            let start = sequence.num_computed;
            let fitting = self.kv.rows_that_fit(&mut sequence.blocks, start, num_rows);
            let fitting = match &sequence.media {
                Some(media) if fitting < num_rows => media.end_before(start, start + fitting) - start,
                _ => fitting,
            };
            if fitting > 0
                && let Some(copies) = self.kv.extend(&mut sequence.blocks, start, fitting)
            {
                let num_drafted = (start + fitting).saturating_sub(sequence.tokens.len());
                let is_last = start + fitting >= sequence.tokens.len();
                let num_logits = match sequence.readout {
                    Readout::All => fitting,
                    Readout::Last if is_last => 1 + num_drafted,
                    Readout::Last => 0,
                };
                plan.copies.extend(copies.into_iter().map(|copy| (rank.seq, copy)));
                let num_rows = fitting;
                plan.steps.push(PlannedStep { seq: rank.seq, start, num_rows, num_logits, num_drafted });
                return num_logits;
            }
            match self.last_in_line() {
                Some(victim) if victim > rank => self.preempt(victim, plan),
                _ if self.running.len() > 1 && self.is_decoding(rank.seq) => {
                    self.preempt(rank, plan);
                    return 0;
                }
                _ => return 0,
            }
        }
    }

    fn is_decoding(&self, seq: SeqId) -> bool {
        self.sequences.get(&seq).is_some_and(Sequence::is_decoding)
    }

    fn last_in_line(&self) -> Option<Rank> {
        self.running.last().copied()
    }
}

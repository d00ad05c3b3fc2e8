//! Tokens in falling order of logit, sorted only as far as asked.

use std::cmp::Ordering;

use super::scan;

/// A token and its (processed) logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub id: u32,
    pub logit: f32,
}

/// Higher logits first, the lower id first among equals. No logit here is NaN.
pub(super) fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Candidates whose first [`Candidates::num_sorted`] entries are in order and stand before all others.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    num_sorted: usize,
    /// Of the row that was looked at last, the highest of each group.
    maxima: Vec<f32>,
    ranked: Vec<f32>,
}

impl Candidates {
    /// Takes every token whose logit is above negative infinity; the buffer is reused.
    pub fn fill(&mut self, logits: &[f32]) {
        self.all.clear();
        self.num_sorted = 0;
        let some = logits.iter().enumerate().filter(|(_, l)| **l > f32::NEG_INFINITY);
        // -0 and 0 are one logit, but not to total_cmp
        self.all.extend(some.map(|(id, &logit)| Candidate { id: id as u32, logit: logit + 0.0 }));
    }

    /// Looks at a row for the `fill_…` functions below, which are given the same one; the row's highest
    /// logit, and whether any is NaN.
    pub fn look(&mut self, logits: &[f32]) -> (f32, bool) {
        let has_nan = scan::maxima(logits, &mut self.maxima);
        (self.maxima.iter().fold(f32::NEG_INFINITY, |max, &l| if l > max { l } else { max }), has_nan)
    }

    /// As [`fill`](Self::fill), with the `n` highest of the row that was looked at and perhaps some more,
    /// but not all where there are many: what is below the `n`-th highest of the maxima of its groups is
    /// not among the `n` highest. False, and nothing is filled, where the row has too few groups.
    pub fn fill_highest(&mut self, logits: &[f32], n: usize) -> bool {
        if n == 0 || n >= self.maxima.len() {
            return false;
        }
        self.ranked.clone_from(&self.maxima);
        let (_, &mut bound, _) = self.ranked.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
        if bound == f32::NEG_INFINITY {
            return false;
        }
        self.fill_above(logits, bound);
        true
    }

    /// As [`fill`](Self::fill), with the logits of at least `bound` of the row that was looked at.
    pub fn fill_above(&mut self, logits: &[f32], bound: f32) {
        self.all.clear();
        self.num_sorted = 0;
        for (i, _) in self.maxima.iter().enumerate().filter(|(_, max)| **max >= bound) {
            let high = scan::group(i, logits.len()).map(|at| (at, logits[at]));
            let high = high.filter(|&(_, l)| l >= bound && l > f32::NEG_INFINITY);
            self.all.extend(high.map(|(at, logit)| Candidate { id: at as u32, logit: logit + 0.0 }));
        }
    }

    /// Makes `(logit - max) / temperature` of every logit, which leaves the order as it is, but where two
    /// become equal.
    pub fn scale(&mut self, max: f32, temperature: f32) {
        if temperature != 1.0 {
            self.all.iter_mut().for_each(|c| c.logit = (c.logit - max) / temperature);
            self.num_sorted = 0;
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The first `n` in order, or all where there are fewer.
    pub fn head(&mut self, n: usize) -> &[Candidate] {
        let n = n.min(self.all.len());
        if n > self.num_sorted {
            let rest = &mut self.all[self.num_sorted..];
            let wanted = n - self.num_sorted;
            if wanted < rest.len() {
                rest.select_nth_unstable_by(wanted, order);
            }
            rest[..wanted].sort_unstable_by(order);
            self.num_sorted = n;
        }
        &self.all[..n]
    }

    /// All, the sorted ones first.
    pub fn as_slice(&self) -> &[Candidate] {
        &self.all
    }

    /// Keeps the first `n` in order.
    pub fn truncate(&mut self, n: usize) {
        self.head(n);
        self.all.truncate(n);
        self.num_sorted = self.num_sorted.min(n);
    }

    /// Drops the first `n` in order.
    pub fn drop_head(&mut self, n: usize) {
        self.head(n);
        self.all.drain(..n.min(self.all.len()));
        self.num_sorted = self.num_sorted.saturating_sub(n);
    }

    /// Keeps what `keep` says, the order untouched.
    pub fn retain(&mut self, mut keep: impl FnMut(&Candidate) -> bool) {
        let (mut index, mut sorted_kept) = (0, 0);
        let num_sorted = self.num_sorted;
        self.all.retain(|c| {
            let kept = keep(c);
            sorted_kept += usize::from(kept && index < num_sorted);
            index += 1;
            kept
        });
        self.num_sorted = sorted_kept;
    }

    /// Grows a head until `enough(head)` names where to cut, or all have been seen.
    pub fn grow_until(&mut self, mut enough: impl FnMut(&[Candidate]) -> Option<usize>) -> usize {
        let mut n = 64;
        loop {
            let head = self.head(n);
            let seen = head.len();
            if let Some(cut) = enough(head) {
                return cut;
            }
            if seen == self.all.len() {
                return seen;
            }
            n = n.saturating_mul(8);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_highest_are_among_the_highest(logits in prop::collection::vec(-9i8..9, 1..900), n in 1usize..60) {
            let logits: Vec<f32> = logits.iter().map(|&x| f32::from(x)).collect();
            let mut all = Candidates::default();
            all.fill(&logits);
            let mut some = Candidates::default();
            prop_assert_eq!(some.look(&logits).0, all.head(1)[0].logit);
            if some.fill_highest(&logits, n) {
                prop_assert_eq!(some.head(n), all.head(n));
            }
            some.fill_above(&logits, 3.0);
            prop_assert!(some.as_slice().iter().all(|c| c.logit >= 3.0));
            prop_assert_eq!(some.len(), logits.iter().filter(|l| **l >= 3.0).count());
        }

        #[test]
        fn heads_match_a_full_sort(logits in prop::collection::vec(-5i8..5, 1..400), cuts in prop::collection::vec(0usize..400, 1..6)) {
            let logits: Vec<f32> = logits.iter().map(|&x| f32::from(x)).collect();
            let mut want: Vec<usize> = (0..logits.len()).collect();
            want.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap()); // stable: lower id first
            let mut ours = Candidates::default();
            ours.fill(&logits);
            for cut in cuts {
                let got: Vec<usize> = ours.head(cut).iter().map(|c| c.id as usize).collect();
                prop_assert_eq!(&got[..], &want[..cut.min(want.len())]);
            }
        }
    }
}

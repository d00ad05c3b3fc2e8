//! Tokens in falling order of logit, sorted only as far as asked.

use std::cmp::Ordering;

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

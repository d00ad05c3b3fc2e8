//! Log probabilities of the model's own distribution, before any sampling change.

use super::scan;

/// A token and its log probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopLogprob {
    /// The token.
    pub token: u32,
    /// Its natural-log probability.
    pub logprob: f32,
}

/// The constant that turns one row of logits into log probabilities.
///
/// The sum has one order, so that it is a function of the row alone.
#[derive(Debug, Clone, Copy)]
pub struct Normaliser {
    max: f32,
    log_sum: f64,
}

impl Normaliser {
    /// Of a row of logits without NaN.
    pub fn of(logits: &[f32]) -> Self {
        let (max, _) = scan::max_and_nan(logits);
        if !max.is_finite() {
            let infinite = logits.iter().filter(|l| **l == max).count();
            return Self { max, log_sum: (infinite as f64).ln() };
        }
        Self { max, log_sum: scan::sum_exp(logits, max, 1.0).ln() }
    }

    /// The log probability of a token with this logit.
    pub fn logprob(&self, logit: f32) -> f32 {
        if logit == self.max {
            return -self.log_sum as f32;
        }
        (f64::from(logit - self.max) - self.log_sum) as f32
    }

    /// The `k` most probable tokens of the row, best first, the lower id first among equals.
    pub fn top(&self, logits: &[f32], k: usize) -> Vec<TopLogprob> {
        let mut best: Vec<TopLogprob> = Vec::with_capacity(k.min(logits.len()) + 1);
        if k == 0 {
            return best;
        }
        for (token, &logit) in logits.iter().enumerate() {
            if best.len() == k && best.last().is_some_and(|w| logit <= w.logprob) {
                continue;
            }
            // later ids come after earlier ones of the same logit
            let place = best.partition_point(|b| b.logprob >= logit);
            best.insert(place, TopLogprob { token: token as u32, logprob: logit });
            best.truncate(k);
        }
        for b in &mut best {
            b.logprob = self.logprob(b.logprob);
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_to_one_and_orders(logits in prop::collection::vec(-30f32..30.0, 1..200), k in 0usize..20) {
            let n = Normaliser::of(&logits);
            let sum: f64 = logits.iter().map(|&l| f64::from(n.logprob(l)).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5);
            let top = n.top(&logits, k);
            prop_assert_eq!(top.len(), k.min(logits.len()));
            let mut ids: Vec<usize> = (0..logits.len()).collect();
            ids.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap());
            for (t, id) in top.iter().zip(ids) {
                prop_assert_eq!(t.token as usize, id);
            }
        }
    }

    #[test]
    fn equal_logits_go_to_the_lower_id() {
        let logits = [1.0, 2.0, 2.0, 2.0];
        let top = Normaliser::of(&logits).top(&logits, 2);
        assert_eq!((top[0].token, top[1].token), (1, 2));
    }
}

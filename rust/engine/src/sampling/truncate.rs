//! The stages that drop candidates. Each keeps at least one.
//!
//! Shares are compared with a slack of [`SLACK`]: probabilities that come from float32 logits carry
//! that much rounding, and a bound such as `top_p = 0.7` is meant to include a sum of 0.4 and 0.3.

use super::candidates::{Candidate, Candidates, order};
use super::scan;

/// What float32 rounding can move a probability by.
const SLACK: f64 = 1e-6;

/// Sum of `exp(logit - max)` over all candidates, in fixed point with 44 bits behind the point, which
/// leaves room for a million of them: such sums are the same in any order, so the result does not depend
/// on how far the candidates happen to be sorted.
pub(super) fn total(candidates: &Candidates, max: f32) -> f64 {
    let one = (1u64 << 44) as f64;
    let term = |c: &Candidate| if c.logit == max { one } else { f64::from(scan::exp(c.logit - max)) * one };
    let sum: u64 = candidates.as_slice().iter().map(|c| term(c) as u64).sum();
    sum as f64 / one
}

/// `exp(logit - max)`; an infinite logit at the top weighs 1.
pub(super) fn weight(c: &Candidate, max: f32) -> f64 {
    if c.logit == max { 1.0 } else { f64::from(c.logit - max).exp() }
}

/// The highest logit.
pub(super) fn max_logit(candidates: &mut Candidates) -> f32 {
    candidates.head(1).first().map_or(f32::NEG_INFINITY, |c| c.logit)
}

/// Keeps logits within `n` standard deviations of the highest; the deviation is over all candidates
/// left.
pub(super) fn top_n_sigma(candidates: &mut Candidates, n: f32) {
    if n <= 0.0 || candidates.len() < 2 {
        return;
    }
    let max = max_logit(candidates);
    if !max.is_finite() {
        return;
    }
    // shifted by the maximum, in fixed point, for an order-free sum
    let count = candidates.len() as f64;
    let fixed = |x: f64| (x.clamp(-1e15, 1e15) * (1u64 << 32) as f64) as i128;
    let unfixed = |x: i128| x as f64 / (1u64 << 32) as f64;
    let mean =
        unfixed(candidates.as_slice().iter().map(|c| fixed(f64::from(c.logit - max))).sum::<i128>()) / count;
    let squares: i128 =
        candidates.as_slice().iter().map(|c| fixed((f64::from(c.logit - max) - mean).powi(2))).sum();
    let deviation = (unfixed(squares) / count).sqrt();
    let bound = f64::from(max) - f64::from(n) * deviation;
    candidates.retain(|c| f64::from(c.logit) >= bound);
}

/// Keeps the `k` highest; 0 keeps all.
pub(super) fn top_k(candidates: &mut Candidates, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.truncate(k);
    }
}

/// Keeps the tokens whose surprise is nearest the entropy, until their probabilities exceed `p`.
pub(super) fn typical_p(candidates: &mut Candidates, p: f32) {
    if p >= 1.0 || candidates.len() < 2 {
        return;
    }
    let max = max_logit(candidates);
    let sum = total(candidates, max);
    let share = |c: &Candidate| weight(c, max) / sum;
    let surprise = |q: f64| if q > 0.0 { -q.ln() } else { f64::INFINITY };
    // in fixed point, as `total`; a term is below 1
    let one = (1u64 << 60) as f64;
    let terms = candidates.as_slice().iter().map(share).filter(|q| *q > 0.0);
    let entropy = terms.map(|q| (q * surprise(q) * one) as u128).sum::<u128>() as f64 / one;
    let by_distance = candidates.as_slice().iter().map(|c| ((surprise(share(c)) - entropy).abs(), *c));
    let mut by_distance: Vec<(f64, Candidate)> = by_distance.collect();
    let nearer = |a: &(f64, Candidate), b: &(f64, Candidate)| a.0.total_cmp(&b.0).then(order(&a.1, &b.1));
    let (mut reached, mut seen, mut wanted) = (0.0, 0, 64);
    // sorted only as far as the probabilities need
    'grow: while seen < by_distance.len() {
        let rest = &mut by_distance[seen..];
        let len = wanted.min(rest.len());
        if len < rest.len() {
            rest.select_nth_unstable_by(len, nearer);
        }
        rest[..len].sort_unstable_by(nearer);
        for (_, c) in &rest[..len] {
            reached += share(c);
            seen += 1;
            if reached > f64::from(p) + SLACK {
                break 'grow;
            }
        }
        wanted *= 8;
    }
    let mut ids: Vec<u32> = by_distance[..seen].iter().map(|(_, c)| c.id).collect();
    ids.sort_unstable();
    candidates.retain(|c| ids.binary_search(&c.id).is_ok());
}

/// Keeps the fewest whose probabilities reach `p`.
pub(super) fn top_p(candidates: &mut Candidates, p: f32) {
    if p >= 1.0 || candidates.len() < 2 {
        return;
    }
    let max = max_logit(candidates);
    let bound = (f64::from(p) - SLACK) * total(candidates, max);
    let cut = candidates.grow_until(reaching(max, bound));
    candidates.truncate(cut);
}

/// How many of a head that grows from call to call have weights, beside that of `max`, that reach `bound`.
fn reaching(max: f32, bound: f64) -> impl FnMut(&[Candidate]) -> Option<usize> {
    let (mut reached, mut seen) = (0.0, 0);
    move |head| {
        for c in &head[seen..] {
            reached += weight(c, max);
            seen += 1;
            if reached >= bound {
                return Some(seen);
            }
        }
        None
    }
}

/// Heads that are looked at before all candidates are.
const HEADS: [usize; 2] = [128, 1024];

/// How a draw's logits come from a row: less its finite maximum, divided by the temperature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// The maximum.
    pub max: f32,
    /// The temperature.
    pub temperature: f32,
}

impl Scale {
    /// The highest of the draw's logits.
    fn top(self) -> f32 {
        if self.temperature == 1.0 { self.max } else { 0.0 }
    }

    /// The factor of a logit's distance from the maximum. A temperature next to nothing would make it
    /// infinite, and only the highest count.
    pub fn slope(self) -> f32 {
        (1.0 / self.temperature).min(f32::MAX)
    }
}

/// Fills `candidates`, which have looked at `logits`, with the fewest whose probabilities reach `p`. False
/// where the row is too short to look at in part, and nothing is decided.
pub(super) fn top_p_of(candidates: &mut Candidates, logits: &[f32], scale: Scale, p: f32) -> bool {
    let sum = scan::sum_exp(logits, scale.max, scale.slope());
    let bound = (f64::from(p) - SLACK) * sum;
    for num_heads in HEADS {
        if !candidates.fill_highest(logits, num_heads) {
            return false;
        }
        candidates.scale(scale.max, scale.temperature);
        if let Some(cut) = reaching(scale.top(), bound)(candidates.head(num_heads)) {
            candidates.truncate(cut);
            return true;
        }
    }
    // all together, what weighs less than this is no more than may be left out
    let least = (f64::from(1.0 - p) * sum / logits.len() as f64).ln() as f32 - 0.01;
    candidates.fill_above(logits, scale.max + least * scale.temperature);
    candidates.scale(scale.max, scale.temperature);
    let cut = candidates.grow_until(reaching(scale.top(), bound));
    candidates.truncate(cut);
    true
}

/// Fills `candidates`, which have looked at `logits`, with all but those that [`min_p`] would drop by far.
pub(super) fn fill_for_min_p(candidates: &mut Candidates, logits: &[f32], scale: Scale, p: f32) {
    // the stage itself has some slack
    let far = (p.min(1.0) - 2.0 * SLACK as f32).max(0.0).ln() - 0.01;
    candidates.fill_above(logits, scale.max + far * scale.temperature);
    candidates.scale(scale.max, scale.temperature);
}

/// Keeps what has at least the share `p` of the highest probability.
pub(super) fn min_p(candidates: &mut Candidates, p: f32) {
    if p <= 0.0 || candidates.len() < 2 {
        return;
    }
    let max = max_logit(candidates);
    let best = candidates.head(1)[0].id;
    let bound = f64::from(p) - SLACK;
    candidates.retain(|c| c.id == best || weight(c, max) >= bound);
}

/// Drops all but the last of the tokens with a probability of at least `threshold`. The caller has
/// drawn whether it acts. True where something was dropped.
pub(super) fn xtc(candidates: &mut Candidates, threshold: f32) -> bool {
    if threshold > 0.5 || candidates.len() < 2 {
        return false;
    }
    let max = max_logit(candidates);
    let bound = (f64::from(threshold) - SLACK) * total(candidates, max);
    let mut seen = 0;
    let top = candidates.grow_until(|head| {
        let found = head[seen..].iter().position(|c| weight(c, max) < bound).map(|i| seen + i);
        seen = head.len();
        found
    });
    if top < 2 {
        return false;
    }
    candidates.drop_head(top - 1);
    true
}

/// Mirostat 2: keeps tokens whose surprise is at most `mu` bits.
pub(super) fn mirostat(candidates: &mut Candidates, mu: f32) {
    if candidates.len() < 2 {
        return;
    }
    let max = max_logit(candidates);
    let bound = total(candidates, max) * f64::from(-mu).exp2();
    let best = candidates.head(1)[0].id;
    candidates.retain(|c| c.id == best || weight(c, max) >= bound);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(logits: &[f32]) -> Candidates {
        let mut candidates = Candidates::default();
        candidates.fill(logits);
        candidates
    }

    fn kept(candidates: &Candidates) -> Vec<u32> {
        let mut ids: Vec<u32> = candidates.as_slice().iter().map(|c| c.id).collect();
        ids.sort_unstable();
        ids
    }

    fn shares(logits: &[f32]) -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = logits.iter().map(|&l| f64::from(l - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }

    /// The ids from the highest logit down, the lower one first among equals.
    fn falling(logits: &[f32]) -> Vec<usize> {
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        ids.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        ids
    }

    /// Whether two sets agree but for ids that `is_close` to the bound, where rounding decides.
    fn agree(got: &[u32], want: &[u32], is_close: impl Fn(usize) -> bool) -> bool {
        let alone =
            |a: &[u32], b: &[u32]| -> Vec<u32> { a.iter().copied().filter(|id| !b.contains(id)).collect() };
        alone(got, want).into_iter().chain(alone(want, got)).all(|id| is_close(id as usize))
    }

    proptest! {
        #[test]
        fn top_n_sigma_matches_a_naive_one(
            logits in prop::collection::vec(-9f32..9.0, 2..200),
            n in 0.1f32..4.0,
        ) {
            let mut ours = filled(&logits);
            top_n_sigma(&mut ours, n);
            let mean = logits.iter().map(|&l| f64::from(l)).sum::<f64>() / logits.len() as f64;
            let square = |l: f32| (f64::from(l) - mean).powi(2);
            let deviation = (logits.iter().map(|&l| square(l)).sum::<f64>() / logits.len() as f64).sqrt();
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let bound = f64::from(max) - f64::from(n) * deviation;
            let want: Vec<u32> =
                (0..logits.len() as u32).filter(|&i| f64::from(logits[i as usize]) >= bound).collect();
            prop_assert!(agree(&kept(&ours), &want, |i| (f64::from(logits[i]) - bound).abs() < 1e-5));
        }

        #[test]
        fn typical_p_matches_a_naive_one(
            logits in prop::collection::vec(-6f32..6.0, 2..200),
            p in 0.05f32..0.99,
        ) {
            let mut ours = filled(&logits);
            typical_p(&mut ours, p);
            let q = shares(&logits);
            let entropy: f64 = q.iter().map(|q| -q * q.ln()).sum();
            let mut order = falling(&logits);
            order.sort_by(|&a, &b| {
                (-q[a].ln() - entropy).abs().total_cmp(&(-q[b].ln() - entropy).abs())
            });
            let mut reached = 0.0;
            let mut want = Vec::new();
            for &i in &order {
                reached += q[i];
                want.push(i as u32);
                if reached > f64::from(p) {
                    break;
                }
            }
            want.sort_unstable();
            let close = (reached - f64::from(p)).abs() < 1e-5;
            let got = kept(&ours);
            prop_assert!(got == want || close || got.len().abs_diff(want.len()) == 1, "{got:?} {want:?}");
        }

        #[test]
        fn min_p_matches_a_naive_one(logits in prop::collection::vec(-9f32..9.0, 2..200), p in 0.001f32..1.2) {
            let mut ours = filled(&logits);
            min_p(&mut ours, p);
            let q = shares(&logits);
            let best = falling(&logits)[0];
            let want: Vec<u32> = (0..logits.len())
                .filter(|&i| i == best || q[i] / q[best] >= f64::from(p))
                .map(|i| i as u32)
                .collect();
            let is_close = |i: usize| (q[i] / q[best] - f64::from(p)).abs() < 1e-5;
            prop_assert!(agree(&kept(&ours), &want, is_close));
        }

        #[test]
        fn xtc_matches_a_naive_one(logits in prop::collection::vec(-6f32..6.0, 1..100), threshold in 0.01f32..0.7) {
            let mut ours = filled(&logits);
            let acted = xtc(&mut ours, threshold);
            let q = shares(&logits);
            let order = falling(&logits);
            let top: Vec<usize> =
                order.iter().copied().filter(|&i| q[i] >= f64::from(threshold)).collect();
            let acts = threshold <= 0.5 && top.len() >= 2;
            let dropped = if acts { &top[..top.len() - 1] } else { &[] };
            let want: Vec<u32> =
                (0..logits.len()).filter(|i| !dropped.contains(i)).map(|i| i as u32).collect();
            let is_close = q.iter().any(|q| (q - f64::from(threshold)).abs() < 1e-5);
            prop_assert!(is_close || (kept(&ours) == want && acted == acts));
        }

        #[test]
        fn mirostat_matches_a_naive_one(logits in prop::collection::vec(-6f32..6.0, 2..100), mu in -2f32..12.0) {
            let mut ours = filled(&logits);
            mirostat(&mut ours, mu);
            let q = shares(&logits);
            let best = falling(&logits)[0];
            let want: Vec<u32> = (0..logits.len())
                .filter(|&i| i == best || -q[i].log2() <= f64::from(mu))
                .map(|i| i as u32)
                .collect();
            let is_close = |i: usize| (-q[i].log2() - f64::from(mu)).abs() < 1e-5;
            prop_assert!(agree(&kept(&ours), &want, is_close));
        }

        /// A row of which a part is looked at keeps what the whole of it would, however many that are.
        #[test]
        fn top_p_of_a_long_row_is_that_of_all(
            seed in any::<u32>(),
            width in 0.5f32..20.0,
            temperature in prop::sample::select(vec![0.5f32, 1.0, 1.7]),
            p in 0.01f32..0.999,
        ) {
            let hash = |i: u32| (i.wrapping_mul(2_654_435_761) ^ seed).wrapping_mul(2_246_822_519) >> 8;
            let logits: Vec<f32> = (0..40_000).map(|i| hash(i) as f32 / 16_777_216.0 * width).collect();
            let mut ours = Candidates::default();
            let (max, _) = ours.look(&logits);
            let is_decided = top_p_of(&mut ours, &logits, Scale { max, temperature }, p);
            prop_assert!(is_decided);
            let scaled: Vec<f32> = logits.iter().map(|l| (l - max) / temperature).collect();
            let q = shares(&scaled);
            let mut want = falling(&scaled);
            let mut reached = 0.0;
            let cut = want.iter().position(|&i| {
                reached += q[i];
                reached >= f64::from(p)
            });
            want.truncate(cut.map_or(want.len(), |cut| cut + 1));
            let want: Vec<u32> = want.iter().map(|&i| i as u32).collect();
            // equals of the last may stand for it
            let last = scaled[want[want.len() - 1] as usize];
            let rounding = 1 + (4e-6 / q[want[want.len() - 1] as usize]) as usize;
            prop_assert!(kept(&ours).len().abs_diff(want.len()) <= rounding);
            prop_assert!(agree(&kept(&ours), &want, |i| (scaled[i] - last).abs() < 1e-2));
        }

        /// Whatever the stages and their order of magnitude, a draw has something to be made from.
        #[test]
        fn every_stage_keeps_something(
            logits in prop::collection::vec(prop_oneof![-9f32..9.0, Just(f32::NEG_INFINITY), Just(f32::MAX)], 1..50),
            p in 0f32..2.0,
        ) {
            prop_assume!(logits.iter().any(|l| *l > f32::NEG_INFINITY));
            for stage in [top_n_sigma, typical_p, top_p, min_p, mirostat] {
                let mut ours = filled(&logits);
                stage(&mut ours, p);
                prop_assert!(ours.len() > 0);
            }
            let mut ours = filled(&logits);
            xtc(&mut ours, p);
            prop_assert!(ours.len() > 0);
        }
    }
}

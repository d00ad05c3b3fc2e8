//! The stages that drop candidates. Each keeps at least one.
//!
//! Shares are compared with a slack of [`SLACK`]: probabilities that come from float32 logits carry
//! that much rounding, and a bound such as `top_p = 0.7` is meant to include a sum of 0.4 and 0.3.

use super::candidates::{Candidate, Candidates};

/// What float32 rounding can move a probability by.
const SLACK: f64 = 1e-6;

/// Sum of `exp(logit - max)` over all candidates, in fixed point with 60 bits behind the point: such
/// sums are the same in any order, so the result does not depend on how far the candidates happen to
/// be sorted.
pub(super) fn total(candidates: &Candidates, max: f32) -> f64 {
    let one = (1u64 << 60) as f64;
    let sum: u128 = candidates.as_slice().iter().map(|c| (weight(c, max) * one) as u128).sum();
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
    candidates.head(usize::MAX);
    let sum = total(candidates, max);
    let all = candidates.as_slice();
    let share = |c: &Candidate| weight(c, max) / sum;
    let entropy: f64 = all.iter().map(share).filter(|q| *q > 0.0).map(|q| -q * q.ln()).sum();
    let distance = |c: &Candidate| {
        let q = share(c);
        if q > 0.0 { (-q.ln() - entropy).abs() } else { f64::INFINITY }
    };
    let mut by_distance: Vec<(f64, Candidate)> = all.iter().map(|c| (distance(c), *c)).collect();
    by_distance.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: more probable first among equals
    let mut reached = 0.0;
    let mut kept = by_distance.len();
    for (i, (_, c)) in by_distance.iter().enumerate() {
        reached += share(c);
        if reached > f64::from(p) + SLACK {
            kept = i + 1;
            break;
        }
    }
    let mut ids: Vec<u32> = by_distance[..kept].iter().map(|(_, c)| c.id).collect();
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
    let (mut reached, mut seen) = (0.0, 0);
    let cut = candidates.grow_until(|head| {
        for c in &head[seen..] {
            reached += weight(c, max);
            seen += 1;
            if reached >= bound {
                return Some(seen);
            }
        }
        None
    });
    candidates.truncate(cut);
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

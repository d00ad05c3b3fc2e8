//! Passes over the logits of a vocabulary.

use std::sync::OnceLock;

use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::scan;

/// The instruction set that they run on.
fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(Isa::detect)
}

/// The largest number; minus infinity of none.
pub(crate) fn max(values: &[f32]) -> f32 {
    scan::max_and_nan(isa(), values).0
}

/// `ln(sum(e^x))`; minus infinity where all are.
pub(crate) fn log_sum_exp(values: &[f32]) -> f32 {
    let most = max(values);
    if most == f32::NEG_INFINITY {
        return most;
    }
    (f64::from(most) + scan::sum_exp(isa(), values, most, 1.0).ln()) as f32
}

/// The index of the largest number, the lowest of equal ones; 0 where none is larger than minus infinity.
pub(crate) fn argmax(values: &[f32]) -> usize {
    scan::first_at(isa(), values, max(values)).unwrap_or(0)
}

/// The `count` largest numbers with their indices, largest first, lower indices first among equals.
pub(crate) fn top(values: &[f32], count: usize) -> Vec<(usize, f32)> {
    /// Numbers that are passed over together where none is large enough.
    const GROUP: usize = 256;
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(count + 1);
    let mut least = f32::NEG_INFINITY;
    for (g, group) in values.chunks(GROUP).enumerate() {
        // NaN is never among the best
        if max(group) <= least {
            continue;
        }
        for (i, &v) in group.iter().enumerate() {
            if v > least {
                let place = best.partition_point(|(_, b)| *b >= v);
                best.insert(place, (g * GROUP + i, v));
                best.truncate(count);
                if best.len() == count {
                    least = best[count - 1].1;
                }
            }
        }
    }
    best
}

/// An index drawn in proportion to `e^(values / temperature)`, where `unit` is even in `0..1`.
pub(crate) fn draw(values: &[f32], temperature: f32, unit: f64) -> usize {
    let most = max(values);
    let weight = |v: f32| f64::from(((v - most) / temperature).exp());
    let total: f64 = values.iter().map(|&v| weight(v)).sum();
    let mut left = unit * total;
    let mut last = 0;
    for (i, &v) in values.iter().enumerate() {
        let w = weight(v);
        if w > 0.0 {
            last = i;
            left -= w;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

/// Number `index` of stream `seed`, even in `0..1` (splitmix64, Steele et al., 2014).
pub(crate) fn unit(seed: u64, index: u64) -> f64 {
    let mut z = seed.wrapping_add((index.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_their_definitions(values in prop::collection::vec(-60.0f32..30.0, 1..200), count in 1usize..8) {
            let naive = values.iter().map(|&v| f64::from(v).exp()).sum::<f64>().ln();
            prop_assert!((f64::from(log_sum_exp(&values)) - naive).abs() < 1e-4);
            let mut sorted: Vec<(usize, f32)> = values.iter().copied().enumerate().collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            sorted.truncate(count);
            prop_assert_eq!(argmax(&values), sorted[0].0);
            prop_assert_eq!(top(&values, count), sorted);
        }

        #[test]
        fn draws_are_as_frequent_as_they_are_probable(seed in any::<u64>()) {
            let values = [0.0f32, 1.0, f32::NEG_INFINITY, 2.0];
            let mut counts = [0.0; 4];
            for i in 0..4000 {
                counts[draw(&values, 0.7, unit(seed, i))] += 1.0 / 4000.0;
            }
            let weights = values.map(|v| f64::from(v / 0.7).exp());
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts.into_iter().zip(weights) {
                prop_assert!((count - weight / total).abs() < 0.05);
            }
        }
    }

    #[test]
    fn nothing_at_all_is_no_panic() {
        let none = [f32::NEG_INFINITY; 3];
        assert_eq!(log_sum_exp(&none), f32::NEG_INFINITY);
        assert_eq!(argmax(&none), 0);
        assert!(top(&none, 2).is_empty());
    }
}

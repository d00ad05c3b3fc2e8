//! Sums over a vocabulary, in a form that compilers turn into vector code.

/// Sums side by side.
const LANES: usize = 16;

/// `e^x` for `x` up to 0, to within 3e-7 of it; 0 far below.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    let bits = (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32).wrapping_add(127);
    e * f32::from_bits((bits as u32) << 23)
}

/// The largest number; minus infinity of none.
pub(crate) fn max(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (m, v) in most.iter_mut().zip(chunk) {
            *m = if *v > *m { *v } else { *m };
        }
    }
    most.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, f32::max)
}

/// `ln(sum(e^x))`; minus infinity where all are.
pub(crate) fn log_sum_exp(values: &[f32]) -> f32 {
    let most = max(values);
    if most == f32::NEG_INFINITY {
        return most;
    }
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for (sum, v) in sums.iter_mut().zip(chunk) {
            *sum += exp(v - most);
        }
    }
    let sum: f32 = sums.into_iter().chain(rest.iter().map(|v| exp(v - most))).sum();
    most + sum.ln()
}

/// The index of the largest number, the lowest of equal ones; 0 where none is larger than minus infinity.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let most = max(values);
    values.iter().position(|v| *v == most).unwrap_or(0)
}

/// The `count` largest numbers with their indices, largest first, lower indices first among equals.
pub(crate) fn top(values: &[f32], count: usize) -> Vec<(usize, f32)> {
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(count + 1);
    let mut least = f32::NEG_INFINITY;
    for (i, &v) in values.iter().enumerate() {
        if v > least {
            let place = best.partition_point(|(_, b)| *b >= v);
            best.insert(place, (i, v));
            best.truncate(count);
            if best.len() == count {
                least = best[count - 1].1;
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

//! Passes over a whole row of logits, which a vocabulary of 262,144 entries makes worth writing well.
//!
//! Loops over arrays of a fixed length are what the compiler turns into vector instructions; sums have
//! one order, which follows from the row's length alone.

/// How many neighbours are looked at together.
pub(super) const LANES: usize = 16;

/// The highest logit, and whether any is NaN. Negative infinity for an empty row.
pub(super) fn max_and_nan(row: &[f32]) -> (f32, bool) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut nan = [0u32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for ((lane, nan), &l) in lanes.iter_mut().zip(&mut nan).zip(chunk) {
            *lane = if l > *lane { l } else { *lane };
            *nan |= u32::from(l.is_nan());
        }
    }
    let mut max = f32::NEG_INFINITY;
    for &l in lanes.iter().chain(rest) {
        max = if l > max { l } else { max };
    }
    let has_nan = nan.iter().any(|&n| n != 0) || rest.iter().any(|l| l.is_nan());
    (max, has_nan)
}

/// The lowest index whose logit is `value`.
pub(super) fn first_at(row: &[f32], value: f32) -> Option<usize> {
    let (chunks, rest) = row.as_chunks::<64>();
    let found = chunks.iter().position(|chunk| {
        let mut is_there = [0u32; 64];
        for (is_there, &l) in is_there.iter_mut().zip(chunk) {
            *is_there = u32::from(l == value);
        }
        is_there.iter().sum::<u32>() > 0
    });
    match found {
        Some(i) => chunks[i].iter().position(|&l| l == value).map(|at| 64 * i + at),
        None => rest.iter().position(|&l| l == value).map(|at| row.len() - rest.len() + at),
    }
}

/// `e^x` for `x <= 0`, within two units in the last place; 0 below -87.
///
/// The reduction and the polynomial of Cephes (Moshier, `expf.c`).
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    // rounds to a whole number in the low bits of the mantissa
    const ROUND: f32 = 12_582_912.0;
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN_2.0 - n * LN_2.1;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

/// The maximum of each [`LANES`] neighbours, and of what is left, into `maxima`.
pub(super) fn maxima(row: &[f32], maxima: &mut Vec<f32>) {
    maxima.clear();
    let highest = |some: &[f32]| some.iter().fold(f32::NEG_INFINITY, |max, &l| if l > max { l } else { max });
    maxima.extend(row.chunks(LANES).map(highest));
}

/// The sum of `e^((l - max) * slope)` over a row, `max` being its finite maximum and `slope` positive.
pub(super) fn sum_exp(row: &[f32], max: f32, slope: f32) -> f64 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut sum = 0.0;
    // lanes of f32 hold few enough terms of at most 1 to lose nothing that counts
    for some in chunks.chunks(16) {
        let mut lanes = [0.0f32; LANES];
        for chunk in some {
            for (lane, &l) in lanes.iter_mut().zip(chunk) {
                *lane += exp((l - max) * slope);
            }
        }
        sum += lanes.iter().map(|&l| f64::from(l)).sum::<f64>();
    }
    sum + rest.iter().map(|&l| f64::from(exp((l - max) * slope))).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn max_and_its_place(mut row in prop::collection::vec(-9f32..9.0, 0..300), copies in prop::collection::vec(0usize..300, 0..4)) {
            let naive = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(max_and_nan(&row), (naive, false));
            for at in copies {
                if let Some(l) = row.get_mut(at) {
                    *l = 10.0;
                }
            }
            prop_assert_eq!(first_at(&row, 10.0), row.iter().position(|&l| l == 10.0));
        }

        #[test]
        fn nan_is_seen_anywhere(len in 1usize..200, at in 0usize..200) {
            let mut row = vec![1.0; len];
            row[at % len] = f32::NAN;
            prop_assert!(max_and_nan(&row).1);
        }

        #[test]
        fn exp_is_close(x in -87f32..0.0) {
            let want = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) / want - 1.0).abs() < 3e-7, "{x}");
        }

        #[test]
        fn sums_are_close(row in prop::collection::vec(-30f32..30.0, 1..2000), slope in 0.5f32..2.0) {
            let (max, _) = max_and_nan(&row);
            let want: f64 = row.iter().map(|&l| (f64::from(l - max) * f64::from(slope)).exp()).sum();
            prop_assert!((sum_exp(&row, max, slope) / want - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(-200.0)), (1.0, 0.0, 0.0));
        assert_eq!(max_and_nan(&[]), (f32::NEG_INFINITY, false));
        assert_eq!(max_and_nan(&[f32::INFINITY, 1.0]), (f32::INFINITY, false));
        assert_eq!(first_at(&[1.0], 2.0), None);
    }
}

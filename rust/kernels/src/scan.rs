//! Passes over a row of logits, which a vocabulary of 262,144 entries makes worth writing well.
//!
//! Loops over arrays of a fixed length are what the compiler turns into vector instructions. Products and
//! sums are never fused here and have one order, which follows from the row's length alone, so that every
//! instruction set gives the same bits.

use crate::isa::{Isa, Kernel, LANES, Simd};

/// Neighbours that one stretch of [`maxima`] holds: sixteen groups of sixteen.
const STRETCH: usize = LANES * LANES;

/// The highest number, and whether any is NaN. Negative infinity for an empty row.
pub fn max_and_nan(isa: Isa, row: &[f32]) -> (f32, bool) {
    isa.run(MaxAndNan(row))
}

/// The lowest index at which `value` stands.
pub fn first_at(isa: Isa, row: &[f32], value: f32) -> Option<usize> {
    isa.run(FirstAt(row, value))
}

/// The sum of `e^((x - max) * slope)` over a row, `max` being its finite maximum and `slope` positive.
pub fn sum_exp(isa: Isa, row: &[f32], max: f32, slope: f32) -> f64 {
    isa.run(SumExp { row, max, slope })
}

/// How many groups [`maxima`] makes of a row of `len` numbers.
pub fn num_groups(len: usize) -> usize {
    len / STRETCH * LANES + (len % STRETCH).min(LANES)
}

/// The highest number of each group into `out`, of [`num_groups`] places, and whether any number is NaN.
/// See [`group`] for what a group is.
pub fn maxima(isa: Isa, row: &[f32], out: &mut [f32]) -> bool {
    isa.run(Maxima { row, out })
}

/// The indices of a group's numbers: every sixteenth of its stretch, so that the maxima of sixteen groups
/// are found side by side.
pub fn group(index: usize, len: usize) -> impl Iterator<Item = usize> {
    let first = index / LANES * STRETCH;
    (first + index % LANES..len.min(first + STRETCH)).step_by(LANES)
}

/// `e^x` for `x <= 0`, within two units in the last place; 0 below -87.
///
/// The reduction and the polynomial of Cephes (Moshier, `expf.c`), without fused products.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
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

struct MaxAndNan<'a>(&'a [f32]);

impl Kernel for MaxAndNan<'_> {
    type Output = (f32, bool);

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> (f32, bool) {
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        // several chains, because a maximum waits for the one before it
        let mut lanes = [[f32::NEG_INFINITY; LANES]; 4];
        let mut nan = [0u32; LANES];
        let (fours, singles) = chunks.as_chunks::<4>();
        for four in fours {
            for (lanes, chunk) in lanes.iter_mut().zip(four) {
                take_max(lanes, &mut nan, chunk);
            }
        }
        for chunk in singles {
            take_max(&mut lanes[0], &mut nan, chunk);
        }
        let mut max = f32::NEG_INFINITY;
        for &x in lanes.as_flattened().iter().chain(rest) {
            max = if x > max { x } else { max };
        }
        (max, nan.iter().any(|&n| n != 0) || rest.iter().any(|x| x.is_nan()))
    }
}

#[inline(always)]
fn take_max(lanes: &mut [f32; LANES], nan: &mut [u32; LANES], chunk: &[f32; LANES]) {
    for ((lane, nan), &x) in lanes.iter_mut().zip(nan).zip(chunk) {
        *lane = if x > *lane { x } else { *lane };
        *nan |= u32::from(x.is_nan());
    }
}

struct FirstAt<'a>(&'a [f32], f32);

impl Kernel for FirstAt<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Option<usize> {
        let Self(row, value) = self;
        let (chunks, rest) = row.as_chunks::<64>();
        for (i, chunk) in chunks.iter().enumerate() {
            let mut is_there = [0u32; LANES];
            for part in chunk.as_chunks::<LANES>().0 {
                for (is_there, &x) in is_there.iter_mut().zip(part) {
                    *is_there |= u32::from(x == value);
                }
            }
            if is_there.iter().fold(0, |any, x| any | x) != 0 {
                return chunk.iter().position(|&x| x == value).map(|at| 64 * i + at);
            }
        }
        rest.iter().position(|&x| x == value).map(|at| row.len() - rest.len() + at)
    }
}

struct SumExp<'a> {
    row: &'a [f32],
    max: f32,
    slope: f32,
}

impl Kernel for SumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let Self { row, max, slope } = self;
        let (chunks, rest) = row.as_chunks::<LANES>();
        let mut sum = 0.0;
        // lanes of f32 hold few enough terms of at most 1 to lose nothing that counts
        for some in chunks.chunks(16) {
            let mut lanes = [0.0f32; LANES];
            for chunk in some {
                for (lane, &x) in lanes.iter_mut().zip(chunk) {
                    *lane += exp((x - max) * slope);
                }
            }
            sum += lanes.iter().map(|&x| f64::from(x)).sum::<f64>();
        }
        sum + rest.iter().map(|&x| f64::from(exp((x - max) * slope))).sum::<f64>()
    }
}

struct Maxima<'a> {
    row: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Maxima<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        let (stretches, rest) = self.row.as_chunks::<STRETCH>();
        let mut nan = [0u32; LANES];
        let mut has_nan = false;
        for (stretch, out) in stretches.iter().zip(self.out.chunks_mut(LANES)) {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for chunk in stretch.as_chunks::<LANES>().0 {
                take_max(&mut lanes, &mut nan, chunk);
            }
            out.copy_from_slice(&lanes[..out.len()]);
        }
        let first = (stretches.len() * LANES).min(self.out.len());
        for (lane, out) in self.out[first..].iter_mut().enumerate() {
            *out = f32::NEG_INFINITY;
            for &x in rest.iter().skip(lane).step_by(LANES) {
                *out = if x > *out { x } else { *out };
                has_nan |= x.is_nan();
            }
        }
        has_nan || nan.iter().any(|&n| n != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn max_and_its_place(
            mut row in prop::collection::vec(-9f32..9.0, 0..700),
            copies in prop::collection::vec(0usize..700, 0..4),
        ) {
            let naive = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for isa in Isa::available() {
                prop_assert_eq!(max_and_nan(isa, &row), (naive, false));
            }
            for at in copies {
                if let Some(x) = row.get_mut(at) {
                    *x = 10.0;
                }
            }
            for isa in Isa::available() {
                prop_assert_eq!(first_at(isa, &row, 10.0), row.iter().position(|&x| x == 10.0));
            }
        }

        #[test]
        fn groups_hold_every_number_once_under_its_maximum(row in prop::collection::vec(-9f32..9.0, 0..900)) {
            for isa in Isa::available() {
                let mut highest = vec![0.0; num_groups(row.len())];
                prop_assert!(!maxima(isa, &row, &mut highest));
                let mut seen = vec![0; row.len()];
                for (i, &max) in highest.iter().enumerate() {
                    let naive = group(i, row.len()).map(|at| row[at]).fold(f32::NEG_INFINITY, f32::max);
                    prop_assert_eq!(max, naive);
                    group(i, row.len()).for_each(|at| seen[at] += 1);
                }
                prop_assert!(seen.iter().all(|&n| n == 1));
            }
        }

        #[test]
        fn nan_is_seen_anywhere(len in 1usize..700, at in 0usize..700) {
            let mut row = vec![1.0; len];
            row[at % len] = f32::NAN;
            for isa in Isa::available() {
                prop_assert!(max_and_nan(isa, &row).1);
                prop_assert!(maxima(isa, &row, &mut vec![0.0; num_groups(len)]));
            }
        }

        #[test]
        fn exp_is_close(x in -87f32..0.0) {
            let want = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) / want - 1.0).abs() < 3e-7, "{x}");
        }

        #[test]
        fn sums_are_close_and_the_same_everywhere(
            row in prop::collection::vec(-30f32..30.0, 1..2000),
            slope in 0.5f32..2.0,
        ) {
            let isa = Isa::detect();
            let (max, _) = max_and_nan(isa, &row);
            let want: f64 = row.iter().map(|&x| (f64::from(x - max) * f64::from(slope)).exp()).sum();
            let found = sum_exp(isa, &row, max, slope);
            prop_assert!((found / want - 1.0).abs() < 1e-5);
            for isa in Isa::available() {
                prop_assert_eq!(sum_exp(isa, &row, max, slope), found);
            }
        }
    }

    #[test]
    fn the_ends() {
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(-200.0)), (1.0, 0.0, 0.0));
        for isa in Isa::available() {
            assert_eq!(max_and_nan(isa, &[]), (f32::NEG_INFINITY, false));
            assert_eq!(max_and_nan(isa, &[f32::INFINITY, 1.0]), (f32::INFINITY, false));
            assert_eq!(first_at(isa, &[1.0], 2.0), None);
        }
    }
}

//! The searches for scales that the K formats rest on.
//!
//! Each tries rounding a group with several scales, solves for the scale (and minimum) that fits the
//! rounded numbers best in weighted least squares, and keeps the best of all. Names in ggml:
//! `make_qkx2_quants`, `make_qx_quants`, `make_q3_quants`.

use super::extreme;

/// A group whose largest magnitude is below this is taken for zeros.
pub(super) const TINY: f32 = 1e-15;

/// The nearest whole number, ties to even, of one below 2^22 in magnitude.
///
/// Adding 3 * 2^22 leaves the whole number in the low bits of the sum.
#[inline(always)]
pub(super) fn nearest(x: f32) -> i32 {
    let bits = (x + 12_582_912.0).to_bits() & 0x007f_ffff;
    bits as i32 - 0x0040_0000
}

/// Scales to try: those that put `levels + first + step * i` levels, for `i` up to `count`, between the
/// least number and the greatest.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) count: i32,
}

/// What a group with a minimum is fitted by.
#[derive(Clone, Copy)]
pub(super) struct AffineFit {
    /// The greatest level; the least is 0.
    pub(super) most: i32,
    /// The scales to try.
    pub(super) steps: Steps,
    /// Whether the error is the magnitude of the difference and not its square.
    pub(super) is_absolute: bool,
}

impl AffineFit {
    /// The scale and what is taken off (never negative), so that `scale * level - off` is near `x`; and
    /// the levels.
    pub(super) fn run<const N: usize>(self, x: &[f32; N], weights: &[f32; N]) -> (f32, f32, [u8; N]) {
        let most = self.most as f32;
        let (mut min, mut max) = (x[0], x[0]);
        let (mut sum_w, mut sum_x) = (weights[0], weights[0] * x[0]);
        for (&x, &w) in x.iter().zip(weights).skip(1) {
            min = if x < min { x } else { min };
            max = if x > max { x } else { max };
            sum_w += w;
            sum_x += w * x;
        }
        min = if min > 0.0 { 0.0 } else { min };
        if max == min {
            return (0.0, -min, [0; N]);
        }
        let mut scale = 1.0 / (most / (max - min));
        let mut levels = self.levels(x, most / (max - min), min);
        let mut best = self.error(x, weights, &levels, scale, min);
        for i in 0..=self.steps.count {
            let inverse = (self.steps.first + self.steps.step * i as f32 + most) / (max - min);
            let trial = self.levels(x, inverse, min);
            let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
            for ((&x, &w), &l) in x.iter().zip(weights).zip(&trial) {
                let l = f32::from(l);
                sum_l += w * l;
                sum_l2 += w * l * l;
                sum_xl += w * l * x;
            }
            let determinant = sum_w * sum_l2 - sum_l * sum_l;
            if determinant > 0.0 {
                let mut trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
                let mut trial_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
                if trial_min > 0.0 {
                    (trial_min, trial_scale) = (0.0, sum_xl / sum_l2);
                }
                let error = self.error(x, weights, &trial, trial_scale, trial_min);
                if error < best {
                    (best, scale, min, levels) = (error, trial_scale, trial_min, trial);
                }
            }
        }
        (scale, -min, levels)
    }

    #[inline(always)]
    fn levels<const N: usize>(self, x: &[f32; N], inverse: f32, min: f32) -> [u8; N] {
        x.map(|x| nearest(inverse * (x - min)).clamp(0, self.most) as u8)
    }

    #[inline(always)]
    fn error<const N: usize>(
        self,
        x: &[f32; N],
        weights: &[f32; N],
        levels: &[u8; N],
        scale: f32,
        min: f32,
    ) -> f32 {
        let mut sum = 0.0;
        for ((&x, &w), &l) in x.iter().zip(weights).zip(levels) {
            let difference = scale * f32::from(l) + min - x;
            sum += w * if self.is_absolute { difference.abs() } else { difference * difference };
        }
        sum
    }
}

/// The scale so that `scale * level` is near `x`, for levels from `-half` to `half - 1`, and the levels;
/// a number counts by its square.
pub(super) fn symmetric<const N: usize>(x: &[f32; N], half: i32) -> (f32, [i8; N]) {
    let max = extreme(x);
    if max.abs() < TINY {
        return (0.0, [-half as i8; N]);
    }
    let levels_for = |inverse: f32| x.map(|x| nearest(inverse * x).clamp(-half, half - 1) as i8);
    let mut levels = levels_for(-half as f32 / max);
    let (sum_xl, sum_l2) = moments(x, &levels);
    let mut scale = if sum_l2 == 0.0 { 0.0 } else { sum_xl / sum_l2 };
    let mut best = scale * sum_xl;
    for step in (-9..=9).filter(|&step| step != 0) {
        let trial = levels_for(-(half as f32 + 0.1 * step as f32) / max);
        let (sum_xl, sum_l2) = moments(x, &trial);
        if sum_l2 > 0.0 && sum_xl * sum_xl > best * sum_l2 {
            levels = trial;
            scale = sum_xl / sum_l2;
            best = scale * sum_xl;
        }
    }
    (scale, levels)
}

/// As [`symmetric`], but moving single numbers to other levels for as long as that helps, at most five
/// rounds.
pub(super) fn symmetric_by_moves<const N: usize>(x: &[f32; N], half: i32) -> (f32, [i8; N]) {
    let max = extreme(x);
    if max.abs() < TINY {
        return (0.0, [-half as i8; N]);
    }
    let inverse = -half as f32 / max;
    let mut levels = x.map(|x| nearest(inverse * x).clamp(-half, half - 1) as i8);
    let (mut sum_xl, mut sum_l2) = moments(x, &levels);
    for _ in 0..5 {
        let mut has_changed = false;
        for (&x, level) in x.iter().zip(&mut levels) {
            let (w, l) = (x * x, f32::from(*level));
            let mut xl = sum_xl - w * x * l;
            if xl > 0.0 {
                let mut l2 = sum_l2 - w * l * l;
                let moved = nearest(x * l2 / xl).clamp(-half, half - 1) as i8;
                if moved != *level {
                    let l = f32::from(moved);
                    xl += w * x * l;
                    l2 += w * l * l;
                    if l2 > 0.0 && xl * xl * sum_l2 > sum_xl * sum_xl * l2 {
                        (*level, sum_xl, sum_l2) = (moved, xl, l2);
                        has_changed = true;
                    }
                }
            }
        }
        if !has_changed {
            break;
        }
    }
    (if sum_l2 > 0.0 { sum_xl / sum_l2 } else { 0.0 }, levels)
}

/// The weighted sums of number times level and of level squared.
#[inline(always)]
fn moments<const N: usize>(x: &[f32; N], levels: &[i8; N]) -> (f32, f32) {
    let (mut sum_xl, mut sum_l2) = (0.0, 0.0);
    for (&x, &l) in x.iter().zip(levels) {
        let (w, l) = (x * x, f32::from(l));
        sum_xl += w * x * l;
        sum_l2 += w * l * l;
    }
    (sum_xl, sum_l2)
}

//! Elementary functions that a compiler can turn into vector code: no branch, no table, no call.

use crate::isa::Simd;

/// `e^x` to within 2 units in the last place; 0 below -87.33, where the result would be denormal.
///
/// Cody and Waite's reduction to `[-ln 2 / 2, ln 2 / 2]` and the polynomial of Cephes' `expf`. NaN
/// stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: f32) -> f32 {
    /// 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    const LOWEST: f32 = -87.33;
    // comparisons that are false for NaN, so that it falls through
    let bounded = if x > 89.0 { 89.0 } else { x };
    let bounded = if bounded < LOWEST { LOWEST } else { bounded };
    let shifted = s.mul_add_scalar(bounded, std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    // ln 2 in two parts, the first with so few bits that the product is exact
    let r = s.mul_add_scalar(n, -0.693_359_4, bounded);
    let r = s.mul_add_scalar(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = s.mul_add_scalar(p, r, 1.398_199_9e-3);
    p = s.mul_add_scalar(p, r, 8.333_452e-3);
    p = s.mul_add_scalar(p, r, 4.166_579_6e-2);
    p = s.mul_add_scalar(p, r, 1.666_666_5e-1);
    p = s.mul_add_scalar(p, r, 0.5);
    let e = s.mul_add_scalar(p, r * r, r + 1.0);
    // 2^n in two factors, because n may be 128
    let n = (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
    let half = n >> 1;
    let power = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
    let e = e * power(half) * power(n.wrapping_sub(half));
    if x < LOWEST { 0.0 } else { e }
}

/// `tanh(x)` to within 3e-7.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: f32) -> f32 {
    1.0 - 2.0 / (exp(s, 2.0 * x) + 1.0)
}

/// One less the error function, to within 1e-5 of its size where it is no denormal: so that `1 + erf(x)`,
/// which is `erfc(-x)`, keeps its digits far to the left. The Chebyshev fit of Press et al., Numerical
/// Recipes, 6.2. NaN stays NaN.
#[inline(always)]
pub(crate) fn erfc<S: Simd>(s: S, x: f32) -> f32 {
    const FIT: [f32; 9] = [
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ];
    let size = x.abs();
    let t = 1.0 / s.mul_add_scalar(0.5, size, 1.0);
    let mut p = 0.170_872_77;
    for c in FIT {
        p = s.mul_add_scalar(p, t, c);
    }
    let tail = t * exp(s, s.mul_add_scalar(-size, size, p));
    if x < 0.0 { 2.0 - tail } else { tail }
}

/// `cap * tanh(x / cap)`.
#[inline(always)]
pub(crate) fn soft_cap<S: Simd>(s: S, x: f32, cap: f32) -> f32 {
    cap * tanh(s, x / cap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Isa, Kernel};

    struct Map<'a>(&'a mut [f32], u8);

    impl Kernel for Map<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for x in self.0 {
                *x = match self.1 {
                    0 => exp(s, *x),
                    1 => tanh(s, *x),
                    2 => erfc(s, *x),
                    _ => soft_cap(s, *x, 30.0),
                };
            }
        }
    }

    fn map(isa: Isa, xs: &[f32], function: u8) -> Vec<f32> {
        let mut xs = xs.to_vec();
        isa.run(Map(&mut xs, function));
        xs
    }

    #[test]
    fn they_are_as_exact_as_they_say() {
        let xs: Vec<f32> = (-88_000..89_000).map(|i| i as f32 * 1e-3).collect();
        for isa in Isa::available() {
            for (x, e) in xs.iter().zip(map(isa, &xs, 0)) {
                let want = f64::from(*x).exp();
                let is_edge = (*x < -87.33 && e == 0.0) || (want > f64::from(f32::MAX) && e == f32::INFINITY);
                let error = (f64::from(e) - want).abs();
                assert!(error <= want * 2.4e-7 || is_edge, "{}: exp({x}) = {e}", isa.name());
            }
            for (x, t) in xs.iter().zip(map(isa, &xs, 1)) {
                assert!(
                    (f64::from(t) - f64::from(*x).tanh()).abs() < 3e-7,
                    "{}: tanh({x}) = {t}",
                    isa.name()
                );
            }
            for (x, t) in xs.iter().zip(map(isa, &xs, 2)) {
                let want = libm::erfc(f64::from(*x));
                let error = (f64::from(t) - want).abs();
                assert!(error < 1e-5 * want + 1e-36, "{}: erfc({x}) = {t}, not {want}", isa.name());
            }
            for (x, t) in xs.iter().zip(map(isa, &xs, 3)) {
                let want = 30.0 * (f64::from(*x) / 30.0).tanh();
                assert!((f64::from(t) - want).abs() < 1e-5, "{}: cap({x}) = {t}", isa.name());
            }
        }
    }

    #[test]
    fn they_hide_nothing() {
        for isa in Isa::available() {
            let ends = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e30, -1e30];
            let e = map(isa, &ends, 0);
            assert!(e[0].is_nan());
            assert_eq!(e[1..], [f32::INFINITY, 0.0, 1.0, 1.0, f32::INFINITY, 0.0]);
            let t = map(isa, &ends, 1);
            assert!(t[0].is_nan());
            assert_eq!(t[1..], [1.0, -1.0, 0.0, 0.0, 1.0, -1.0]);
        }
    }
}

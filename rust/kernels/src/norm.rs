//! Root-mean-square and layer norms, and the residual sum.

use crate::isa::{Isa, Kernel, LANES, Simd};

/// `out = x * weight / sqrt(mean(x^2) + eps)`, all of one length.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = isa.run(Scale { x, eps });
    isa.run(Apply { x, weight, scale, out });
}

/// As [`rms_norm`], in place.
pub fn rms_norm_in_place(isa: Isa, x: &mut [f32], weight: &[f32], eps: f32) {
    let scale = isa.run(Scale { x, eps });
    isa.run(ApplyInPlace { x, weight, scale });
}

/// `out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, all of one length (Ba et al., arXiv
/// 1607.06450).
pub fn layer_norm(isa: Isa, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    isa.run(LayerNorm { x, weight, bias, eps, out });
}

/// `x += scale * y`.
pub fn add_scaled(isa: Isa, x: &mut [f32], y: &[f32], scale: f32) {
    isa.run(AddScaled { x, y, scale });
}

struct LayerNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.x.len() as f32;
        let (chunks, rest) = self.x.as_chunks::<LANES>();
        let mut sum = s.splat(0.0);
        for chunk in chunks {
            sum = s.add(sum, s.load(chunk));
        }
        let mean = s.sum(s.add(sum, s.load_part(rest))) / len;
        // the centred numbers first, so that what `load_part` fills up with stays zero
        for (o, x) in self.out.iter_mut().zip(self.x) {
            *o = x - mean;
        }
        let scale = Scale { x: self.out, eps: self.eps }.run(s);
        for ((o, w), b) in self.out.iter_mut().zip(self.weight).zip(self.bias) {
            *o = *o * scale * w + b;
        }
    }
}

/// `1 / sqrt(mean(x^2) + eps)`.
struct Scale<'a> {
    x: &'a [f32],
    eps: f32,
}

impl Kernel for Scale<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (chunks, rest) = self.x.as_chunks::<LANES>();
        let mut sum = s.splat(0.0);
        for chunk in chunks {
            let v = s.load(chunk);
            sum = s.mul_add(v, v, sum);
        }
        let v = s.load_part(rest);
        sum = s.mul_add(v, v, sum);
        1.0 / (s.sum(sum) / self.x.len() as f32 + self.eps).sqrt()
    }
}

struct Apply<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for ((out, x), w) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = x * self.scale * w;
        }
    }
}

struct ApplyInPlace<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    scale: f32,
}

impl Kernel for ApplyInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (x, w) in self.x.iter_mut().zip(self.weight) {
            *x = *x * self.scale * w;
        }
    }
}

struct AddScaled<'a> {
    x: &'a mut [f32],
    y: &'a [f32],
    scale: f32,
}

impl Kernel for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, y) in self.x.iter_mut().zip(self.y) {
            *x = s.mul_add_scalar(self.scale, *y, *x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn norms_are_the_reference(
            (x, weight) in (1usize..300).prop_flat_map(|n| (
                prop::collection::vec(-3.0f32..3.0, n),
                prop::collection::vec(-2.0f32..2.0, n),
            )),
            eps in 1e-6f32..1e-2,
        ) {
            let want = reference::rms_norm(&x, &weight, eps);
            for isa in Isa::available() {
                let mut out = vec![0.0; x.len()];
                rms_norm(isa, &x, &weight, eps, &mut out);
                for (o, w) in out.iter().zip(&want) {
                    prop_assert!((f64::from(*o) - w).abs() <= 1e-6 + w.abs() * 1e-5, "{}", isa.name());
                }
                let mut here = x.clone();
                rms_norm_in_place(isa, &mut here, &weight, eps);
                prop_assert_eq!(&here, &out);
                add_scaled(isa, &mut here, &x, 0.5);
                for ((h, o), x) in here.iter().zip(&out).zip(&x) {
                    prop_assert!((h - (o + 0.5 * x)).abs() <= 1e-6 * (1.0 + o.abs()));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn layer_norms_are_the_reference(
            (x, weight, bias) in (1usize..300).prop_flat_map(|n| (
                prop::collection::vec(-3.0f32..5.0, n),
                prop::collection::vec(-2.0f32..2.0, n),
                prop::collection::vec(-2.0f32..2.0, n),
            )),
            eps in 1e-5f32..1e-2,
        ) {
            let want = reference::layer_norm(&x, &weight, &bias, eps);
            for isa in Isa::available() {
                let mut out = vec![0.0; x.len()];
                layer_norm(isa, &x, &weight, &bias, eps, &mut out);
                for (o, w) in out.iter().zip(&want) {
                    prop_assert!((f64::from(*o) - w).abs() <= 1e-4 + w.abs() * 1e-4, "{}", isa.name());
                }
            }
        }
    }

    #[test]
    fn one_nan_is_everywhere() {
        for isa in Isa::available() {
            let mut x = [1.0; 40];
            x[35] = f32::NAN;
            let mut out = [0.0; 40];
            layer_norm(isa, &x, &[1.0; 40], &[0.0; 40], 1e-5, &mut out);
            assert!(out.iter().all(|v| v.is_nan()));
            rms_norm_in_place(isa, &mut x, &[1.0; 40], 1e-5);
            assert!(x.iter().all(|v| v.is_nan()));
        }
    }
}

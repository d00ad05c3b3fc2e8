//! A factor and a soft cap on every number: embeddings, logits.

use crate::isa::{Isa, Kernel, Simd};
use crate::math::soft_cap;

/// `x = x * scale`, then `cap * tanh(x / cap)` where there is a cap.
pub fn scale_and_cap(isa: Isa, values: &mut [f32], scale: f32, cap: Option<f32>) {
    isa.run(ScaleAndCap { values, scale, cap });
}

struct ScaleAndCap<'a> {
    values: &'a mut [f32],
    scale: f32,
    cap: Option<f32>,
}

impl Kernel for ScaleAndCap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.scale != 1.0 {
            for x in &mut *self.values {
                *x *= self.scale;
            }
        }
        if let Some(cap) = self.cap {
            for x in self.values {
                *x = soft_cap(s, *x, cap);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_formula() {
        let values: Vec<f32> = (-500..500).map(|i| i as f32 * 0.13).collect();
        for isa in Isa::available() {
            for (scale, cap) in [(1.0, None), (0.25, None), (1.0, Some(30.0)), (-3.0, Some(5.0))] {
                let mut out = values.clone();
                scale_and_cap(isa, &mut out, scale, cap);
                for (x, y) in values.iter().zip(out) {
                    let scaled = f64::from(*x) * f64::from(scale);
                    let want = cap.map_or(scaled, |c| f64::from(c) * (scaled / f64::from(c)).tanh());
                    assert!((f64::from(y) - want).abs() < 2e-5, "{x} * {scale} capped at {cap:?}: {y}");
                }
            }
            let mut nan = [f32::NAN];
            scale_and_cap(isa, &mut nan, 2.0, Some(3.0));
            assert!(nan[0].is_nan());
        }
    }
}

//! Rotary position embeddings on one head.

use crate::isa::{Isa, Kernel, Simd};

/// Turns coordinate `i` with `i + n` by the angle whose cosine is `cos[i]`, where `n` angles are given;
/// coordinates from `2 n` on stay.
pub fn rotate_half(isa: Isa, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    isa.run(RotateHalf { head, cos, sin });
}

/// Turns coordinate `2 i` with `2 i + 1`; coordinates from `2 n` on stay.
pub fn rotate_interleaved(isa: Isa, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    isa.run(RotateInterleaved { head, cos, sin });
}

struct RotateHalf<'a> {
    head: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for RotateHalf<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (first, second) = self.head.split_at_mut(self.cos.len());
        for (((x, y), c), s) in first.iter_mut().zip(second).zip(self.cos).zip(self.sin) {
            (*x, *y) = (*x * c - *y * s, *y * c + *x * s);
        }
    }
}

struct RotateInterleaved<'a> {
    head: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for RotateInterleaved<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (([x, y], c), s) in self.head.as_chunks_mut::<2>().0.iter_mut().zip(self.cos).zip(self.sin) {
            (*x, *y) = (*x * c - *y * s, *y * c + *x * s);
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
        fn turns_are_the_reference(
            (angles, stays, seed) in (1usize..70, 0usize..20, any::<u32>()),
        ) {
            let number = |i: usize| ((seed as usize % 9973 + i * 37) as f32 * 0.73).sin() * 2.0;
            let head: Vec<f32> = (0..2 * angles + stays).map(number).collect();
            let (sin, cos): (Vec<f32>, Vec<f32>) =
                (0..angles).map(|i| (number(i + 1000) * 40.0).sin_cos()).unzip();
            for isa in Isa::available() {
                for half in [true, false] {
                    let mut turned = head.clone();
                    let rotate = if half { rotate_half } else { rotate_interleaved };
                    rotate(isa, &mut turned, &cos, &sin);
                    for (t, w) in turned.iter().zip(reference::rotate(&head, &cos, &sin, half)) {
                        prop_assert!((f64::from(*t) - w).abs() < 1e-6);
                    }
                    prop_assert_eq!(&turned[2 * angles..], &head[2 * angles..]);
                }
            }
        }
    }
}

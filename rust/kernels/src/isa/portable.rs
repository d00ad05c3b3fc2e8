//! Plain Rust, for machines without a set of our own (aarch64's NEON comes out of the compiler).

use super::{LANES, Simd};

/// Whether a multiply-add is one instruction of the target, rather than a call into a library.
const HAS_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// The instruction set that every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portable;

impl Simd for Portable {
    type V = [f32; LANES];

    const HAS_WIDE_TILE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        *from
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        *to = v;
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::V {
        from.map(|h| half::f16::from_bits(h).to_f32())
    }

    #[inline(always)]
    fn add(self, mut a: Self::V, b: Self::V) -> Self::V {
        for i in 0..LANES {
            a[i] += b[i];
        }
        a
    }

    #[inline(always)]
    fn mul(self, mut a: Self::V, b: Self::V) -> Self::V {
        for i in 0..LANES {
            a[i] *= b[i];
        }
        a
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, mut c: Self::V) -> Self::V {
        for i in 0..LANES {
            c[i] = self.mul_add_scalar(a[i], b[i], c[i]);
        }
        c
    }

    #[inline(always)]
    fn mul_add_scalar(self, a: f32, b: f32, c: f32) -> f32 {
        if HAS_FMA { a.mul_add(b, c) } else { a * b + c }
    }
}

//! Plain Rust, for machines without a set of our own.

use super::{Int8, LANES, Simd};

/// Whether a multiply-add is one instruction of the target, rather than a call into a library.
const HAS_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// The instruction set that every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portable;

impl Simd for Portable {
    type V = [f32; LANES];

    const REGISTERS: usize = 4;

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
    fn load_u8(self, from: &[u8; LANES]) -> Self::V {
        from.map(f32::from)
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        from.map(f32::from)
    }

    #[inline(always)]
    fn sums_to_f32(self, sums: [i32; LANES]) -> Self::V {
        sums.map(|x| x as f32)
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

impl Int8 for Portable {
    type Bytes = [u8; 64];
    type Sums = [i32; LANES];
    type Partial = [i32; LANES];

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 64]) -> [u8; 64] {
        *from
    }

    #[inline(always)]
    fn store_bytes(self, bytes: [u8; 64], to: &mut [u8; 64]) {
        *to = bytes;
    }

    #[inline(always)]
    fn and(self, mut a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        for i in 0..64 {
            a[i] &= b[i];
        }
        a
    }

    #[inline(always)]
    fn or(self, mut a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        for i in 0..64 {
            a[i] |= b[i];
        }
        a
    }

    #[inline(always)]
    fn splat_byte(self, byte: u8) -> [u8; 64] {
        [byte; 64]
    }

    #[inline(always)]
    fn up(self, bytes: [u8; 64], bits: u32) -> [u8; 64] {
        bytes.map(|b| b << bits)
    }

    #[inline(always)]
    fn down(self, bytes: [u8; 64], bits: u32) -> [u8; 64] {
        bytes.map(|b| b >> bits)
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], places: [u8; 64]) -> [u8; 64] {
        places.map(|place| table[usize::from(place & 15)])
    }

    #[inline(always)]
    fn splat_sum(self, x: i32) -> [i32; LANES] {
        [x; LANES]
    }

    #[inline(always)]
    fn open(self, sums: [i32; LANES]) -> [i32; LANES] {
        sums
    }

    #[inline(always)]
    fn settle(self, _: [i32; LANES], partial: [i32; LANES]) -> [i32; LANES] {
        partial
    }

    #[inline(always)]
    fn dot(self, mut sums: [i32; LANES], weights: [u8; 64], activations: [i8; 4]) -> [i32; LANES] {
        for i in 0..LANES {
            for j in 0..4 {
                sums[i] += i32::from(weights[4 * i + j]) * i32::from(activations[j]);
            }
        }
        sums
    }

    #[inline(always)]
    fn start_biased(self, negated_sum: i32) -> [i32; LANES] {
        self.splat_sum(negated_sum << 7)
    }

    #[inline(always)]
    fn dot_biased(self, sums: [i32; LANES], weights: [u8; 64], activations: [i8; 4]) -> [i32; LANES] {
        self.dot(sums, weights, activations)
    }
}

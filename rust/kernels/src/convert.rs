//! f32, f16 and bf16 numbers as bytes, in little-endian order.

use half::{bf16, f16};

use crate::isa::{Isa, Kernel, LANES, Simd};

/// Reads f32 numbers; `out` is filled as far as `from` reaches.
pub fn f32_from_bytes(from: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(from.as_chunks::<4>().0) {
        *out = f32::from_le_bytes(*bytes);
    }
}

/// Writes f32 numbers.
pub fn f32_to_bytes(from: &[f32], out: &mut [u8]) {
    for (x, bytes) in from.iter().zip(out.as_chunks_mut::<4>().0) {
        *bytes = x.to_le_bytes();
    }
}

/// Widens f16 numbers.
pub fn f16_to_f32(isa: Isa, from: &[u8], out: &mut [f32]) {
    isa.run(FromF16 { from, out });
}

/// Rounds up to 64 numbers to the bits of f16, ties to even; what is too large becomes infinite.
pub fn f32_to_f16_bits(isa: Isa, from: &[f32], out: &mut [u16; 64]) {
    isa.run(ToF16 { from, out });
}

struct ToF16<'a> {
    from: &'a [f32],
    out: &'a mut [u16; 64],
}

impl Kernel for ToF16<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (from, out) in self.from.chunks(LANES).zip(self.out.as_chunks_mut::<LANES>().0) {
            let numbers = match <&[f32; LANES]>::try_from(from) {
                Ok(from) => s.load(from),
                Err(_) => s.load_part(from),
            };
            s.store_f16(numbers, out);
        }
    }
}

/// Rounds to f16, ties to even; what is too large becomes infinite.
pub fn f32_to_f16(from: &[f32], out: &mut [u8]) {
    for (x, bytes) in from.iter().zip(out.as_chunks_mut::<2>().0) {
        *bytes = f16::from_f32(*x).to_le_bytes();
    }
}

/// Widens bf16 numbers.
pub fn bf16_to_f32(isa: Isa, from: &[u8], out: &mut [f32]) {
    isa.run(FromBf16 { from, out });
}

/// Rounds to bf16, ties to even.
pub fn f32_to_bf16(from: &[f32], out: &mut [u8]) {
    for (x, bytes) in from.iter().zip(out.as_chunks_mut::<2>().0) {
        *bytes = bf16::from_f32(*x).to_le_bytes();
    }
}

struct FromF16<'a> {
    from: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for FromF16<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (from, from_rest) = self.from.as_chunks::<{ 2 * LANES }>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for (from, out) in from.iter().zip(&mut *out) {
            let mut halves = [0; LANES];
            for (h, bytes) in halves.iter_mut().zip(from.as_chunks::<2>().0) {
                *h = u16::from_le_bytes(*bytes);
            }
            s.store(s.load_f16(&halves), out);
        }
        for (out, bytes) in out_rest.iter_mut().zip(from_rest.as_chunks::<2>().0) {
            *out = f16::from_le_bytes(*bytes).to_f32();
        }
    }
}

struct FromBf16<'a> {
    from: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for FromBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (out, bytes) in self.out.iter_mut().zip(self.from.as_chunks::<2>().0) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    }

    #[test]
    fn every_half_widens_and_comes_back() {
        // an odd count, so that there is a rest
        let halves: Vec<u16> = (0..=u16::MAX).chain([0x3c00]).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
        for isa in Isa::available() {
            let (mut wide, mut brain) = (vec![0.0; halves.len()], vec![0.0; halves.len()]);
            f16_to_f32(isa, &bytes, &mut wide);
            bf16_to_f32(isa, &bytes, &mut brain);
            for ((h, w), b) in halves.iter().zip(&wide).zip(&brain) {
                assert!(same(*w, f16::from_bits(*h).to_f32()), "{} {h:#x}", isa.name());
                assert!(same(*b, bf16::from_bits(*h).to_f32()), "{} {h:#x}", isa.name());
            }
            let mut back = vec![0; bytes.len()];
            let numbers = |i: usize| !wide[i].is_nan();
            f32_to_f16(&wide, &mut back);
            for i in (0..halves.len()).filter(|&i| numbers(i)) {
                assert_eq!(back[2 * i..2 * i + 2], bytes[2 * i..2 * i + 2]);
            }
            f32_to_bf16(&brain, &mut back);
            for i in (0..halves.len()).filter(|&i| !brain[i].is_nan()) {
                assert_eq!(back[2 * i..2 * i + 2], bytes[2 * i..2 * i + 2]);
            }
        }
    }

    #[test]
    fn singles_go_through_bytes() {
        let numbers = [1.5, -0.0, f32::INFINITY, 3e-42];
        let (mut bytes, mut back) = ([0; 16], [9.0; 4]);
        f32_to_bytes(&numbers, &mut bytes);
        f32_from_bytes(&bytes, &mut back);
        assert_eq!(back.map(f32::to_bits), numbers.map(f32::to_bits));
    }
}

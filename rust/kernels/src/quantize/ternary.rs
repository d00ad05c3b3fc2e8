//! TQ1_0, TQ2_0.

use super::{each_block, extreme, inverse, put_f16};

/// Numbers in a block.
const LEN: usize = 256;

/// Every number as 0, 1 or 2, and the scale.
#[inline(always)]
fn trits(values: &[f32; LEN]) -> ([u8; LEN], f32) {
    let d = extreme(values).abs();
    let id = inverse(d);
    (values.map(|x| ((x * id).round() as i8).clamp(-1, 1).wrapping_add(1) as u8), d)
}

/// TQ1_0: five ternary digits to a byte, as a fraction of 256 rounded up.
pub(super) fn tq1_0(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 54]| {
        let (trits, d) = trits(x);
        let mut rest = &trits[..];
        for (start, bytes, digits) in [(0, 32, 5), (32, 16, 5), (48, 4, 4)] {
            for (i, out) in block[start..start + bytes].iter_mut().enumerate() {
                let number = (0..5).fold(0u16, |n, digit| {
                    n * 3 + if digit < digits { u16::from(rest[digit * bytes + i]) } else { 0 }
                });
                *out = (number * 256).div_ceil(243) as u8;
            }
            rest = &rest[bytes * digits..];
        }
        put_f16(block, 52, d);
    });
}

/// TQ2_0: four to a byte.
pub(super) fn tq2_0(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 66]| {
        let (trits, d) = trits(x);
        for (half, out) in block[..64].chunks_exact_mut(32).enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                *out = (0..4).fold(0, |byte, run| byte | trits[half * 128 + run * 32 + i] << (2 * run));
            }
        }
        put_f16(block, 64, d);
    });
}

//! Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

use super::{each_block, extreme, inverse, put_f16};

/// Numbers in a block.
const LEN: usize = 32;

/// The number cut to a whole one from 0 to `most`.
#[inline(always)]
fn level(x: f32, most: u8) -> u8 {
    (x as u8).min(most)
}

/// Nibbles of numbers `i` and `i + 16` into byte `i` of `out`, and the fifth bits as one number.
#[inline(always)]
fn pack(levels: &[u8; LEN], out: &mut [u8]) -> u32 {
    let (low, high) = levels.split_at(LEN / 2);
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = (low & 15) | high << 4;
    }
    levels.iter().enumerate().fold(0, |bits, (i, level)| bits | u32::from(level >> 4) << i)
}

/// The least and the greatest number.
#[inline(always)]
fn bounds(values: &[f32; LEN]) -> (f32, f32) {
    let mut bounds = (f32::MAX, f32::MIN);
    for &x in values {
        bounds.0 = if x < bounds.0 { x } else { bounds.0 };
        bounds.1 = if x > bounds.1 { x } else { bounds.1 };
    }
    bounds
}

/// Q4_0: the number of largest magnitude becomes -8.
pub(super) fn q4_0(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 18]| {
        let d = extreme(x) / -8.0;
        let id = inverse(d);
        put_f16(block, 0, d);
        pack(&x.map(|x| level(x * id + 8.5, 15)), &mut block[2..]);
    });
}

/// Q4_1: the least number becomes 0, the greatest 15.
pub(super) fn q4_1(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 20]| {
        let (min, max) = bounds(x);
        let d = (max - min) / 15.0;
        let id = inverse(d);
        put_f16(block, 0, d);
        put_f16(block, 2, min);
        pack(&x.map(|x| level((x - min) * id + 0.5, 15)), &mut block[4..]);
    });
}

/// Q5_0: the number of largest magnitude becomes -16.
pub(super) fn q5_0(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 22]| {
        let d = extreme(x) / -16.0;
        let id = inverse(d);
        put_f16(block, 0, d);
        let high_bits = pack(&x.map(|x| level(x * id + 16.5, 31)), &mut block[6..]);
        block[2..6].copy_from_slice(&high_bits.to_le_bytes());
    });
}

/// Q5_1: the least number becomes 0, the greatest 31.
pub(super) fn q5_1(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 24]| {
        let (min, max) = bounds(x);
        let d = (max - min) / 31.0;
        let id = inverse(d);
        put_f16(block, 0, d);
        put_f16(block, 2, min);
        let high_bits = pack(&x.map(|x| level((x - min) * id + 0.5, 31)), &mut block[8..]);
        block[4..8].copy_from_slice(&high_bits.to_le_bytes());
    });
}

/// Q8_0: the largest magnitude becomes 127.
pub(super) fn q8_0(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 34]| {
        let d = extreme(x).abs() / 127.0;
        let id = inverse(d);
        put_f16(block, 0, d);
        for (q, x) in block[2..].iter_mut().zip(x) {
            *q = (x * id).round() as i8 as u8;
        }
    });
}

//! Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: 32 numbers under one scale, or a scale and a minimum.

use super::{each_block, f16_at};

/// Numbers in a block.
const LEN: usize = 32;

/// Q4_0: scale, nibbles; byte `i` has numbers `i` and `i + 16`.
#[inline(always)]
pub(super) fn q4_0(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 18], out: &mut [f32; LEN]| {
        let d = f16_at(block, 0);
        let (low, high) = out.split_at_mut(LEN / 2);
        for ((q, low), high) in block[2..].iter().zip(low).zip(high) {
            *low = f32::from((q & 15) as i8 - 8) * d;
            *high = f32::from((q >> 4) as i8 - 8) * d;
        }
    });
}

/// Q4_1: scale, minimum, nibbles.
#[inline(always)]
pub(super) fn q4_1(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 20], out: &mut [f32; LEN]| {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        let (low, high) = out.split_at_mut(LEN / 2);
        for ((q, low), high) in block[4..].iter().zip(low).zip(high) {
            *low = f32::from(q & 15) * d + m;
            *high = f32::from(q >> 4) * d + m;
        }
    });
}

/// The fifth bits of numbers `i` and `i + 16`, each in its place.
#[inline(always)]
fn fifth_bits(high_bits: u32, i: usize) -> (u8, u8) {
    (((high_bits >> i) << 4) as u8 & 16, (high_bits >> (i + 12)) as u8 & 16)
}

/// Q5_0: scale, fifth bits, nibbles.
#[inline(always)]
pub(super) fn q5_0(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 22], out: &mut [f32; LEN]| {
        let d = f16_at(block, 0);
        let high_bits = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        let (low, high) = out.split_at_mut(LEN / 2);
        for (i, ((q, low), high)) in block[6..].iter().zip(low).zip(high).enumerate() {
            let (fifth_low, fifth_high) = fifth_bits(high_bits, i);
            *low = f32::from(((q & 15) | fifth_low) as i8 - 16) * d;
            *high = f32::from(((q >> 4) | fifth_high) as i8 - 16) * d;
        }
    });
}

/// Q5_1: scale, minimum, fifth bits, nibbles.
#[inline(always)]
pub(super) fn q5_1(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 24], out: &mut [f32; LEN]| {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        let high_bits = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        let (low, high) = out.split_at_mut(LEN / 2);
        for (i, ((q, low), high)) in block[8..].iter().zip(low).zip(high).enumerate() {
            let (fifth_low, fifth_high) = fifth_bits(high_bits, i);
            *low = f32::from((q & 15) | fifth_low) * d + m;
            *high = f32::from((q >> 4) | fifth_high) * d + m;
        }
    });
}

/// Q8_0: scale, bytes.
#[inline(always)]
pub(super) fn q8_0(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 34], out: &mut [f32; LEN]| {
        let d = f16_at(block, 0);
        for (q, out) in block[2..].iter().zip(out) {
            *out = f32::from(*q as i8) * d;
        }
    });
}

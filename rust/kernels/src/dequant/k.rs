//! Q2_K to Q6_K: 256 numbers in groups of 16 or 32, whose scales are small integers under a scale of
//! their own.

use super::{each_block, f16_at};

/// Numbers in a block.
const LEN: usize = 256;

/// Q2_K: 16 bytes of 4-bit scales and minima, 64 of 2-bit numbers, scale, scale of the minima.
///
/// Byte `l` of 32 bytes has numbers `l`, `l + 32`, `l + 64`, `l + 96` of 128.
#[inline(always)]
pub(super) fn q2_k(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 84], out: &mut [f32; LEN]| {
        let (scales, quants) = (&block[..16], &block[16..80]);
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let dl = d * f32::from(scales[group] & 15);
            let ml = dmin * f32::from(scales[group] >> 4);
            let (start, shift) = two_bit_place(group);
            for (q, out) in quants[start..start + 16].iter().zip(out) {
                *out = dl * f32::from((q >> shift) & 3) - ml;
            }
        }
    });
}

/// Where the two-bit numbers of the 16 numbers `group` are: the first byte, and the shift.
#[inline(always)]
fn two_bit_place(group: usize) -> (usize, usize) {
    (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2)
}

/// Q3_K: 32 bytes of high bits, 64 of 2-bit numbers, 12 of 6-bit scales, scale.
#[inline(always)]
pub(super) fn q3_k(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 110], out: &mut [f32; LEN]| {
        let (high_bits, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
        let d = f16_at(block, 108);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            // The low nibbles stand in two runs of 8, the upper two bits in four runs of 4.
            let low = (packed[group % 8] >> (group / 8 * 4)) & 15;
            let high = (packed[8 + group % 4] >> (group / 4 * 2)) & 3;
            let dl = d * f32::from((low | (high << 4)) as i8 - 32);
            let (start, shift) = two_bit_place(group);
            let highs = &high_bits[group % 2 * 16..][..16];
            for ((q, h), out) in quants[start..start + 16].iter().zip(highs).zip(out) {
                // A high bit that is clear takes 4 off.
                let off = if (h >> (group / 2)) & 1 == 0 { 4 } else { 0 };
                *out = dl * f32::from(((q >> shift) & 3) as i8 - off);
            }
        }
    });
}

/// The 6-bit scale and minimum of the 32 numbers `group`, from the 12 bytes of Q4_K and Q5_K.
#[inline(always)]
pub(crate) fn scale_min(packed: &[u8; 12], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let (scale, min) = (packed[group - 4] >> 6 << 4, packed[group] >> 6 << 4);
        ((packed[group + 4] & 15) | scale, (packed[group + 4] >> 4) | min)
    }
}

/// The 12 bytes of scales and minima of a Q4_K or Q5_K block.
#[inline(always)]
fn packed_scales<const BYTES: usize>(block: &[u8; BYTES]) -> [u8; 12] {
    std::array::from_fn(|i| block[4 + i])
}

/// Q4_K: scale, scale of the minima, 12 bytes of 6-bit scales and minima, 128 of nibbles.
///
/// Byte `l` of 32 bytes has numbers `l` and `l + 32` of 64.
#[inline(always)]
pub(super) fn q4_k(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 144], out: &mut [f32; LEN]| {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let packed = packed_scales(block);
        let quants = &block[16..];
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_min(&packed, group);
            let (dl, ml) = (d * f32::from(scale), dmin * f32::from(min));
            let shift = group % 2 * 4;
            for (q, out) in quants[group / 2 * 32..][..32].iter().zip(out) {
                *out = dl * f32::from((q >> shift) & 15) - ml;
            }
        }
    });
}

/// Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles.
#[inline(always)]
pub(super) fn q5_k(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 176], out: &mut [f32; LEN]| {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let packed = packed_scales(block);
        let (high_bits, quants) = block[16..].split_at(32);
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_min(&packed, group);
            let (dl, ml) = (d * f32::from(scale), dmin * f32::from(min));
            let shift = group % 2 * 4;
            for ((q, h), out) in quants[group / 2 * 32..][..32].iter().zip(high_bits).zip(out) {
                let fifth = ((h >> group) & 1) << 4;
                *out = dl * f32::from(((q >> shift) & 15) | fifth) - ml;
            }
        }
    });
}

/// Q6_K: 128 bytes of low nibbles, 64 of upper two bits, 16 signed scales, scale.
#[inline(always)]
pub(super) fn q6_k(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 210], out: &mut [f32; LEN]| {
        let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
        let d = f16_at(block, 208);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let dl = d * f32::from(scales[group] as i8);
            // Of 128 numbers, nibbles: 64 bytes, the first 64 numbers low; two bits: 32 bytes.
            let (half, within) = (group / 8, group % 8);
            let lows = &low[half * 64 + within % 4 * 16..][..16];
            let highs = &high[half * 32 + within % 2 * 16..][..16];
            let (low_shift, high_shift) = (within / 4 * 4, within / 2 * 2);
            for ((l, h), out) in lows.iter().zip(highs).zip(out) {
                let q = ((l >> low_shift) & 15) | (((h >> high_shift) & 3) << 4);
                *out = dl * f32::from(q as i8 - 32);
            }
        }
    });
}

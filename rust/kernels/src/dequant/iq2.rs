//! IQ2_XXS, IQ2_XS, IQ2_S: eight numbers a codebook entry, with signs.

use super::codebooks::{IQ2S_GRID, IQ2XS_GRID, IQ2XXS_GRID, even_signs};
use super::{each_block, f16_at};

/// Numbers in a block.
const LEN: usize = 256;

/// Writes the entry under scale and signs; bit `j` of `signs` is that of number `j`.
#[inline(always)]
pub(super) fn put<const D: usize>(out: &mut [f32; D], entry: &[u8; D], signs: u8, scale: f32) {
    for (j, (out, &value)) in out.iter_mut().zip(entry).enumerate() {
        let product = scale * f32::from(value);
        *out = if signs >> j & 1 == 0 { product } else { -product };
    }
}

/// IQ2_XXS: scale, then for each 32 numbers four entry numbers and four sign sets with a 4-bit scale.
#[inline(always)]
pub(super) fn iq2_xxs(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 66], out: &mut [f32; LEN]| {
        let d = f16_at(block, 0);
        let (parts, _) = block[2..].as_chunks::<8>();
        let (outs, _) = out.as_chunks_mut::<32>();
        for (part, out) in parts.iter().zip(outs) {
            let signs = u32::from_le_bytes([part[4], part[5], part[6], part[7]]);
            let scale = d * (0.5 + (signs >> 28) as f32) * 0.25;
            for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                put(out, &IQ2XXS_GRID[usize::from(part[l])], even_signs(signs >> (7 * l)), scale);
            }
        }
    });
}

/// IQ2_XS: scale, 32 words of a 9-bit entry number and 7 signs, 8 bytes of 4-bit scales.
#[inline(always)]
pub(super) fn iq2_xs(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 74], out: &mut [f32; LEN]| {
        let d = f16_at(block, 0);
        let (words, _) = block[2..66].as_chunks::<2>();
        let scales = &block[66..];
        let (outs, _) = out.as_chunks_mut::<8>();
        for (i, (word, out)) in words.iter().zip(outs).enumerate() {
            let word = u16::from_le_bytes(*word);
            let scale = nibble_scale(d, scales, i / 2);
            put(out, &IQ2XS_GRID[usize::from(word & 511)], even_signs(u32::from(word >> 9)), scale);
        }
    });
}

/// IQ2_S: scale, 32 low bytes of entry numbers, 32 sign bytes, 8 of high bits, 8 of 4-bit scales.
#[inline(always)]
pub(super) fn iq2_s(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 82], out: &mut [f32; LEN]| {
        let d = f16_at(block, 0);
        let (low, signs) = (&block[2..34], &block[34..66]);
        let (high, scales) = (&block[66..74], &block[74..82]);
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let upper = usize::from((high[i / 4] >> (i % 4 * 2)) & 3);
            let entry = &IQ2S_GRID[usize::from(low[i]) | upper << 8];
            put(out, entry, signs[i], nibble_scale(d, scales, i / 2));
        }
    });
}

/// The scale of the 16 numbers `group`, two to a byte.
#[inline(always)]
fn nibble_scale(d: f32, scales: &[u8], group: usize) -> f32 {
    let scale = (scales[group / 2] >> (group % 2 * 4)) & 15;
    d * (0.5 + f32::from(scale)) * 0.25
}

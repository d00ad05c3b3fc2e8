//! IQ3_XXS, IQ3_S: four numbers a codebook entry, with signs.

use super::codebooks::{IQ3S_GRID, IQ3XXS_GRID, even_signs};
use super::iq2::put;
use super::{each_block, f16_at};

/// Numbers in a block.
const LEN: usize = 256;

/// IQ3_XXS: scale, 64 entry numbers, then for each 32 numbers four sign sets with a 4-bit scale.
#[inline(always)]
pub(super) fn iq3_xxs(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 98], out: &mut [f32; LEN]| {
        let d = f16_at(block, 0);
        let (entries, _) = block[2..66].as_chunks::<8>();
        let (signs, _) = block[66..].as_chunks::<4>();
        let (outs, _) = out.as_chunks_mut::<32>();
        for ((entries, signs), out) in entries.iter().zip(signs).zip(outs) {
            let signs = u32::from_le_bytes(*signs);
            let scale = d * (0.5 + (signs >> 28) as f32) * 0.5;
            for (l, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let eight = even_signs(signs >> (7 * (l / 2)));
                put(out, &IQ3XXS_GRID[usize::from(entries[l])], eight >> (l % 2 * 4), scale);
            }
        }
    });
}

/// IQ3_S: scale, 64 low bytes of entry numbers, 8 of high bits, 32 sign bytes, 4 of 4-bit scales.
#[inline(always)]
pub(super) fn iq3_s(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 110], out: &mut [f32; LEN]| {
        let d = f16_at(block, 0);
        let (low, high) = (&block[2..66], &block[66..74]);
        let (signs, scales) = (&block[74..106], &block[106..110]);
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let upper = usize::from((high[i / 8] >> (i % 8)) & 1);
            let entry = &IQ3S_GRID[usize::from(low[i]) | upper << 8];
            let scale = (scales[i / 16] >> (i / 8 % 2 * 4)) & 15;
            put(out, entry, signs[i / 2] >> (i % 2 * 4), d * f32::from(1 + 2 * scale));
        }
    });
}

//! IQ1_S, IQ1_M: eight numbers of -1, 0 and 1 a codebook entry, all moved by an eighth up or down.

use super::codebooks::IQ1S_GRID;
use super::{each_block, f16_at, f16_to_f32};

/// Numbers in a block.
const LEN: usize = 256;

/// How far an entry is moved.
const DELTA: f32 = 0.125;

#[inline(always)]
fn put(out: &mut [f32; 8], entry: usize, is_down: bool, scale: f32) {
    let delta = if is_down { -DELTA } else { DELTA };
    for (out, &value) in out.iter_mut().zip(&IQ1S_GRID[entry]) {
        *out = scale * (f32::from(value) + delta);
    }
}

/// IQ1_S: scale, 32 low bytes of entry numbers, then for each 32 numbers a word of four times three high
/// bits, a 3-bit scale and the direction.
#[inline(always)]
pub(super) fn iq1_s(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 50], out: &mut [f32; LEN]| {
        let d = f16_at(block, 0);
        let (low, _) = block[2..34].as_chunks::<4>();
        let (words, _) = block[34..].as_chunks::<2>();
        let (outs, _) = out.as_chunks_mut::<32>();
        for ((low, word), out) in low.iter().zip(words).zip(outs) {
            let word = u16::from_le_bytes(*word);
            let scale = d * f32::from(2 * ((word >> 12) & 7) + 1);
            for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let upper = usize::from((word >> (3 * l)) & 7);
                put(out, usize::from(low[l]) | upper << 8, word & 0x8000 != 0, scale);
            }
        }
    });
}

/// IQ1_M: 32 low bytes of entry numbers, 16 bytes of three high bits and a direction each, 4 words of
/// four 3-bit scales, whose upper nibbles together are the scale.
#[inline(always)]
pub(super) fn iq1_m(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 56], out: &mut [f32; LEN]| {
        let (low, high) = (&block[..32], &block[32..48]);
        let word = |i: usize| u16::from_le_bytes([block[48 + 2 * i], block[49 + 2 * i]]);
        let bits = (0..4).fold(0, |bits, i| bits | (word(i) >> 12) << (4 * i));
        let d = f16_to_f32(bits);
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            // A scale serves 16 numbers, a word four scales.
            let scale = d * f32::from(2 * ((word(i / 8) >> (i / 2 % 4 * 3)) & 7) + 1);
            let nibble = high[i / 2] >> (i % 2 * 4);
            put(out, usize::from(low[i]) | usize::from(nibble & 7) << 8, nibble & 8 != 0, scale);
        }
    });
}

//! IQ4_NL, IQ4_XS, MXFP4: every nibble is a place in a list of 16 values.

use super::codebooks::{IQ4NL_VALUES, MXFP4_VALUES};
use super::{each_block, f16_at};

/// Sixteen bytes into 32 numbers: byte `i` has numbers `i` and `i + 16`.
#[inline(always)]
fn put(out: &mut [f32; 32], quants: &[u8; 16], values: &[i8; 16], scale: f32) {
    let (low, high) = out.split_at_mut(16);
    for ((q, low), high) in quants.iter().zip(low).zip(high) {
        *low = scale * f32::from(values[usize::from(q & 15)]);
        *high = scale * f32::from(values[usize::from(q >> 4)]);
    }
}

/// IQ4_NL: scale, nibbles.
#[inline(always)]
pub(super) fn iq4_nl(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 18], out: &mut [f32; 32]| {
        let quants = std::array::from_fn(|i| block[2 + i]);
        put(out, &quants, &IQ4NL_VALUES, f16_at(block, 0));
    });
}

/// IQ4_XS: scale, upper two bits and lower nibbles of 8 scales, nibbles.
#[inline(always)]
pub(super) fn iq4_xs(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 136], out: &mut [f32; 256]| {
        let d = f16_at(block, 0);
        let high = u16::from_le_bytes([block[2], block[3]]);
        let (quants, _) = block[8..].as_chunks::<16>();
        let (outs, _) = out.as_chunks_mut::<32>();
        for (i, (quants, out)) in quants.iter().zip(outs).enumerate() {
            let low = (block[4 + i / 2] >> (i % 2 * 4)) & 15;
            let upper = ((high >> (2 * i)) & 3) as u8;
            put(out, quants, &IQ4NL_VALUES, d * f32::from((low | upper << 4) as i8 - 32));
        }
    });
}

/// MXFP4: a power of two, nibbles.
#[inline(always)]
pub(super) fn mxfp4(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 17], out: &mut [f32; 32]| {
        let quants = std::array::from_fn(|i| block[1 + i]);
        put(out, &quants, &MXFP4_VALUES, half_of_e8m0(block[0]));
    });
}

/// Half of the power of two with this exponent, since the values are doubled: 2^(e - 128).
#[inline(always)]
pub(crate) fn half_of_e8m0(exponent: u8) -> f32 {
    let exponent = u32::from(exponent);
    f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 })
}

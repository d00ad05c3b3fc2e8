//! MXFP4: a power of two for 32 numbers of four bits.

use super::{each_block, extreme};
use crate::dequant::codebooks::MXFP4_VALUES;
use crate::dequant::half_of_e8m0;

/// MXFP4: the largest magnitude's power of two becomes the greatest value's, 4.
pub(super) fn mxfp4(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; 32], block: &mut [u8; 17]| {
        // The exponent as it stands in the number: its bias of 127 is the format's too.
        let exponent = (extreme(x).to_bits() >> 23) & 0xff;
        block[0] = exponent.saturating_sub(2) as u8;
        let scale = half_of_e8m0(block[0]);
        let (low, high) = x.split_at(16);
        for ((out, &low), &high) in block[1..].iter_mut().zip(low).zip(high) {
            *out = nearest(low, scale) | nearest(high, scale) << 4;
        }
    });
}

/// The place of the value that is nearest to `x`, the first of several.
fn nearest(x: f32, scale: f32) -> u8 {
    let mut best = (0, f32::INFINITY);
    for (i, &value) in (0..).zip(&MXFP4_VALUES) {
        let error = (f32::from(value) * scale - x).abs();
        if error < best.1 {
            best = (i, error);
        }
    }
    best.0
}

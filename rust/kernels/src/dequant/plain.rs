//! F32, F16, BF16.

use super::each_block;

/// F32.
#[inline(always)]
pub(super) fn f32(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |bytes: &[u8; 4], out: &mut [f32; 1]| out[0] = f32::from_le_bytes(*bytes));
}

/// F16.
#[inline(always)]
pub(super) fn f16(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |bytes: &[u8; 2], out: &mut [f32; 1]| {
        out[0] = f16_to_f32(u16::from_le_bytes(*bytes))
    });
}

/// BF16.
#[inline(always)]
pub(super) fn bf16(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |bytes: &[u8; 2], out: &mut [f32; 1]| {
        out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    });
}

/// The single that the half with these bits is, without a branch, so that loops over it become vector
/// code.
///
/// Exponent and mantissa move to their places in a single, whose exponent is then too small by 112: a
/// product with 2^112 mends that for normal and subnormal numbers alike, and is exact.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((112 + 127) << 23);
    let bits = u32::from(bits);
    let magnitude = (f32::from_bits((bits & 0x7fff) << 13) * TWO_TO_112).to_bits();
    let is_special = bits & 0x7c00 == 0x7c00;
    let is_nan = is_special && bits & 0x3ff != 0;
    let exponent = if is_special { 0x7f80_0000 } else { 0 };
    let quiet = if is_nan { 0x0040_0000 } else { 0 };
    f32::from_bits(magnitude | exponent | quiet | ((bits & 0x8000) << 16))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_half_is_converted() {
        for bits in 0..=u16::MAX {
            let want = half::f16::from_bits(bits).to_f32();
            assert_eq!(super::f16_to_f32(bits).to_bits(), want.to_bits(), "{bits:#06x}");
        }
    }
}

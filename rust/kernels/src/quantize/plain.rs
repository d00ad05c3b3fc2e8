//! F32, F16, BF16: rounded to the nearest, ties to even.

use super::each_block;

/// F32.
pub(super) fn f32(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; 1], out: &mut [u8; 4]| *out = x[0].to_le_bytes());
}

/// F16.
pub(super) fn f16(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; 1], out: &mut [u8; 2]| *out = half::f16::from_f32(x[0]).to_le_bytes());
}

/// BF16.
pub(super) fn bf16(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; 1], out: &mut [u8; 2]| {
        *out = half::bf16::from_f32(x[0]).to_le_bytes()
    });
}

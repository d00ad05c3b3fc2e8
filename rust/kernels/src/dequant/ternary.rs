//! TQ1_0, TQ2_0: -1, 0 and 1 under one scale.

use super::{each_block, f16_at};

/// Numbers in a block.
const LEN: usize = 256;

/// The digit that a byte, times a power of three, has before the point: the byte is a fraction of 256
/// whose ternary digits are the numbers.
#[inline(always)]
fn digit(byte: u8, power: u8) -> f32 {
    let turned = u16::from(byte.wrapping_mul(power));
    f32::from(((turned * 3) >> 8) as i8 - 1)
}

/// TQ1_0: 48 bytes of five numbers each, 4 of four, scale. A run of bytes has the first digits of all
/// its bytes, then the second ones.
#[inline(always)]
pub(super) fn tq1_0(data: &[u8], out: &mut [f32]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    each_block(data, out, |block: &[u8; 54], out: &mut [f32; LEN]| {
        let d = f16_at(block, 52);
        let mut rest = &mut out[..];
        for (bytes, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
            for &power in &POWERS[..digits] {
                let (run, after) = rest.split_at_mut(bytes.len());
                for (&byte, out) in bytes.iter().zip(run) {
                    *out = digit(byte, power) * d;
                }
                rest = after;
            }
        }
    });
}

/// TQ2_0: 64 bytes of four numbers, scale. Byte `l` of 32 has numbers `l`, `l + 32`, `l + 64`, `l + 96`.
#[inline(always)]
pub(super) fn tq2_0(data: &[u8], out: &mut [f32]) {
    each_block(data, out, |block: &[u8; 66], out: &mut [f32; LEN]| {
        let d = f16_at(block, 64);
        for (run, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (bytes, shift) = (&block[run / 4 * 32..][..32], run % 4 * 2);
            for (byte, out) in bytes.iter().zip(out) {
                *out = f32::from(((byte >> shift) & 3) as i8 - 1) * d;
            }
        }
    });
}

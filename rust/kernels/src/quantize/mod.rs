//! Numbers into ggml's block formats.
//!
//! The same blocks, bit for bit, as the reference quantisers of ggml (`quantize_row_*_ref` in
//! `ggml-quants.c`), so that a file quantised here is the file that its own tools would have made. Those
//! that need an importance matrix to be of any use (IQ1 to IQ3), and the two other codebook formats, are
//! read but not written.

mod k;
mod legacy;
mod plain;
mod power;
mod search;
mod ternary;

use alloyforge_types::{Error, QuantType, Result};

use crate::dequant::SizeMismatch;

/// A row function: numbers into blocks. The lengths must fit.
pub type RowFn = fn(&[f32], &mut [u8]);

/// Writes `values` as blocks of `ty` into `out`.
///
/// Numbers that are not finite give some block, never a panic.
///
/// # Errors
/// `InvalidRequest` where `values` are no whole blocks or `out` has another length than they need, and
/// where `ty` cannot be written.
pub fn quantize(ty: QuantType, values: &[f32], out: &mut [u8]) -> Result<()> {
    SizeMismatch::check(ty, out.len(), values.len())?;
    let row = row_fn(ty)
        .ok_or_else(|| Error::invalid("type", format!("{} can be read but not written", ty.name())))?;
    row(values, out);
    Ok(())
}

/// The row function of `ty`; `None` for a format that cannot be written.
pub fn row_fn(ty: QuantType) -> Option<RowFn> {
    Some(match ty {
        QuantType::F32 => plain::f32,
        QuantType::F16 => plain::f16,
        QuantType::BF16 => plain::bf16,
        QuantType::Q4_0 => legacy::q4_0,
        QuantType::Q4_1 => legacy::q4_1,
        QuantType::Q5_0 => legacy::q5_0,
        QuantType::Q5_1 => legacy::q5_1,
        QuantType::Q8_0 => legacy::q8_0,
        QuantType::Q2K => k::q2_k,
        QuantType::Q3K => k::q3_k,
        QuantType::Q4K => k::q4_k,
        QuantType::Q5K => k::q5_k,
        QuantType::Q6K => k::q6_k,
        QuantType::MXFP4 => power::mxfp4,
        QuantType::TQ1_0 => ternary::tq1_0,
        QuantType::TQ2_0 => ternary::tq2_0,
        QuantType::IQ2XXS
        | QuantType::IQ2XS
        | QuantType::IQ2S
        | QuantType::IQ3XXS
        | QuantType::IQ3S
        | QuantType::IQ1S
        | QuantType::IQ1M
        | QuantType::IQ4NL
        | QuantType::IQ4XS => return None,
    })
}

/// Calls `block` for every block of `LEN` numbers and its `BYTES` bytes.
#[inline(always)]
fn each_block<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    out: &mut [u8],
    block: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    debug_assert_eq!(values.len() * BYTES, out.len() * LEN, "numbers and data do not belong together");
    let (blocks, _) = values.as_chunks::<LEN>();
    let (outs, _) = out.as_chunks_mut::<BYTES>();
    for (values, out) in blocks.iter().zip(outs) {
        block(values, out);
    }
}

/// Writes `value` in half precision at byte `at`, and returns what it became.
#[inline(always)]
fn put_f16<const BYTES: usize>(block: &mut [u8; BYTES], at: usize, value: f32) -> f32 {
    let half = half::f16::from_f32(value);
    [block[at], block[at + 1]] = half.to_le_bytes();
    half.to_f32()
}

/// One over `x`, or 0 for 0.
#[inline(always)]
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The number of largest magnitude, the first of several, with its sign.
#[inline(always)]
fn extreme(values: &[f32]) -> f32 {
    let mut largest = 0.0f32;
    for &x in values {
        if largest.abs() < x.abs() {
            largest = x;
        }
    }
    largest
}

//! The numbers that ggml's block formats mean.
//!
//! One function a format, on rows as slices, in plain code that every platform compiles to the same
//! results: each is bit-equal to `dequantize_row_*` of `ggml-quants.c`, whose order of operations is
//! kept where it matters. Products over packed weights have kernels of their own; this is what they are
//! measured against, and what loads weights for devices without them.

mod codebook4;
pub(crate) mod codebooks;
mod iq1;
mod iq2;
mod iq3;
mod k;
mod legacy;
mod plain;
mod ternary;

use std::fmt;

use alloyforge_types::{Error, QuantType};

use crate::isa::{Isa, Kernel, Simd};

pub(crate) use codebook4::half_of_e8m0;
pub(crate) use k::scale_min;
pub(crate) use plain::f16_to_f32;

/// A row function: the blocks of a row into its numbers. The lengths must fit.
pub type RowFn = fn(&[u8], &mut [f32]);

/// Data and numbers that do not belong together: the numbers are no whole blocks of the format, or the
/// data have another length than those blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeMismatch {
    /// The format.
    pub ty: QuantType,
    /// Bytes of the data.
    pub data_len: usize,
    /// Numbers.
    pub num_values: usize,
}

impl fmt::Display for SizeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ty, data_len, num_values } = self;
        let (name, len, bytes) = (ty.name(), ty.block_len(), ty.block_bytes());
        write!(f, "{data_len} bytes are not {num_values} numbers of {name} ({bytes} bytes for {len} numbers)")
    }
}

impl std::error::Error for SizeMismatch {}

impl From<SizeMismatch> for Error {
    fn from(error: SizeMismatch) -> Self {
        Self::invalid("data", error.to_string())
    }
}

impl SizeMismatch {
    /// Checks that `data_len` bytes of `ty` are `num_values` numbers.
    pub(crate) fn check(ty: QuantType, data_len: usize, num_values: usize) -> Result<(), Self> {
        match ty.row_bytes(num_values) {
            Some(bytes) if bytes == data_len => Ok(()),
            _ => Err(Self { ty, data_len, num_values }),
        }
    }
}

/// Writes the numbers that `data`, blocks of `ty`, mean into `out`.
///
/// # Errors
/// [`SizeMismatch`] where `out` is not exactly the numbers of `data`.
pub fn dequantize(ty: QuantType, data: &[u8], out: &mut [f32]) -> Result<(), SizeMismatch> {
    SizeMismatch::check(ty, data.len(), out.len())?;
    row_fn(ty)(data, out);
    Ok(())
}

/// As [`dequantize`], for callers that have checked the lengths: where they do not fit, blocks that lack
/// their place are left out, and a debug build panics.
#[inline]
pub fn dequantize_row(ty: QuantType, data: &[u8], out: &mut [f32]) {
    row_fn(ty)(data, out);
}

/// As [`dequantize`], compiled for the instructions of `isa`: the same numbers, sooner.
///
/// # Errors
/// As [`dequantize`].
pub fn dequantize_on(isa: Isa, ty: QuantType, data: &[u8], out: &mut [f32]) -> Result<(), SizeMismatch> {
    SizeMismatch::check(ty, data.len(), out.len())?;
    isa.run(Rows { ty, data, out });
    Ok(())
}

/// Rows to be read with an instruction set.
struct Rows<'a> {
    ty: QuantType,
    data: &'a [u8],
    out: &'a mut [f32],
}

/// The row function of every format.
macro_rules! row_fns {
    ($($ty:ident $module:ident::$function:ident;)*) => {
        /// The row function of `ty`, for callers that look it up once.
        pub fn row_fn(ty: QuantType) -> RowFn {
            match ty { $(QuantType::$ty => $module::$function,)* }
        }

        impl Kernel for Rows<'_> {
            type Output = ();

            #[inline(always)]
            fn run<S: Simd>(self, _: S) {
                match self.ty { $(QuantType::$ty => $module::$function(self.data, self.out),)* }
            }
        }
    };
}

row_fns! {
    F32 plain::f32;
    F16 plain::f16;
    BF16 plain::bf16;
    Q4_0 legacy::q4_0;
    Q4_1 legacy::q4_1;
    Q5_0 legacy::q5_0;
    Q5_1 legacy::q5_1;
    Q8_0 legacy::q8_0;
    Q2K k::q2_k;
    Q3K k::q3_k;
    Q4K k::q4_k;
    Q5K k::q5_k;
    Q6K k::q6_k;
    IQ2XXS iq2::iq2_xxs;
    IQ2XS iq2::iq2_xs;
    IQ2S iq2::iq2_s;
    IQ3XXS iq3::iq3_xxs;
    IQ3S iq3::iq3_s;
    IQ1S iq1::iq1_s;
    IQ1M iq1::iq1_m;
    IQ4NL codebook4::iq4_nl;
    IQ4XS codebook4::iq4_xs;
    MXFP4 codebook4::mxfp4;
    TQ1_0 ternary::tq1_0;
    TQ2_0 ternary::tq2_0;
}

/// Calls `block` for every block of `BYTES` bytes and its `LEN` numbers.
#[inline(always)]
fn each_block<const BYTES: usize, const LEN: usize>(
    data: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    debug_assert_eq!(data.len() * LEN, out.len() * BYTES, "data and numbers do not belong together");
    let (blocks, _) = data.as_chunks::<BYTES>();
    let (outs, _) = out.as_chunks_mut::<LEN>();
    for (bytes, out) in blocks.iter().zip(outs) {
        block(bytes, out);
    }
}

/// The half-precision number at byte `at` of a block.
#[inline(always)]
fn f16_at<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

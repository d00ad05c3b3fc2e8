//! Weight matrices as the products read them.
//!
//! The numbers stay in the form that the file has them in, bit for bit and as compact, copied once so
//! that the file can be let go. A layout made for a machine's instructions replaces the bytes behind
//! [`Matrix`] and what [`product`](crate::product) makes of them, and nothing else.

use std::ops::Range;

use alloyforge_types::{Error, QuantType, Result};

use crate::convert;
use crate::dequant;
use crate::disjoint::Disjoint;
use crate::isa::Isa;
use crate::memory::Buffer;
use crate::pool::Pool;
use crate::quantize;

/// One chunk of packing reads about this many bytes.
const PACK_BYTES: usize = 1 << 20;

/// A matrix `[rows, cols]`.
#[derive(Debug)]
pub struct Matrix {
    ty: QuantType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: Buffer,
}

impl Matrix {
    /// Copies the matrix called `name` from `data`, which holds `rows` rows of type `ty`; as type `to`,
    /// where it differs.
    ///
    /// # Errors
    /// `Internal` where `data` has another length or `cols` is no multiple of a block; `OutOfMemory`;
    /// `InvalidRequest` where `to` can be read but not written.
    pub fn pack(
        pool: &Pool,
        isa: Isa,
        name: &str,
        (rows, cols): (usize, usize),
        ty: QuantType,
        data: &[u8],
        to: QuantType,
    ) -> Result<Self> {
        let size = |ty: QuantType| {
            let row = ty.row_bytes(cols).filter(|&row| row > 0)?;
            Some((row, row.checked_mul(rows)?))
        };
        let (Some((from_row, from_len)), Some((row_bytes, len))) = (size(ty), size(to)) else {
            return Err(Error::internal(format!(
                "{name}: no row of {cols} numbers in {}, {}",
                ty.name(),
                to.name()
            )));
        };
        if data.len() != from_len {
            return Err(Error::internal(format!("{name}: {} bytes, not {from_len}", data.len())));
        }
        let mut packed = Buffer::zeroed(len, name)?;
        let step = (PACK_BYTES / from_row).max(1);
        let chunks = rows.div_ceil(step);
        let target = Disjoint::new(packed.bytes_mut());
        pool.run(chunks, |chunk, _| {
            let range = chunk * step..rows.min((chunk + 1) * step);
            let from = &data[range.start * from_row..range.end * from_row];
            // SAFETY: each chunk has rows of its own.
            let target = unsafe { target.part(range.start * row_bytes..range.end * row_bytes) };
            if ty == to {
                target.copy_from_slice(from);
                return Ok(());
            }
            let mut wide = vec![0.0; cols];
            for (from, to_row) in from.chunks_exact(from_row).zip(target.chunks_exact_mut(row_bytes)) {
                widen(isa, ty, from, &mut wide)?;
                narrow(to, &wide, to_row)?;
            }
            Ok(())
        })?;
        Ok(Self { ty: to, rows, cols, row_bytes, data: packed })
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The stored format.
    pub fn ty(&self) -> QuantType {
        self.ty
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The rows `range` as they are, where they are f32.
    pub(crate) fn f32_rows(&self, range: Range<usize>) -> Option<&[f32]> {
        (self.ty == QuantType::F32).then(|| &self.data.f32s()[range.start * self.cols..range.end * self.cols])
    }

    /// Writes the rows `range` to `out` as f32.
    ///
    /// # Errors
    /// `Internal` where `out` has another length.
    pub fn widen_rows(&self, isa: Isa, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        let bytes = &self.data.bytes()[range.start * self.row_bytes..range.end * self.row_bytes];
        widen(isa, self.ty, bytes, out)
    }
}

/// Numbers of any type as f32.
fn widen(isa: Isa, ty: QuantType, from: &[u8], out: &mut [f32]) -> Result<()> {
    match ty {
        QuantType::F32 => convert::f32_from_bytes(from, out),
        QuantType::F16 => convert::f16_to_f32(isa, from, out),
        QuantType::BF16 => convert::bf16_to_f32(isa, from, out),
        _ => dequant::dequantize_on(isa, ty, from, out).map_err(|e| Error::internal(e.to_string()))?,
    }
    Ok(())
}

/// f32 numbers as any type.
fn narrow(ty: QuantType, from: &[f32], out: &mut [u8]) -> Result<()> {
    match ty {
        QuantType::F32 => convert::f32_to_bytes(from, out),
        QuantType::F16 => convert::f32_to_f16(from, out),
        QuantType::BF16 => convert::f32_to_bf16(from, out),
        _ => quantize::quantize(ty, from, out)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(cols: usize, ty: QuantType, data: &[u8], to: QuantType) -> Result<Matrix> {
        Matrix::pack(&Pool::new(2)?, Isa::detect(), "w", (3, cols), ty, data, to)
    }

    #[test]
    fn plain_types_turn_into_each_other() {
        let numbers: Vec<f32> = (0..51).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut bytes = vec![0; 204];
        convert::f32_to_bytes(&numbers, &mut bytes);
        for (to, near) in [(QuantType::F32, 0.0), (QuantType::F16, 5e-4), (QuantType::BF16, 4e-3)] {
            let matrix = pack(17, QuantType::F32, &bytes, to).expect("packs");
            assert_eq!((matrix.ty(), matrix.bytes()), (to, 51 * to.block_bytes()));
            let mut row = [0.0; 17];
            matrix.widen_rows(Isa::detect(), 1..2, &mut row).expect("fits");
            assert!(row.iter().zip(&numbers[17..]).all(|(a, b)| (a - b).abs() <= near));
        }
    }

    #[test]
    fn every_set_reads_the_same_numbers() {
        let mut state = 1u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for &ty in QuantType::ALL {
            let cols = 3 * ty.block_len();
            let row_bytes = ty.row_bytes(cols).expect("whole blocks");
            let data: Vec<u8> = (0..3 * row_bytes).map(|_| byte()).collect();
            let mut want = vec![0.0; 3 * cols];
            dequant::dequantize(ty, &data, &mut want).expect("fits");
            for isa in Isa::available() {
                let matrix =
                    Matrix::pack(&Pool::new(2).expect("threads"), isa, "w", (3, cols), ty, &data, ty);
                let mut got = vec![0.0; 2 * cols];
                matrix.expect("packs").widen_rows(isa, 1..3, &mut got).expect("fits");
                for (g, w) in got.iter().zip(&want[cols..]) {
                    assert!(
                        g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan()),
                        "{ty:?} {}",
                        isa.name()
                    );
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(matches!(pack(17, QuantType::F32, &[0; 203], QuantType::F32), Err(Error::Internal { .. })));
        assert!(matches!(pack(33, QuantType::Q8_0, &[0; 102], QuantType::Q8_0), Err(Error::Internal { .. })));
        assert!(matches!(pack(0, QuantType::F32, &[], QuantType::F32), Err(Error::Internal { .. })));
    }
}

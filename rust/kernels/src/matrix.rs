//! Weight matrices as the products read them.
//!
//! The numbers stay as the file has them, bit for bit and as compact, copied once so that the file can
//! be let go: for most block types in [tiles](crate::packed), which [`product`](mod@crate::product)
//! multiplies with bytes; plain numbers sixteen rows side by side; the rest in the file's own form, which is
//! widened and multiplied in f32.

use std::ops::Range;

use alloyforge_types::{Error, QuantType, Result};

use crate::convert;
use crate::dequant;
use crate::disjoint::Disjoint;
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::memory::Buffer;
use crate::packed::Tiles;
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
    data: Data,
}

/// The numbers.
#[derive(Debug)]
enum Data {
    /// Rows as they are in a file, of so many bytes.
    Rows(Buffer, usize),
    Lanes(Lanes),
    Tiles(Tiles),
}

/// How products read a matrix.
pub(crate) enum Layout<'a> {
    /// Row by row, by way of [`Matrix::widen_rows`].
    Rows,
    Lanes(&'a Lanes),
    Tiles(&'a Tiles),
}

/// Where a matrix comes from: rows of a file.
struct Source<'a> {
    isa: Isa,
    ty: QuantType,
    to: QuantType,
    cols: usize,
    /// Bytes of a row as it is and as it will be.
    row_bytes: [usize; 2],
    data: &'a [u8],
}

impl<'a> Source<'a> {
    /// Checks that `data` are `rows` rows of `cols` numbers.
    fn new(
        isa: Isa,
        name: &str,
        (rows, cols): (usize, usize),
        ty: QuantType,
        data: &'a [u8],
        to: QuantType,
    ) -> Result<Self> {
        let size = |ty: QuantType| ty.row_bytes(cols).filter(|&row| row > 0);
        let len = size(ty).and_then(|row| row.checked_mul(rows));
        let (Some(from_row), Some(to_row), Some(len)) = (size(ty), size(to), len) else {
            return Err(Error::internal(format!(
                "{name}: no row of {cols} numbers in {}, {}",
                ty.name(),
                to.name()
            )));
        };
        if data.len() != len {
            return Err(Error::internal(format!("{name}: {} bytes, not {len}", data.len())));
        }
        Ok(Self { isa, ty, to, cols, row_bytes: [from_row, to_row], data })
    }

    /// The rows `range` as they are.
    fn bytes(&self, range: &Range<usize>) -> &'a [u8] {
        &self.data[range.start * self.row_bytes[0]..range.end * self.row_bytes[0]]
    }

    /// The rows `range` as they will be: lent, or left in `room`.
    fn rows(&self, range: Range<usize>, room: &mut Vec<u8>) -> Result<Option<&'a [u8]>> {
        if self.ty == self.to {
            return Ok(Some(self.bytes(&range)));
        }
        room.resize(range.len() * self.row_bytes[1], 0);
        self.convert(&range, room)?;
        Ok(None)
    }

    /// Writes the rows `range` as they will be.
    fn convert(&self, range: &Range<usize>, out: &mut [u8]) -> Result<()> {
        let from = self.bytes(range);
        if self.ty == self.to {
            out.copy_from_slice(from);
            return Ok(());
        }
        let mut wide = vec![0.0; self.cols];
        let [from_row, to_row] = self.row_bytes;
        for (from, out) in from.chunks_exact(from_row).zip(out.chunks_exact_mut(to_row)) {
            widen(self.isa, self.ty, from, &mut wide)?;
            narrow(self.to, &wide, out)?;
        }
        Ok(())
    }
}

impl Matrix {
    /// Copies the matrix called `name` from `data`, which holds `rows` rows of type `ty`; as type `to`,
    /// where it differs. Its products are of numbers, none of which is rounded.
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
        if !Lanes::is_known(to) {
            return Self::pack_rows(pool, isa, name, (rows, cols), ty, data, to);
        }
        let source = Source::new(isa, name, (rows, cols), ty, data, to)?;
        let lanes = Lanes::pack(pool, name, (rows, cols), to, |range, room| source.rows(range, room))?;
        Ok(Self { ty: to, rows, cols, data: Data::Lanes(lanes) })
    }

    /// As [`pack`](Self::pack), for a matrix whose rows are [read](Self::widen_rows) one by one rather than
    /// multiplied.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub fn pack_rows(
        pool: &Pool,
        isa: Isa,
        name: &str,
        (rows, cols): (usize, usize),
        ty: QuantType,
        data: &[u8],
        to: QuantType,
    ) -> Result<Self> {
        let source = Source::new(isa, name, (rows, cols), ty, data, to)?;
        let [from_row, row_bytes] = source.row_bytes;
        let mut packed = Buffer::zeroed(row_bytes.saturating_mul(rows), name)?;
        let step = (PACK_BYTES / from_row).max(1);
        let target = Disjoint::new(packed.bytes_mut());
        pool.run(rows.div_ceil(step), |chunk, _| {
            let range = chunk * step..rows.min((chunk + 1) * step);
            // SAFETY: each chunk has rows of its own.
            let target = unsafe { target.part(range.start * row_bytes..range.end * row_bytes) };
            source.convert(&range, target)
        })?;
        Ok(Self { ty: to, rows, cols, data: Data::Rows(packed, row_bytes) })
    }

    /// As [`pack`](Self::pack), for products with [blocks](crate::packed::activations) of activations
    /// where there are such products of type `to`.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    pub fn pack_tiles(
        pool: &Pool,
        isa: Isa,
        name: &str,
        (rows, cols): (usize, usize),
        ty: QuantType,
        data: &[u8],
        to: QuantType,
    ) -> Result<Self> {
        if !Tiles::is_known(to) {
            return Self::pack(pool, isa, name, (rows, cols), ty, data, to);
        }
        let source = Source::new(isa, name, (rows, cols), ty, data, to)?;
        let tiles = Tiles::pack(pool, isa, name, (rows, cols), to, |range, room| source.rows(range, room))?;
        Ok(Self { ty: to, rows, cols, data: Data::Tiles(tiles) })
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
        match &self.data {
            Data::Rows(data, _) => data.len(),
            Data::Lanes(lanes) => lanes.bytes(),
            Data::Tiles(tiles) => tiles.bytes(),
        }
    }

    /// Whether products with it need [`Input::blocks`](crate::product::Input::blocks).
    pub fn takes_blocks(&self) -> bool {
        matches!(self.data, Data::Tiles(_))
    }

    /// How products read it.
    pub(crate) fn layout(&self) -> Layout<'_> {
        match &self.data {
            Data::Rows(..) => Layout::Rows,
            Data::Lanes(lanes) => Layout::Lanes(lanes),
            Data::Tiles(tiles) => Layout::Tiles(tiles),
        }
    }

    /// Writes the rows `range` to `out` as f32.
    ///
    /// # Errors
    /// `Internal` where `out` has another length.
    pub fn widen_rows(&self, isa: Isa, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        match &self.data {
            Data::Rows(data, row_bytes) => {
                widen(isa, self.ty, &data.bytes()[range.start * row_bytes..range.end * row_bytes], out)
            }
            Data::Lanes(lanes) => lanes.widen_rows(range, out),
            Data::Tiles(tiles) => tiles.widen_rows(isa, range, out),
        }
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
            // sixteen rows take as much as three
            assert_eq!((matrix.ty(), matrix.bytes()), (to, 16 * 17 * to.block_bytes()));
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

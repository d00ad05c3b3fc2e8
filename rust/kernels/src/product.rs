//! Matrix times rows.
//!
//! Matrices in [tiles](crate::packed) are multiplied with bytes. Plain numbers lie sixteen rows side by
//! side, in a matrix's own memory (`lanes`); for what is neither, sixteen rows are widened and put side by
//! side in a buffer that stays in the cache, and multiplied with every row of the batch.

use std::ops::Range;

use alloyforge_types::Result;

use crate::disjoint::Disjoint;
use crate::isa::{Isa, LANES, Simd};
use crate::lanes;
use crate::matrix::{Layout, Matrix};
use crate::packed::{self, activations::Block};

/// Weight rows in a chunk that a thread takes: enough that the counter costs nothing beside it, few
/// enough that the last thread to finish is soon done.
pub const CHUNK_ROWS: usize = 32;

/// The rows that are multiplied.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The numbers.
    pub values: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
    /// Which rows.
    pub rows: InputRows<'a>,
    /// The same numbers as bytes, row after row, for matrices that are multiplied so; see
    /// [`Matrix::takes_blocks`].
    pub blocks: Option<&'a [Block]>,
}

/// Which rows of an input are multiplied.
#[derive(Debug, Clone, Copy)]
pub enum InputRows<'a> {
    /// These.
    Range(usize, usize),
    /// The listed ones, in this order: the tokens of an expert.
    Listed(&'a [u32]),
}

impl InputRows<'_> {
    /// How many.
    #[inline(always)]
    pub fn count(&self) -> usize {
        match self {
            Self::Range(from, to) => to - from,
            Self::Listed(rows) => rows.len(),
        }
    }

    /// The place of row `i` in the input.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> usize {
        match self {
            Self::Range(from, _) => from + i,
            Self::Listed(rows) => rows[i] as usize,
        }
    }
}

impl<'a> Input<'a> {
    /// The first `count` rows of `values`, one every `stride` numbers.
    pub fn first(values: &'a [f32], stride: usize, count: usize) -> Self {
        Self { values, stride, rows: InputRows::Range(0, count), blocks: None }
    }

    /// With `blocks` of the same numbers.
    pub fn with_blocks(self, blocks: Option<&'a [Block]>) -> Self {
        Self { blocks, ..self }
    }

    /// The rows `range` of these.
    ///
    /// # Panics
    /// Where there are fewer.
    pub fn batch(self, range: Range<usize>) -> Self {
        assert!(range.end <= self.count(), "rows {range:?} of {}", self.count());
        let rows = match self.rows {
            InputRows::Range(from, _) => InputRows::Range(from + range.start, from + range.end),
            InputRows::Listed(rows) => InputRows::Listed(&rows[range]),
        };
        Self { rows, ..self }
    }

    /// How many rows.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.rows.count()
    }

    /// Row `i`, of `cols` numbers.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize, cols: usize) -> &'a [f32] {
        &self.values[self.rows.row(i) * self.stride..][..cols]
    }
}

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Store {
    /// It is written.
    Set,
    /// It is multiplied with this and added to what is there: the residual sum.
    AddScaled(f32),
}

/// Where a product goes.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a, 'm> {
    /// The numbers: input row `i` and weight row `j` meet at `(first_row + i) * stride + j - first_column`.
    pub values: &'a Disjoint<'m, f32>,
    /// From one row to the next.
    pub stride: usize,
    /// The row for the first input row.
    pub first_row: usize,
    /// The weight row whose products stand in the first column.
    pub first_column: usize,
    /// Added to every row's product.
    pub bias: Option<&'a [f32]>,
    /// How it is written.
    pub store: Store,
}

/// Chunks that a matrix of `rows` rows is cut into.
pub fn num_chunks(rows: usize) -> usize {
    rows.div_ceil(CHUNK_ROWS)
}

/// The rows of one chunk of a matrix of `rows` rows.
pub fn chunk_rows(chunk: usize, rows: usize) -> Range<usize> {
    chunk * CHUNK_ROWS..rows.min((chunk + 1) * CHUNK_ROWS)
}

/// Numbers of scratch that [`product`] needs for matrices of `cols` columns.
pub fn scratch_len(cols: usize) -> usize {
    2 * LANES * cols
}

/// Multiplies the weight rows `rows` of `matrix` with every row of `input`.
///
/// # Safety
/// While it runs, nobody else touches the numbers of `output` that it writes: rows
/// `output.first_row ..` of as many as the input has, columns `rows`.
///
/// # Errors
/// As [`Matrix::widen_rows`].
///
/// # Panics
/// Where a slice is too short.
pub unsafe fn product(
    isa: Isa,
    matrix: &Matrix,
    rows: Range<usize>,
    input: Input<'_>,
    output: Output<'_, '_>,
    scratch: &mut [f32],
) -> Result<()> {
    match matrix.layout() {
        Layout::Tiles(tiles) => {
            // SAFETY: as this function's own promise.
            return unsafe { packed::product(isa, tiles, rows, input, output) };
        }
        Layout::Lanes(lanes) => {
            // SAFETY: as above.
            unsafe { lanes::product(isa, lanes, rows, input, output) };
            return Ok(());
        }
        Layout::Rows => {}
    }
    let cols = matrix.cols();
    let (wide, panel) = scratch[..scratch_len(cols)].split_at_mut(LANES * cols);
    let mut first = rows.start;
    while first < rows.end {
        let count = LANES.min(rows.end - first);
        let wide = &mut wide[..count * cols];
        matrix.widen_rows(isa, first..first + count, wide)?;
        lanes::interleave(wide, cols, panel);
        let window = Window { first, from: 0, to: count };
        // SAFETY: as above.
        unsafe { lanes::panel_product(isa, panel, window, cols, input, output) };
        first += count;
    }
    Ok(())
}

/// The part of sixteen weight rows that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The first of the sixteen in the matrix.
    pub(crate) first: usize,
    /// From here.
    pub(crate) from: usize,
    /// To before here, both counted from the first.
    pub(crate) to: usize,
}

impl Window {
    /// The part of tile `tile` that lies in `rows`.
    pub(crate) fn new(tile: usize, rows: &Range<usize>) -> Self {
        let first = tile * LANES;
        Self { first, from: rows.start.saturating_sub(first), to: (rows.end - first).min(LANES) }
    }
}

impl Output<'_, '_> {
    /// Stores the products of input row `i` with the sixteen weight rows of `window`.
    ///
    /// # Safety
    /// As [`product`].
    #[inline(always)]
    pub(crate) unsafe fn put<S: Simd>(&self, s: S, products: S::V, i: usize, window: Window) {
        let at = (self.first_row + i) * self.stride + window.first + window.from - self.first_column;
        // SAFETY: the caller's promise.
        let out = unsafe { self.values.part(at..at + (window.to - window.from)) };
        let bias = self.bias.map(|bias| &bias[window.first + window.from..window.first + window.to]);
        if let Ok(out) = <&mut [f32; LANES]>::try_from(&mut *out) {
            let value = match bias {
                Some(bias) => s.add(products, s.load_part(bias)),
                None => products,
            };
            let value = match self.store {
                Store::Set => value,
                Store::AddScaled(scale) => s.mul_add(s.splat(scale), value, s.load(out)),
            };
            s.store(value, out);
            return;
        }
        let mut lanes = [0.0; LANES];
        s.store(products, &mut lanes);
        for (i, (out, value)) in out.iter_mut().zip(&lanes[window.from..]).enumerate() {
            let value = bias.map_or(*value, |bias| value + bias[i]);
            *out = match self.store {
                Store::Set => value,
                Store::AddScaled(scale) => s.mul_add_scalar(scale, value, *out),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert;
    use crate::pool::Pool;
    use crate::reference;
    use alloyforge_types::QuantType;
    use proptest::prelude::*;

    /// Numbers of `ty` with the f32 numbers that they mean.
    fn random(ty: QuantType, len: usize, seed: u32) -> (Vec<u8>, Vec<f32>) {
        let mut state = u64::from(seed) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 16_777_216.0 - 0.5
        };
        let numbers: Vec<f32> = (0..len).map(|_| next()).collect();
        let mut bytes = vec![0; ty.row_bytes(len).expect("whole blocks")];
        match ty {
            QuantType::F16 => convert::f32_to_f16(&numbers, &mut bytes),
            QuantType::BF16 => convert::f32_to_bf16(&numbers, &mut bytes),
            QuantType::F32 => convert::f32_to_bytes(&numbers, &mut bytes),
            _ => {
                for block in bytes.chunks_exact_mut(ty.block_bytes()) {
                    for byte in &mut *block {
                        *byte = (next() * 256.0) as i8 as u8;
                    }
                    // a scale of a sound size, where these formats have it
                    block[..2].copy_from_slice(&half::f16::from_f32(next() * 0.1).to_le_bytes());
                }
            }
        }
        let mut wide = vec![0.0; len];
        crate::dequant::dequantize(ty, &bytes, &mut wide).expect("fits");
        (bytes, wide)
    }

    /// The whole product, on `threads` threads.
    fn multiply(
        isa: Isa,
        threads: usize,
        matrix: &Matrix,
        input: Input<'_>,
        bias: Option<&[f32]>,
        store: Store,
    ) -> Vec<f32> {
        let pool = Pool::new(threads).expect("threads");
        let mut out = vec![0.25; input.count() * matrix.rows()];
        let values = Disjoint::new(&mut out);
        pool.run(num_chunks(matrix.rows()), |chunk, _| {
            let output =
                Output { values: &values, stride: matrix.rows(), first_row: 0, first_column: 0, bias, store };
            let mut scratch = vec![f32::NAN; scratch_len(matrix.cols())];
            // SAFETY: each chunk has columns of its own.
            unsafe { product(isa, matrix, chunk_rows(chunk, matrix.rows()), input, output, &mut scratch) }
        })
        .expect("no failure");
        out
    }

    fn types() -> impl Strategy<Value = QuantType> {
        prop::sample::select(vec![
            QuantType::F32,
            QuantType::F16,
            QuantType::BF16,
            QuantType::Q4_0,
            QuantType::Q8_0,
            QuantType::IQ4NL,
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn products_are_the_reference_whatever_the_tile(
            ty in types(),
            rows in 1usize..90,
            blocks in 1usize..20,
            odd in 0usize..32,
            count in 1usize..10,
            threads in 1usize..4,
            seed in any::<u32>(),
        ) {
            let cols = if ty.is_plain() { blocks * 32 + odd } else { blocks * ty.block_len() };
            let (bytes, wide) = random(ty, rows * cols, seed);
            let (_, x) = random(QuantType::F32, count * cols, seed ^ 77);
            let (_, bias) = random(QuantType::F32, rows, seed ^ 99);
            let pool = Pool::new(threads).expect("threads");
            for isa in Isa::available() {
                let matrix = Matrix::pack(&pool, isa, "w", (rows, cols), ty, &bytes, ty).expect("packs");
                let padded = if ty.is_plain() { rows.next_multiple_of(LANES) } else { rows };
                prop_assert_eq!(matrix.bytes(), padded * ty.row_bytes(cols).expect("whole blocks"));
                let input = Input::first(&x, cols, count);
                let plain = multiply(isa, threads, &matrix, input, None, Store::Set);
                let added = multiply(isa, 1, &matrix, input, Some(&bias), Store::AddScaled(2.0));
                let listed: Vec<u32> = (0..count as u32).rev().collect();
                let turned = Input { rows: InputRows::Listed(&listed), ..input };
                let turned = multiply(isa, threads, &matrix, turned, None, Store::Set);
                for i in 0..count {
                    let row = &x[i * cols..][..cols];
                    for (j, want) in reference::product(&wide, cols, row).into_iter().enumerate() {
                        let at = i * rows + j;
                        let size = row.iter().zip(&wide[j * cols..]).map(|(x, w)| (x * w).abs()).sum::<f32>();
                        prop_assert!((f64::from(plain[at]) - want).abs() <= f64::from(1e-6 * (1.0 + size)));
                        prop_assert!((added[at] - (0.25 + 2.0 * (plain[at] + bias[j]))).abs() < 1e-5 * (1.0 + size));
                    }
                    // alone, the row comes to the same bits
                    let alone = Input { rows: InputRows::Range(i, i + 1), ..input };
                    let alone = multiply(isa, 1, &matrix, alone, None, Store::Set);
                    prop_assert_eq!(&alone[..], &plain[i * rows..][..rows]);
                    prop_assert_eq!(&alone[..], &turned[(count - 1 - i) * rows..][..rows]);
                }
            }
        }
    }

    #[test]
    fn narrower_sets_agree_with_wider_ones() {
        let (bytes, _) = random(QuantType::F16, 50 * 200, 5);
        let (_, x) = random(QuantType::F32, 7 * 200, 6);
        let pool = Pool::new(1).expect("a thread");
        let results: Vec<Vec<f32>> = Isa::available()
            .into_iter()
            .filter(|isa| isa.name().starts_with("avx"))
            .map(|isa| {
                let matrix = Matrix::pack(&pool, isa, "w", (50, 200), QuantType::F16, &bytes, QuantType::F16);
                multiply(isa, 1, &matrix.expect("packs"), Input::first(&x, 200, 7), None, Store::Set)
            })
            .collect();
        assert!(results.windows(2).all(|w| w[0] == w[1]));
    }

    #[test]
    fn one_nan_reaches_its_row_and_no_other() {
        let pool = Pool::new(1).expect("a thread");
        let (bytes, _) = random(QuantType::F32, 9 * 33, 1);
        for isa in Isa::available() {
            let matrix = Matrix::pack(&pool, isa, "w", (9, 33), QuantType::F32, &bytes, QuantType::F32)
                .expect("packs");
            let mut x = vec![1.0; 3 * 33];
            x[33 + 32] = f32::NAN;
            let out = multiply(isa, 1, &matrix, Input::first(&x, 33, 3), None, Store::Set);
            for (i, row) in out.chunks_exact(9).enumerate() {
                assert!(row.iter().all(|v| v.is_nan() == (i == 1)));
            }
        }
    }
}

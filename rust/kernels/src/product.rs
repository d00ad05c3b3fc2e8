//! Matrix times rows.
//!
//! Matrices in [tiles](crate::packed) are multiplied with bytes. For the others, a panel of weight rows is
//! widened to f32 once, in a buffer that stays in the cache, and multiplied with every row of the batch,
//! so a prefill reads its weights once. Each number
//! is one sum of sixteen lanes over the whole width, whatever tile it is computed in; see
//! [`isa`](crate::isa).

use std::ops::Range;

use alloyforge_types::Result;

use crate::disjoint::Disjoint;
use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::matrix::Matrix;
use crate::packed::{self, activations::Block};

/// Weight rows that are widened together.
const PANEL_ROWS: usize = 16;

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

    /// How many rows.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.rows.count()
    }

    /// Row `i`, of `cols` numbers.
    #[inline(always)]
    fn row(&self, i: usize, cols: usize) -> &'a [f32] {
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
    PANEL_ROWS * cols
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
    if let Some(tiles) = matrix.tiles() {
        // SAFETY: as this function's own promise.
        return unsafe { packed::product(isa, tiles, rows, input, output) };
    }
    let cols = matrix.cols();
    let mut first = rows.start;
    while first < rows.end {
        let count = PANEL_ROWS.min(rows.end - first);
        let panel = match matrix.f32_rows(first..first + count) {
            Some(panel) => panel,
            None => {
                let panel = &mut scratch[..count * cols];
                matrix.widen_rows(isa, first..first + count, panel)?;
                panel
            }
        };
        isa.run(Panel { panel, cols, first, count, input, output });
        first += count;
    }
    Ok(())
}

/// One panel times all rows.
struct Panel<'a, 'b, 'm> {
    panel: &'a [f32],
    cols: usize,
    /// The panel's first row in the matrix, and its count.
    first: usize,
    count: usize,
    input: Input<'b>,
    output: Output<'b, 'm>,
}

impl Kernel for Panel<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.input.count();
        let mut i = 0;
        while i < count {
            match count - i {
                4.. if S::HAS_WIDE_TILE => {
                    self.strip::<S, 4>(s, i);
                    i += 4;
                }
                2.. => {
                    self.strip::<S, 2>(s, i);
                    i += 2;
                }
                _ => {
                    self.strip::<S, 1>(s, i);
                    i += 1;
                }
            }
        }
    }
}

impl Panel<'_, '_, '_> {
    /// All weight rows times input rows `i .. i + B`.
    #[inline(always)]
    fn strip<S: Simd, const B: usize>(&self, s: S, i: usize) {
        let mut x = [&[][..]; B];
        for (b, x) in x.iter_mut().enumerate() {
            *x = self.input.row(i + b, self.cols);
        }
        let mut j = 0;
        while j < self.count {
            match self.count - j {
                4.. if S::HAS_WIDE_TILE || B == 1 => {
                    self.tile::<S, 4, B>(s, i, j, x);
                    j += 4;
                }
                2.. => {
                    self.tile::<S, 2, B>(s, i, j, x);
                    j += 2;
                }
                _ => {
                    self.tile::<S, 1, B>(s, i, j, x);
                    j += 1;
                }
            }
        }
    }

    /// Weight rows `j .. j + R` times `B` input rows.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const B: usize>(&self, s: S, i: usize, j: usize, x: [&[f32]; B]) {
        let mut w = [&[][..]; R];
        for (r, w) in w.iter_mut().enumerate() {
            *w = &self.panel[(j + r) * self.cols..][..self.cols];
        }
        let sums = dots(s, w, x, self.cols);
        let first = self.first + j;
        for (b, sums) in sums.iter().enumerate() {
            let at = (self.output.first_row + i + b) * self.output.stride + first - self.output.first_column;
            // SAFETY: the caller of `product` keeps everybody else away from these.
            let out = unsafe { self.output.values.part(at..at + R) };
            for r in 0..R {
                let mut value = sums[r];
                if let Some(bias) = self.output.bias {
                    value += bias[first + r];
                }
                out[r] = match self.output.store {
                    Store::Set => value,
                    Store::AddScaled(scale) => s.mul_add_scalar(scale, value, out[r]),
                };
            }
        }
    }
}

/// The dot products of `R` rows with `B` rows, all of `cols` numbers.
#[inline(always)]
fn dots<S: Simd, const R: usize, const B: usize>(
    s: S,
    w: [&[f32]; R],
    x: [&[f32]; B],
    cols: usize,
) -> [[f32; R]; B] {
    for row in w.iter().chain(&x) {
        assert_eq!(row.len(), cols, "rows of one product have one length");
    }
    let whole = cols / LANES;
    let mut sums = [[s.splat(0.0); R]; B];
    for k in 0..whole {
        let mut column = [s.splat(0.0); B];
        for b in 0..B {
            // SAFETY: every row has `cols` numbers, so `whole` times `LANES`.
            column[b] = s.load(unsafe { &*x[b].as_ptr().add(k * LANES).cast() });
        }
        for r in 0..R {
            // SAFETY: as above.
            let weight = s.load(unsafe { &*w[r].as_ptr().add(k * LANES).cast() });
            for b in 0..B {
                sums[b][r] = s.mul_add(weight, column[b], sums[b][r]);
            }
        }
    }
    if whole * LANES < cols {
        for b in 0..B {
            let column = s.load_part(&x[b][whole * LANES..]);
            for r in 0..R {
                let weight = s.load_part(&w[r][whole * LANES..]);
                sums[b][r] = s.mul_add(weight, column, sums[b][r]);
            }
        }
    }
    let mut out = [[0.0; R]; B];
    for b in 0..B {
        for r in 0..R {
            out[b][r] = s.sum(sums[b][r]);
        }
    }
    out
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
            blocks in 1usize..6,
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
                prop_assert_eq!(matrix.bytes(), bytes.len());
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

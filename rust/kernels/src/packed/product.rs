//! Weight rows in tiles times activation rows in blocks.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use alloyforge_types::{Error, QuantType, Result};

use super::TILE_ROWS;
use super::activations::Block;
use super::format::{Format, with_format};
use super::panel::{PANEL_BLOCKS, Panel, Widened, multiply_panel};
use super::step::{Ahead, Strip, multiply, strips};
use super::tile::{Tile, Tiles};
use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::product::{Input, InputRows, Output, Window};

/// Tiles whose rows one strip multiplies at most.
const TILES: usize = 2;

/// From so many rows on, registers that hold few of them go by way of a panel.
const MANY_ROWS: usize = 8;

/// Rows whose sums are kept while a panel is multiplied.
const ROWS: usize = 128;

/// The rows that are multiplied and where their products go.
struct Target<'b, 'm> {
    blocks: &'b [Block],
    num_blocks: usize,
    rows: InputRows<'b>,
    output: Output<'b, 'm>,
    windows: [Window; TILES],
}

impl Target<'_, '_> {
    /// How many rows.
    #[inline(always)]
    fn count(&self) -> usize {
        self.rows.count()
    }

    /// The blocks of row `i`, as many as the matrix has.
    #[inline(always)]
    fn row(&self, i: usize) -> &[Block] {
        &self.blocks[self.rows.row(i) * self.num_blocks..][..self.num_blocks]
    }
}

/// All rows times one or two tiles.
struct Product<'a, 'b, 'm, F> {
    tiles: &'a [Tile],
    format: PhantomData<F>,
    num_blocks: usize,
    /// Tiles that follow soon.
    ahead: Ahead,
    target: &'a Target<'b, 'm>,
}

impl<F: Format> Kernel for Product<'_, '_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.target.count();
        if S::REGISTERS < 32 && count >= MANY_ROWS {
            for tile in 0..self.tiles.len() {
                self.many_rows(s, tile, count);
            }
        } else {
            strips(s, &self, count, self.tiles.len());
        }
    }
}

impl<S: Simd, F: Format> Strip<S> for Product<'_, '_, '_, F> {
    #[inline(always)]
    fn strip<const B: usize, const T: usize>(&self, s: S, row: usize, tile: usize) {
        let mut rows = [std::ptr::null::<Block>(); B];
        for (b, to) in rows.iter_mut().enumerate() {
            *to = self.target.row(row + b).as_ptr();
        }
        let mut tiles = [self.tiles[tile]; T];
        tiles.copy_from_slice(&self.tiles[tile..tile + T]);
        let mut sums = [[s.splat(0.0); T]; B];
        // once is enough
        let lines = if row == 0 { self.ahead.lines } else { 0 };
        let ahead = Ahead { lines, ..self.ahead };
        // SAFETY: rows and tiles have as many blocks as the matrix.
        unsafe { multiply::<S, F, B, T>(s, tiles, rows, self.num_blocks, ahead, &mut sums) };
        for (b, sums) in sums.iter().enumerate() {
            for (t, sums) in sums.iter().enumerate() {
                // SAFETY: the caller of `product` keeps everybody else away from these.
                unsafe { self.target.output.put(s, *sums, row + b, self.target.windows[tile + t]) };
            }
        }
    }
}

impl<F: Format> Product<'_, '_, '_, F> {
    /// Tile `tile` times all of `count` rows, by way of a [`Panel`].
    #[inline(always)]
    fn many_rows<S: Simd>(&self, s: S, tile: usize, count: usize) {
        let mut panel = Panel::new();
        let mut room = Widened::new();
        let mut sums = [const { MaybeUninit::uninit() }; ROWS];
        let mut first = 0;
        while first < count {
            let some = ROWS.min(count - first);
            for sum in &mut sums[..some] {
                sum.write([0.0f32; LANES]);
            }
            // SAFETY: so many have just been written.
            let sums =
                unsafe { std::slice::from_raw_parts_mut(sums.as_mut_ptr().cast::<[f32; LANES]>(), some) };
            let mut block = 0;
            while block < self.num_blocks {
                let blocks = PANEL_BLOCKS.min(self.num_blocks - block);
                // SAFETY: the tile has these blocks.
                unsafe { panel.decode::<S, F>(s, self.tiles[tile], block, blocks) };
                let mut row = 0;
                while row < some {
                    // SAFETY: the rows have these blocks, and the panel too, in format `F`.
                    row += unsafe {
                        let sums = &mut sums[row..];
                        let span = (first + row, block, blocks);
                        match some - row {
                            4.. if S::REGISTERS >= 8 => {
                                self.some_rows::<S, 4>(s, &panel, span, &mut room, sums)
                            }
                            2.. => self.some_rows::<S, 2>(s, &panel, span, &mut room, sums),
                            _ => self.some_rows::<S, 1>(s, &panel, span, &mut room, sums),
                        }
                    };
                }
                block += blocks;
            }
            for (i, sums) in sums.iter().enumerate() {
                // SAFETY: the caller of `product` keeps everybody else away from these.
                unsafe { self.target.output.put(s, s.load(sums), first + i, self.target.windows[tile]) };
            }
            first += some;
        }
    }

    /// Adds to `sums` the products of rows `row .. row + B` in `blocks` blocks from `block` on with those
    /// of a panel; gives `B`.
    ///
    /// # Safety
    /// Rows and panel have these blocks, the panel in format `F`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "iterators may be left as calls")]
    unsafe fn some_rows<S: Simd, const B: usize>(
        &self,
        s: S,
        panel: &Panel,
        (row, block, blocks): (usize, usize, usize),
        room: &mut Widened,
        sums: &mut [[f32; LANES]],
    ) -> usize {
        let mut rows = [std::ptr::null::<Block>(); B];
        for b in 0..B {
            rows[b] = self.target.row(row + b)[block..].as_ptr();
        }
        if let Some(sums) = sums.first_chunk_mut::<B>() {
            // SAFETY: the caller's promise.
            unsafe { multiply_panel::<S, F, B>(s, panel, rows, blocks, room, sums) };
        }
        B
    }
}

/// Multiplies the weight rows `rows` of `tiles` with every row of `input`, as
/// [`product`](crate::product::product) does.
///
/// # Safety
/// As there.
///
/// # Errors
/// `Internal` where the input has no blocks.
pub(crate) unsafe fn product(
    isa: Isa,
    tiles: &Tiles,
    rows: Range<usize>,
    input: Input<'_>,
    output: Output<'_, '_>,
) -> Result<()> {
    let Some(blocks) = input.blocks else {
        return Err(Error::internal("no blocks of activations for packed weights"));
    };
    let num_blocks = tiles.num_blocks();
    let end = rows.end.div_ceil(TILE_ROWS);
    let mut first = rows.start / TILE_ROWS;
    while first < end {
        let count = TILES.min(end - first);
        let last = first + count - 1;
        let pair: [Tile; TILES] = [tiles.tile(first), tiles.tile(last)];
        let target = Target {
            blocks,
            num_blocks,
            rows: input.rows,
            output,
            windows: [Window::new(first, &rows), Window::new(last, &rows)],
        };
        // not the very next, which come too soon
        let (start, bytes) = tiles.span(last + 1 + TILES, TILES);
        let ahead = Ahead { start, lines: bytes.div_ceil(64).div_ceil(num_blocks) };
        let pair = &pair[..count];
        with_format!(
            tiles.ty(),
            F => {
                let format = PhantomData;
                isa.run_bytes(Product::<F> { tiles: pair, format, num_blocks, ahead, target: &target });
            },
            return Err(Error::internal(format!("no tiles in {}", tiles.ty().name())))
        );
        first += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::activations::{Activations, num_blocks, quantize_row};
    use crate::dequant::dequantize;
    use crate::disjoint::Disjoint;
    use crate::isa::Isa;
    use crate::matrix::Matrix;
    use crate::packed::Tiles;
    use crate::pool::Pool;
    use crate::product::{Input, InputRows, Output, Store, chunk_rows, num_chunks, product, scratch_len};
    use crate::reference;
    use alloyforge_types::QuantType;
    use proptest::prelude::*;

    /// Numbers in -0.5..0.5.
    fn random(len: usize, seed: u32) -> Vec<f32> {
        let mut state = u64::from(seed) | 1;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / 16_777_216.0 - 0.5
            })
            .collect()
    }

    /// Random blocks of `ty` with scales of a sound size, and the numbers that they mean.
    fn weights(ty: QuantType, len: usize, seed: u32) -> (Vec<u8>, Vec<f32>) {
        filled(ty, len, seed, None)
    }

    /// The same, of one byte alone if it is given.
    fn filled(ty: QuantType, len: usize, seed: u32, fill: Option<u8>) -> (Vec<u8>, Vec<f32>) {
        let mut numbers = random(ty.row_bytes(len).expect("whole blocks"), seed).into_iter();
        let mut next = || numbers.next().expect("enough");
        let mut bytes = Vec::new();
        for _ in 0..len / ty.block_len() {
            let mut block: Vec<u8> =
                (0..ty.block_bytes()).map(|_| fill.unwrap_or((next() * 256.0) as i8 as u8)).collect();
            let halves: &[usize] = match ty {
                QuantType::Q4_1 | QuantType::Q5_1 | QuantType::Q4K | QuantType::Q5K => &[0, 2],
                QuantType::Q2K => &[80, 82],
                QuantType::Q3K => &[108],
                QuantType::Q6K => &[208],
                QuantType::MXFP4 => {
                    block[0] = 120 + block[0] % 8;
                    &[]
                }
                _ => &[0],
            };
            for &at in halves {
                let scale = fill.map_or(f32::from(block[at] as i8) / 1000.0, |_| 0.01);
                block[at..at + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
            }
            bytes.extend(block);
        }
        let mut wide = vec![0.0; len];
        dequantize(ty, &bytes, &mut wide).expect("fits");
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

    fn blocks(isa: Isa, x: &[f32], cols: usize) -> Activations {
        let mut blocks = Activations::new(num_blocks(cols) * (x.len() / cols)).expect("small");
        for (row, blocks) in x.chunks_exact(cols).zip(blocks.get_mut().chunks_exact_mut(num_blocks(cols))) {
            quantize_row(isa, row, blocks);
        }
        blocks
    }

    fn known() -> Vec<QuantType> {
        QuantType::ALL.iter().copied().filter(|&ty| Tiles::is_known(ty)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn products_are_the_reference_whatever_the_tile(
            ty in prop::sample::select(known()),
            rows in 1usize..90,
            blocks_of_256 in 0usize..4,
            blocks_of_32 in 1usize..9,
            count in 1usize..24,
            threads in 1usize..4,
            seed in any::<u32>(),
        ) {
            let cols = if ty.block_len() == 256 {
                256 * (1 + blocks_of_256)
            } else {
                256 * blocks_of_256 + 32 * blocks_of_32
            };
            let (bytes, wide) = weights(ty, rows * cols, seed);
            let (x, bias) = (random(count * cols, seed ^ 77), random(rows, seed ^ 99));
            let pool = Pool::new(threads).expect("threads");
            let mut first = None;
            for isa in Isa::available() {
                let matrix = Matrix::pack_tiles(&pool, isa, "w", (rows, cols), ty, &bytes, ty).expect("packs");
                prop_assert!(matrix.takes_blocks());
                let blocks = blocks(isa, &x, cols);
                let input = Input::first(&x, cols, count).with_blocks(Some(blocks.get()));
                let plain = multiply(isa, threads, &matrix, input, None, Store::Set);
                let added = multiply(isa, 1, &matrix, input, Some(&bias), Store::AddScaled(2.0));
                let listed: Vec<u32> = (0..count as u32).rev().collect();
                let turned = Input { rows: InputRows::Listed(&listed), ..input };
                let turned = multiply(isa, threads, &matrix, turned, None, Store::Set);
                for i in 0..count {
                    let row = &x[i * cols..][..cols];
                    let near = reference::blocks_of_bytes(row);
                    for j in 0..rows {
                        let weights = &wide[j * cols..][..cols];
                        let terms = || near.iter().zip(weights).map(|(x, w)| x * f64::from(*w));
                        let (want, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                        let at = i * rows + j;
                        // minima and offsets cancel, so that what is rounded can be larger than the sum
                        let within = 4e-6 * (1.0 + size);
                        prop_assert!((f64::from(plain[at]) - want).abs() <= within, "{}", isa.name());
                        let want = 0.25 + 2.0 * (f64::from(plain[at]) + f64::from(bias[j]));
                        prop_assert!((f64::from(added[at]) - want).abs() <= within);
                    }
                    // alone, the row comes to the same bits
                    let alone = Input { rows: InputRows::Range(i, i + 1), ..input };
                    let alone = multiply(isa, 1, &matrix, alone, None, Store::Set);
                    prop_assert_eq!(&alone[..], &plain[i * rows..][..rows]);
                    prop_assert_eq!(&alone[..], &turned[(count - 1 - i) * rows..][..rows]);
                }
                // and so it does on every set that multiplies and adds at once
                if isa.name() != "portable" {
                    prop_assert_eq!(first.get_or_insert_with(|| plain.clone()), &plain, "{}", isa.name());
                }
            }
        }
    }

    #[test]
    fn the_largest_codes_and_bytes_fit() {
        let pool = Pool::new(1).expect("a thread");
        for ty in known() {
            for fill in [0x00, 0x77, 0x7f, 0x80, 0xff] {
                let (bytes, wide) = filled(ty, 16 * 256, 1, Some(fill));
                for sign in [1.0, -1.0] {
                    let x = [sign; 256];
                    let terms: Vec<f64> = wide[..256].iter().map(|w| f64::from(sign * w)).collect();
                    let (want, size) =
                        (terms.iter().sum::<f64>(), terms.iter().map(|t| t.abs()).sum::<f64>());
                    for isa in Isa::available() {
                        let matrix =
                            Matrix::pack_tiles(&pool, isa, "w", (16, 256), ty, &bytes, ty).expect("packs");
                        let blocks = blocks(isa, &x, 256);
                        let input = Input::first(&x, 256, 1).with_blocks(Some(blocks.get()));
                        for got in multiply(isa, 1, &matrix, input, None, Store::Set) {
                            let off = (f64::from(got) - want).abs();
                            assert!(off <= 4e-6 * (1.0 + size), "{} {fill} on {}", ty.name(), isa.name());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn many_rows_are_the_rows_alone() {
        let (rows, cols, count) = (40, 1088, 519);
        let pool = Pool::new(2).expect("threads");
        for ty in [QuantType::Q4_1, QuantType::Q8_0] {
            let (bytes, _) = weights(ty, rows * cols, 5);
            let x = random(count * cols, 6);
            for isa in Isa::available() {
                let matrix =
                    Matrix::pack_tiles(&pool, isa, "w", (rows, cols), ty, &bytes, ty).expect("packs");
                let blocks = blocks(isa, &x, cols);
                let input = Input::first(&x, cols, count).with_blocks(Some(blocks.get()));
                let all = multiply(isa, 2, &matrix, input, None, Store::Set);
                for i in [0, 1, 5, 6, 515, 516, 517, 518] {
                    let alone = Input { rows: InputRows::Range(i, i + 1), ..input };
                    let alone = multiply(isa, 1, &matrix, alone, None, Store::Set);
                    assert_eq!(alone[..], all[i * rows..][..rows], "{} row {i}", isa.name());
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_reaches_its_row_and_no_other() {
        let pool = Pool::new(1).expect("a thread");
        for ty in known() {
            let (bytes, _) = weights(ty, 20 * 256, 1);
            for isa in Isa::available() {
                let matrix = Matrix::pack_tiles(&pool, isa, "w", (20, 256), ty, &bytes, ty).expect("packs");
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut x = vec![1.0; 3 * 256];
                    x[256 + 77] = bad;
                    let blocks = blocks(isa, &x, 256);
                    let input = Input::first(&x, 256, 3).with_blocks(Some(blocks.get()));
                    let out = multiply(isa, 1, &matrix, input, None, Store::Set);
                    for (i, row) in out.chunks_exact(20).enumerate() {
                        assert!(row.iter().all(|v| v.is_nan() == (i == 1)), "{} {}", ty.name(), isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn packed_weights_ask_for_blocks() {
        let pool = Pool::new(1).expect("a thread");
        let (bytes, _) = weights(QuantType::Q4_0, 64, 1);
        let isa = Isa::detect();
        let matrix = Matrix::pack_tiles(&pool, isa, "w", (2, 32), QuantType::Q4_0, &bytes, QuantType::Q4_0)
            .expect("packs");
        let mut out = [0.0; 2];
        let values = Disjoint::new(&mut out);
        let output = Output {
            values: &values,
            stride: 2,
            first_row: 0,
            first_column: 0,
            bias: None,
            store: Store::Set,
        };
        // SAFETY: nobody else writes.
        let outcome =
            unsafe { product(isa, &matrix, 0..2, Input::first(&[0.0; 32], 32, 1), output, &mut []) };
        assert!(outcome.is_err());
    }
}

//! Plain weights, sixteen rows side by side, and their products.
//!
//! A tile has sixteen rows, column by column: one vector of weights meets one activation, and a product is
//! a sum in every lane, without a horizontal one. Each number is its own chain of fused multiplications and
//! additions: [`RUN`] columns from nothing, then added to those before them, so that a long row loses no
//! more than a short one and whatever is computed beside it leaves no trace. Rows beyond the matrix are
//! zeros.

use std::ops::Range;

use alloyforge_types::{Error, QuantType, Result};

use crate::disjoint::Disjoint;
use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::memory::Buffer;
use crate::pool::Pool;
use crate::product::{Input, Output, Window};

/// Columns that are added up from nothing.
const RUN: usize = 256;

/// Tiles whose rows one strip multiplies at most.
const TILES: usize = 2;

/// Tiles that some input rows meet before the next: they stay in a core's second cache.
const MOST_TILES: usize = 8;

/// From so many input rows on, weights are taken run by run.
const MANY: usize = 12;

/// Most input rows that a run of the weights meets.
const ROWS: usize = 48;

/// One chunk of packing writes about this many bytes.
const CHUNK_BYTES: usize = 1 << 18;

/// How a weight lies in memory.
pub(crate) trait Element {
    /// Its bits.
    type Bits: Copy;

    /// Sixteen of them as numbers.
    fn load<S: Simd>(s: S, from: &[Self::Bits; LANES]) -> S::V;
}

pub(crate) struct F32;

impl Element for F32 {
    type Bits = f32;

    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[f32; LANES]) -> S::V {
        s.load(from)
    }
}

pub(crate) struct F16;

impl Element for F16 {
    type Bits = u16;

    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[u16; LANES]) -> S::V {
        s.load_f16(from)
    }
}

pub(crate) struct BF16;

impl Element for BF16 {
    type Bits = u16;

    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[u16; LANES]) -> S::V {
        s.load_bf16(from)
    }
}

/// A matrix of plain numbers in tiles.
#[derive(Debug)]
pub(crate) struct Lanes {
    ty: QuantType,
    rows: usize,
    cols: usize,
    data: Buffer,
}

impl Lanes {
    /// Whether a matrix of type `ty` can be laid out so.
    pub(crate) fn is_known(ty: QuantType) -> bool {
        matches!(ty, QuantType::F32 | QuantType::F16 | QuantType::BF16)
    }

    /// Lays out the matrix called `name`. `source` gives some rows as numbers of the plain type `ty`;
    /// where it must make them, it leaves them in the room that it is handed.
    ///
    /// # Errors
    /// `Internal` for a type that is not known; `OutOfMemory`; those of `source`.
    pub(crate) fn pack<'a>(
        pool: &Pool,
        name: &str,
        (rows, cols): (usize, usize),
        ty: QuantType,
        source: impl Fn(Range<usize>, &mut Vec<u8>) -> Result<Option<&'a [u8]>> + Sync,
    ) -> Result<Self> {
        let size = ty.block_bytes();
        if !Self::is_known(ty) {
            return Err(Error::internal(format!("{name}: no lanes of {}", ty.name())));
        }
        let tiles = rows.div_ceil(LANES);
        let tile_bytes = cols.saturating_mul(LANES * size);
        let mut data = Buffer::zeroed(tile_bytes.saturating_mul(tiles), name)?;
        let step = (CHUNK_BYTES / tile_bytes.max(1)).max(1);
        let target = Disjoint::new(data.bytes_mut());
        pool.run(tiles.div_ceil(step), |chunk, _| {
            let mut room = Vec::new();
            for tile in chunk * step..tiles.min((chunk + 1) * step) {
                let range = tile * LANES..rows.min((tile + 1) * LANES);
                let count = range.len();
                let from = source(range, &mut room)?.unwrap_or(&room[..]);
                if from.len() != count * cols * size {
                    return Err(Error::internal(format!("{name}: {} bytes of rows", from.len())));
                }
                // SAFETY: each tile is one call's alone.
                let target = unsafe { target.part(tile * tile_bytes..(tile + 1) * tile_bytes) };
                if size == 4 {
                    side_by_side::<4>(from, cols, target);
                } else {
                    side_by_side::<2>(from, cols, target);
                }
            }
            Ok(())
        })?;
        Ok(Self { ty, rows, cols, data })
    }

    /// The size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Writes the rows `range` to `out` as numbers.
    ///
    /// # Errors
    /// `Internal` where `out` has another length.
    pub(crate) fn widen_rows(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        if range.end > self.rows || out.len() != range.len() * self.cols {
            return Err(Error::internal(format!("{} numbers for rows {range:?}", out.len())));
        }
        let size = self.ty.block_bytes();
        for (row, out) in range.zip(out.chunks_exact_mut(self.cols)) {
            let tile = &self.data.bytes()[row / LANES * self.cols * LANES * size..];
            for (x, column) in out.iter_mut().zip(tile.chunks_exact(LANES * size)) {
                let at = row % LANES * size;
                let two = || u16::from_le_bytes([column[at], column[at + 1]]);
                *x = match self.ty {
                    QuantType::F16 => half::f16::from_bits(two()).to_f32(),
                    QuantType::BF16 => half::bf16::from_bits(two()).to_f32(),
                    _ => f32::from_le_bytes([column[at], column[at + 1], column[at + 2], column[at + 3]]),
                };
            }
        }
        Ok(())
    }
}

/// Puts up to sixteen rows of numbers of `N` bytes side by side.
fn side_by_side<const N: usize>(rows: &[u8], cols: usize, to: &mut [u8]) {
    let to = to.as_chunks_mut::<N>().0;
    for (row, from) in rows.chunks_exact(cols * N).enumerate() {
        for (column, from) in to.chunks_exact_mut(LANES).zip(from.as_chunks::<N>().0) {
            column[row] = *from;
        }
    }
}

/// Multiplies the weight rows `rows` of `lanes` with every row of `input`, as
/// [`product`](crate::product::product) does.
///
/// # Safety
/// As there.
pub(crate) unsafe fn product(
    isa: Isa,
    lanes: &Lanes,
    rows: Range<usize>,
    input: Input<'_>,
    output: Output<'_, '_>,
) {
    let (cols, bytes) = (lanes.cols, lanes.data.bytes());
    let tile_bytes = cols * LANES * lanes.ty.block_bytes();
    let end = rows.end.div_ceil(LANES);
    let mut first = rows.start / LANES;
    while first < end {
        let count = MOST_TILES.min(end - first);
        let tiles = bytes[first * tile_bytes..(first + count) * tile_bytes].as_ptr();
        let mut windows = [Window::new(first, &rows); MOST_TILES];
        for (i, window) in windows[..count].iter_mut().enumerate() {
            *window = Window::new(first + i, &rows);
        }
        let windows = &windows[..count];
        match lanes.ty {
            QuantType::F16 => isa.run(Tiles::<F16> { tiles: tiles.cast(), cols, windows, input, output }),
            QuantType::BF16 => isa.run(Tiles::<BF16> { tiles: tiles.cast(), cols, windows, input, output }),
            _ => isa.run(Tiles::<F32> { tiles: tiles.cast(), cols, windows, input, output }),
        }
        first += count;
    }
}

/// The same with `rows` rows, at most sixteen, of numbers that have been put side by side ([`interleave`]),
/// the first of which is row `first` of a matrix.
///
/// # Safety
/// As there.
pub(crate) unsafe fn panel_product(
    isa: Isa,
    panel: &[f32],
    window: Window,
    cols: usize,
    input: Input<'_>,
    output: Output<'_, '_>,
) {
    assert!(panel.len() >= cols * LANES, "a panel of whole vectors");
    isa.run(Tiles::<F32> { tiles: panel.as_ptr(), cols, windows: &[window], input, output });
}

/// Puts up to sixteen rows side by side; the rest are zeros.
pub(crate) fn interleave(rows: &[f32], cols: usize, to: &mut [f32]) {
    to.fill(0.0);
    for (row, from) in rows.chunks_exact(cols).enumerate() {
        for (column, from) in to.chunks_exact_mut(LANES).zip(from) {
            column[row] = *from;
        }
    }
}

/// Some tiles times all rows.
struct Tiles<'b, 'm, E: Element> {
    /// As many tiles as windows, one after the other.
    tiles: *const E::Bits,
    cols: usize,
    windows: &'b [Window],
    input: Input<'b>,
    output: Output<'b, 'm>,
}

impl<E: Element> Kernel for Tiles<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.input.count();
        let mut row = 0;
        while row < count {
            row += match count - row {
                left @ MANY.. if S::REGISTERS >= 32 => self.many::<S, TILES>(s, row, left.min(ROWS)),
                left @ MANY.. => self.many::<S, 1>(s, row, left.min(ROWS)),
                6.. if S::REGISTERS >= 8 => self.few::<S, 6>(s, row),
                5 if S::REGISTERS >= 8 => self.few::<S, 5>(s, row),
                4 if S::REGISTERS >= 8 => self.few::<S, 4>(s, row),
                3 if S::REGISTERS >= 8 => self.few::<S, 3>(s, row),
                2.. => self.few::<S, 2>(s, row),
                _ => self.few::<S, 1>(s, row),
            };
        }
    }
}

/// The sums of an input row with up to two tiles.
type Sums = [[f32; LANES]; TILES];

impl<E: Element> Tiles<'_, '_, E> {
    /// `count` input rows from `row` on times all tiles, `T` at a time; gives `count`. A run of the weights
    /// stays in the nearest cache while the rows go by.
    #[inline(always)]
    fn many<S: Simd, const T: usize>(&self, s: S, row: usize, count: usize) -> usize {
        let mut sums = [[[0.0; LANES]; TILES]; ROWS];
        let (tiles, mut tile) = (self.windows.len(), 0);
        while tile < tiles {
            if tiles - tile >= T {
                self.block::<S, T>(s, row, tile, &mut sums[..count]);
                tile += T;
            } else {
                self.block::<S, 1>(s, row, tile, &mut sums[..count]);
                tile += 1;
            }
        }
        count
    }

    /// The same with tiles `tile .. tile + T`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "sums and windows at once")]
    fn block<S: Simd, const T: usize>(&self, s: S, row: usize, tile: usize, sums: &mut [Sums]) {
        sums.fill([[0.0; LANES]; TILES]);
        let mut from = 0;
        while from < self.cols {
            let run = (from, self.cols.min(from + RUN));
            let mut i = 0;
            while i < sums.len() {
                let rest = &mut sums[i..];
                i += match rest.len() {
                    6.. if S::REGISTERS >= 8 => self.add_run::<S, 6, T>(s, row + i, tile, run, rest),
                    5 if S::REGISTERS >= 8 => self.add_run::<S, 5, T>(s, row + i, tile, run, rest),
                    4 if S::REGISTERS >= 8 => self.add_run::<S, 4, T>(s, row + i, tile, run, rest),
                    3 if S::REGISTERS >= 8 => self.add_run::<S, 3, T>(s, row + i, tile, run, rest),
                    2.. => self.add_run::<S, 2, T>(s, row + i, tile, run, rest),
                    _ => self.add_run::<S, 1, T>(s, row + i, tile, run, rest),
                };
            }
            from = run.1;
        }
        for (i, sums) in sums.iter().enumerate() {
            for t in 0..T {
                // SAFETY: the caller of `product` keeps everybody else away from these.
                unsafe { self.output.put(s, s.load(&sums[t]), row + i, self.windows[tile + t]) };
            }
        }
    }

    /// Adds to `sums` the products of input rows `row .. row + B` with a run of tiles `tile .. tile + T`;
    /// gives `B`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "rows and tiles at once")]
    fn add_run<S: Simd, const B: usize, const T: usize>(
        &self,
        s: S,
        row: usize,
        tile: usize,
        run: (usize, usize),
        sums: &mut [Sums],
    ) -> usize {
        let products = self.run_products::<S, B, T>(s, row, tile, run);
        for b in 0..B {
            for t in 0..T {
                let sum = &mut sums[b][t];
                s.store(s.add(s.load(sum), products[b][t]), sum);
            }
        }
        B
    }

    /// Input rows `row .. row + B` times all tiles; gives `B`.
    #[inline(always)]
    fn few<S: Simd, const B: usize>(&self, s: S, row: usize) -> usize {
        let (count, mut tile) = (self.windows.len(), 0);
        while tile < count {
            if count - tile >= TILES && B * TILES + TILES < S::REGISTERS {
                self.strip::<S, B, TILES>(s, row, tile);
                tile += TILES;
            } else {
                self.strip::<S, B, 1>(s, row, tile);
                tile += 1;
            }
        }
        B
    }

    /// Input rows `row .. row + B` times tiles `tile .. tile + T`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "rows and tiles at once")]
    fn strip<S: Simd, const B: usize, const T: usize>(&self, s: S, row: usize, tile: usize) {
        let mut sums = [[s.splat(0.0); T]; B];
        let mut from = 0;
        while from < self.cols {
            let run = (from, self.cols.min(from + RUN));
            let products = self.run_products::<S, B, T>(s, row, tile, run);
            for b in 0..B {
                for t in 0..T {
                    sums[b][t] = s.add(sums[b][t], products[b][t]);
                }
            }
            from = run.1;
        }
        for b in 0..B {
            for t in 0..T {
                // SAFETY: the caller of `product` keeps everybody else away from these.
                unsafe { self.output.put(s, sums[b][t], row + b, self.windows[tile + t]) };
            }
        }
    }

    /// Input rows `row .. row + B` times columns `from .. to` of tiles `tile .. tile + T`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "rows and tiles at once")]
    fn run_products<S: Simd, const B: usize, const T: usize>(
        &self,
        s: S,
        row: usize,
        tile: usize,
        (from, to): (usize, usize),
    ) -> [[S::V; T]; B] {
        let mut x = [std::ptr::null::<f32>(); B];
        for b in 0..B {
            x[b] = self.input.row(row + b, self.cols).as_ptr();
        }
        let mut w = [self.tiles; T];
        for t in 0..T {
            w[t] = w[t].wrapping_add((tile + t) * self.cols * LANES);
        }
        let mut products = [[s.splat(0.0); T]; B];
        for k in from..to {
            let mut weights = [s.splat(0.0); T];
            for t in 0..T {
                // SAFETY: every tile has `cols` vectors of as many weights, at any alignment that
                // their type has.
                weights[t] = E::load(s, unsafe { &*w[t].add(k * LANES).cast() });
            }
            for b in 0..B {
                // SAFETY: every row has `cols` numbers.
                let x = s.splat(unsafe { *x[b].add(k) });
                for t in 0..T {
                    products[b][t] = s.mul_add(weights[t], x, products[b][t]);
                }
            }
        }
        products
    }
}

//! Many rows: some columns of two tiles are decoded once, into the nearest cache, and multiplied with
//! all rows before the next ones are.

use std::marker::PhantomData;

use super::activations::Block;
use super::direct::Packed;
use super::format::{Format, Shape};
use super::product::Target;
use super::scales::Factors;
use super::step::{Strip, Weights, multiply, strips};
use super::{Line, TILE_ROWS};
use crate::isa::{Isa, Kernel, LANES, Simd};

/// Tiles in a panel.
pub(crate) const TILES: usize = 2;

/// Blocks in a panel: with their factors, two thirds of a first-level cache.
const BLOCKS: usize = 16;

/// Rows whose sums are kept at once.
const ROWS: usize = 512;

/// Lines of codes, of factors and of sums.
const PARTS: [usize; 3] = [BLOCKS * 8 * TILES, BLOCKS * 4 * TILES, ROWS * TILES];

/// Numbers of scratch, with what it takes to begin at a line.
pub(crate) const SCRATCH_LEN: usize = (PARTS[0] + PARTS[1] + PARTS[2] + 1) * LANES;

/// All rows times one or two tiles of format `F`.
///
/// # Panics
/// Where there are more tiles, or less scratch than [`SCRATCH_LEN`].
pub(crate) fn product<F: Format>(
    isa: Isa,
    weights: Packed<'_, F>,
    tiles: usize,
    num_blocks: usize,
    target: &Target<'_, '_>,
    scratch: &mut [f32],
) {
    // SAFETY: every bit pattern is a line, and a line is as many numbers.
    let (_, lines, _) = unsafe { scratch.align_to_mut::<Line>() };
    let (codes, rest) = lines.split_at_mut(PARTS[0]);
    let (factors, rest) = rest.split_at_mut(PARTS[1]);
    let sums = &mut rest[..PARTS[2]];
    assert!(tiles <= TILES, "{tiles} tiles in a panel");
    for first_row in (0..target.count()).step_by(ROWS) {
        let rows = ROWS.min(target.count() - first_row);
        for first in (0..num_blocks).step_by(BLOCKS) {
            let count = BLOCKS.min(num_blocks - first);
            isa.run(Decode { weights, tiles, first, count, codes, factors });
            let panel = Panel::<F::Shape> {
                codes: codes.as_ptr().cast(),
                factors: factors.as_ptr().cast(),
                offset: i32::from(F::OFFSET),
                shape: PhantomData,
            };
            let sums = sums.as_mut_ptr().cast();
            let (is_first, is_last) = (first == 0, first + count == num_blocks);
            isa.run(Multiply {
                panel,
                tiles,
                first,
                count,
                target,
                first_row,
                rows,
                sums,
                is_first,
                is_last,
            });
        }
    }
}

/// Codes as bytes, by tile, block and group; factors, by tile and block.
struct Panel<K> {
    codes: *const [u8; 64],
    factors: *const [[f32; TILE_ROWS]; 4],
    offset: i32,
    shape: PhantomData<K>,
}

impl<K> Clone for Panel<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Panel<K> {}

impl<K: Shape> Weights for Panel<K> {
    type Shape = K;

    #[inline(always)]
    fn offset(self) -> i32 {
        self.offset
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(self, s: S, tile: usize, block: usize, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        s.load_bytes(unsafe { &*self.codes.add((block * TILES + tile) * 8 + group) })
    }

    #[inline(always)]
    unsafe fn factors<S: Simd>(self, s: S, tile: usize, block: usize) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        let factors = unsafe { &*self.factors.add(block * TILES + tile) };
        let load = |has: bool, i: usize| if has { s.load(&factors[i]) } else { s.splat(0.0) };
        Factors {
            scales: [load(true, 0), load(K::HAS_HALVES, 1)],
            minima: [load(K::HAS_MINIMA, 2), load(K::HAS_MINIMA && K::HAS_HALVES, 3)],
        }
    }
}

/// Blocks of packed tiles into a panel.
struct Decode<'a, 'b, F> {
    weights: Packed<'a, F>,
    tiles: usize,
    first: usize,
    count: usize,
    codes: &'b mut [Line],
    factors: &'b mut [Line],
}

impl<F: Format> Kernel for Decode<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for k in 0..self.count {
            for t in 0..self.tiles {
                let at = k * TILES + t;
                for group in 0..8 {
                    // SAFETY: the tiles have these blocks.
                    let codes = unsafe { self.weights.group(s, t, self.first + k, group) };
                    s.store_bytes(codes, &mut self.codes[at * 8 + group].0);
                }
                // SAFETY: as above.
                let factors = unsafe { self.weights.factors(s, t, self.first + k) };
                let [a, b] = factors.scales;
                let [c, d] = factors.minima;
                for (v, line) in [a, b, c, d].into_iter().zip(&mut self.factors[at * 4..]) {
                    // SAFETY: a line is sixteen numbers and aligned for them.
                    s.store(v, unsafe { &mut *(&raw mut line.0).cast::<[f32; LANES]>() });
                }
            }
        }
    }
}

/// Rows times a panel.
struct Multiply<'a, 'b, 'm, K> {
    panel: Panel<K>,
    tiles: usize,
    /// The first block in the rows, and how many.
    first: usize,
    count: usize,
    target: &'a Target<'b, 'm>,
    first_row: usize,
    rows: usize,
    /// Of each row and tile, between panels.
    sums: *mut [[f32; LANES]; TILES],
    is_first: bool,
    is_last: bool,
}

impl<K: Shape> Kernel for Multiply<'_, '_, '_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        strips(s, &self, self.rows, self.tiles);
    }
}

impl<S: Simd, K: Shape> Strip<S> for Multiply<'_, '_, '_, K> {
    #[inline(always)]
    fn strip<const B: usize, const T: usize>(&self, s: S, row: usize, tile: usize) {
        let panel = Panel {
            // SAFETY: the panel has these tiles.
            codes: unsafe { self.panel.codes.add(8 * tile) },
            // SAFETY: as above.
            factors: unsafe { self.panel.factors.add(tile) },
            ..self.panel
        };
        let rows: [*const Block; B] = std::array::from_fn(|b| {
            // SAFETY: a row has as many blocks as the matrix.
            unsafe { self.target.row(self.first_row + row + b).add(self.first) }
        });
        let mut sums = [[s.splat(0.0); T]; B];
        // SAFETY: there are sums for every row, and nobody else has them.
        let kept = unsafe { std::slice::from_raw_parts_mut(self.sums.add(row), B) };
        if !self.is_first {
            for b in 0..B {
                for t in 0..T {
                    sums[b][t] = s.load(&kept[b][tile + t]);
                }
            }
        }
        // SAFETY: rows and panel have these blocks.
        unsafe { multiply(s, panel, rows, self.count, &mut sums) };
        for b in 0..B {
            for t in 0..T {
                if self.is_last {
                    self.target.put(s, sums[b][t], self.first_row + row + b, tile + t);
                } else {
                    s.store(sums[b][t], &mut kept[b][tile + t]);
                }
            }
        }
    }
}

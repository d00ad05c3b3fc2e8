//! The arithmetic that all products share: some activation rows times some tiles, block by block.
//!
//! Whatever the shape of the strip, each result is the same chain of operations, which is why neither
//! the batch nor the way of decoding shows in it.

use super::TILE_ROWS;
use super::activations::Block;
use super::format::Shape;
use super::scales::Factors;
use crate::isa::Simd;

/// Where the codes and factors of tiles come from.
pub(crate) trait Weights: Copy {
    type Shape: Shape;

    /// What is taken off each code, where the shape is not biased.
    fn offset(self) -> i32;

    /// The codes of a group of a block of a tile.
    ///
    /// # Safety
    /// There are such a tile, block and group.
    unsafe fn group<S: Simd>(self, s: S, tile: usize, block: usize, group: usize) -> S::Bytes;

    /// The factors of a block of a tile.
    ///
    /// # Safety
    /// There are such a tile and block.
    unsafe fn factors<S: Simd>(self, s: S, tile: usize, block: usize) -> Factors<S::V>;
}

/// Adds to `sums` the products of `B` rows of `count` blocks with as many blocks of `T` tiles.
///
/// # Safety
/// The rows and the tiles have these blocks.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd, W: Weights, const B: usize, const T: usize>(
    s: S,
    weights: W,
    rows: [*const Block; B],
    count: usize,
    sums: &mut [[S::V; T]; B],
) {
    let halves = if W::Shape::HAS_HALVES { 2 } else { 1 };
    let offset = weights.offset();
    for k in 0..count {
        // SAFETY: the caller's promise, here and below.
        let blocks: [&Block; B] = std::array::from_fn(|b| unsafe { &*rows[b].add(k) });
        let factors: [Factors<S::V>; T] = std::array::from_fn(|t| unsafe { weights.factors(s, t, k) });
        for half in 0..halves {
            let mut products: [[S::Sums; T]; B] =
                std::array::from_fn(|b| [start::<S, W::Shape>(s, blocks[b], half, offset); T]);
            for group in half * 4..half * 4 + 8 / halves {
                let codes: [S::Bytes; T] = std::array::from_fn(|t| unsafe { weights.group(s, t, k, group) });
                for b in 0..B {
                    let four = blocks[b].four(group);
                    for t in 0..T {
                        products[b][t] = if W::Shape::IS_BIASED {
                            s.dot_biased(products[b][t], codes[t], four)
                        } else {
                            s.dot(products[b][t], codes[t], four)
                        };
                    }
                }
            }
            for b in 0..B {
                let scale = s.splat(blocks[b].scale);
                for t in 0..T {
                    let factor = s.mul(factors[t].scales[half], scale);
                    sums[b][t] = s.mul_add(s.sums_to_f32(products[b][t]), factor, sums[b][t]);
                }
                if W::Shape::HAS_MINIMA {
                    let block = blocks[b];
                    let total = if W::Shape::HAS_HALVES { block.totals[half] } else { block.total };
                    let total = s.splat(total);
                    for t in 0..T {
                        sums[b][t] = s.mul_add(factors[t].minima[half], total, sums[b][t]);
                    }
                }
            }
        }
    }
}

/// What integer sums begin with, so that the offset of the codes is taken off.
#[inline(always)]
fn start<S: Simd, K: Shape>(s: S, block: &Block, half: usize, offset: i32) -> S::Sums {
    let negated = if K::HAS_HALVES { block.negated_halves[half] } else { block.negated_sum };
    if K::IS_BIASED { s.start_biased(negated) } else { s.splat_sum(negated * offset) }
}

/// Something that is done to strips of rows and tiles.
pub(crate) trait Strip<S: Simd> {
    /// Rows `row .. row + B` and tiles `tile .. tile + T`.
    fn strip<const B: usize, const T: usize>(&self, s: S, row: usize, tile: usize);
}

/// Calls `strip` for `count` rows and `tiles` tiles, in strips that the registers hold.
#[inline(always)]
pub(crate) fn strips<S: Simd>(s: S, strip: &impl Strip<S>, count: usize, tiles: usize) {
    let mut tile = 0;
    while tile < tiles {
        let mut row = 0;
        if S::HAS_WIDE_TILE && tiles - tile >= 2 {
            while row < count {
                row += match count - row {
                    6.. => {
                        strip.strip::<6, 2>(s, row, tile);
                        6
                    }
                    4.. => {
                        strip.strip::<4, 2>(s, row, tile);
                        4
                    }
                    2.. => {
                        strip.strip::<2, 2>(s, row, tile);
                        2
                    }
                    _ => {
                        strip.strip::<1, 2>(s, row, tile);
                        1
                    }
                };
            }
            tile += 2;
        } else {
            while row < count {
                row += match count - row {
                    4.. if S::HAS_WIDE_TILE => {
                        strip.strip::<4, 1>(s, row, tile);
                        4
                    }
                    2.. => {
                        strip.strip::<2, 1>(s, row, tile);
                        2
                    }
                    _ => {
                        strip.strip::<1, 1>(s, row, tile);
                        1
                    }
                };
            }
            tile += 1;
        }
    }
}

/// The part of a tile's sixteen rows that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The tile's first row in the matrix.
    pub(crate) first: usize,
    /// From here.
    pub(crate) from: usize,
    /// To before here, both counted from the tile's first row.
    pub(crate) to: usize,
}

impl Window {
    /// The part of tile `tile` that lies in `rows`.
    pub(crate) fn new(tile: usize, rows: &std::ops::Range<usize>) -> Self {
        let first = tile * TILE_ROWS;
        Self { first, from: rows.start.saturating_sub(first), to: (rows.end - first).min(TILE_ROWS) }
    }
}

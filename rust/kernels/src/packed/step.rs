//! The arithmetic of a product: some activation rows times some tiles, block by block.
//!
//! Whatever the shape of the strip, each result is the same chain of operations, which is why the rest of
//! a batch does not show in it. There are loops in place of closures here: only what is inlined for
//! certain may use a set's instructions.

use super::activations::Block;
use super::codes::Codes;
use super::format::Format;
use super::scales::{Factors, Scales};
use super::tile::Tile;
use crate::isa::Simd;

/// How many groups of a block may be added up in 16 bits, pair by pair.
const fn groups_together(largest: u8, has_halves: bool) -> usize {
    let pair = 2 * 127 * largest as usize;
    let mut groups = if has_halves { 4 } else { 8 };
    while groups > 1 && groups * pair > i16::MAX as usize {
        groups /= 2;
    }
    groups
}

/// Adds to `sums` the products of `B` rows of `count` blocks with as many blocks of `T` tiles.
///
/// # Safety
/// The rows have these blocks, and the tiles too, in format `F`.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd, F: Format, const B: usize, const T: usize>(
    s: S,
    tiles: [Tile; T],
    rows: [*const Block; B],
    count: usize,
    sums: &mut [[S::V; T]; B],
) {
    let halves = if F::Scales::HAS_HALVES { 2 } else { 1 };
    for k in 0..count {
        // SAFETY: the caller's promise.
        let factors = unsafe { factors::<S, F, T>(s, &tiles, k) };
        for half in 0..halves {
            let mut products = [[s.splat_sum(0); T]; B];
            for (products, row) in products.iter_mut().zip(rows) {
                // SAFETY: the caller's promise.
                *products = [start::<S, F>(s, unsafe { &*row.add(k) }, half); T];
            }
            let groups = half * 4..half * 4 + 8 / halves;
            // SAFETY: the caller's promise.
            unsafe { add_groups::<S, F, B, T>(s, &tiles, &rows, k, groups, &mut products) };
            for b in 0..B {
                // SAFETY: the caller's promise.
                let block = unsafe { &*rows[b].add(k) };
                let scale = s.splat(block.scale);
                for t in 0..T {
                    let factor = s.mul(factors[t].scales[half], scale);
                    sums[b][t] = s.mul_add(s.sums_to_f32(products[b][t]), factor, sums[b][t]);
                }
                if F::Scales::HAS_MINIMA {
                    let total = if F::Scales::HAS_HALVES { block.totals[half] } else { block.total };
                    let total = s.splat(total);
                    for t in 0..T {
                        sums[b][t] = s.mul_add(factors[t].minima[half], total, sums[b][t]);
                    }
                }
            }
        }
    }
}

/// The factors of block `k` of each tile.
///
/// # Safety
/// The tiles have it, in format `F`.
#[inline(always)]
unsafe fn factors<S: Simd, F: Format, const T: usize>(
    s: S,
    tiles: &[Tile; T],
    k: usize,
) -> [Factors<S::V>; T] {
    // SAFETY: the caller's promise.
    let mut factors = [unsafe { tiles[0].factors::<S, F>(s, k) }; T];
    for (factors, tile) in factors.iter_mut().zip(tiles).skip(1) {
        // SAFETY: as above.
        *factors = unsafe { tile.factors::<S, F>(s, k) };
    }
    factors
}

/// What integer sums begin with, so that the offset of the codes is taken off.
#[inline(always)]
fn start<S: Simd, F: Format>(s: S, block: &Block, half: usize) -> S::Sums {
    let negated = if F::Scales::HAS_HALVES { block.negated_halves[half] } else { block.negated_sum };
    if F::OFFSET == 128 { s.start_biased(negated) } else { s.splat_sum(negated * i32::from(F::OFFSET)) }
}

/// Adds to `products` those of some groups of block `k`.
///
/// # Safety
/// Rows and tiles have it, in format `F`.
#[inline(always)]
unsafe fn add_groups<S: Simd, F: Format, const B: usize, const T: usize>(
    s: S,
    tiles: &[Tile; T],
    rows: &[*const Block; B],
    k: usize,
    groups: std::ops::Range<usize>,
    products: &mut [[S::Sums; T]; B],
) {
    let together = const { groups_together(F::Codes::LARGEST, F::Scales::HAS_HALVES) };
    for first in groups.step_by(together) {
        let mut pairs = [[s.open(s.splat_sum(0)); T]; B];
        for b in 0..B {
            for t in 0..T {
                pairs[b][t] = s.open(products[b][t]);
            }
        }
        for group in first..first + together {
            // SAFETY: the caller's promise.
            let mut codes = [unsafe { tiles[0].group::<S, F>(s, k, group) }; T];
            for (codes, tile) in codes.iter_mut().zip(tiles).skip(1) {
                // SAFETY: as above.
                *codes = unsafe { tile.group::<S, F>(s, k, group) };
            }
            for b in 0..B {
                // SAFETY: the caller's promise.
                let four = unsafe { (*rows[b].add(k)).bytes[group] };
                for t in 0..T {
                    if F::OFFSET == 128 {
                        products[b][t] = s.dot_biased(products[b][t], codes[t], four);
                    } else {
                        pairs[b][t] = s.dot(pairs[b][t], codes[t], four);
                    }
                }
            }
        }
        if F::OFFSET != 128 {
            for b in 0..B {
                for t in 0..T {
                    products[b][t] = s.settle(products[b][t], pairs[b][t]);
                }
            }
        }
    }
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

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
use crate::isa::{Simd, prefetch};

/// How many groups of a block may be added up in 16 bits, pair by pair.
pub(super) const fn groups_together(largest: u8, has_halves: bool) -> usize {
    let pair = 2 * 127 * largest as usize;
    let mut groups = if has_halves { 4 } else { 8 };
    while groups > 1 && groups * pair > i16::MAX as usize {
        groups /= 2;
    }
    groups
}

/// Memory that will be read next: a block of products brings a part of it near. The processor's own
/// guesses end with a page and begin anew with each tile, and a single row reads weights as fast as they
/// come.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) start: *const u8,
    /// Lines for each block; 0 where there is nothing to bring.
    pub(crate) lines: usize,
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
    ahead: Ahead,
    sums: &mut [[S::V; T]; B],
) {
    #[allow(clippy::needless_range_loop, reason = "factors of tiles")]
    for k in 0..count {
        for line in k * ahead.lines..(k + 1) * ahead.lines {
            prefetch(ahead.start.wrapping_add(64 * line));
        }
        // SAFETY: the caller's promise, to the end of the block.
        let mut factors = [unsafe { tiles[0].factors::<S, F>(s, k) }; T];
        for t in 1..T {
            // SAFETY: as above.
            factors[t] = unsafe { tiles[t].factors::<S, F>(s, k) };
        }
        let mut products = [[s.splat_sum(0); T]; B];
        let mut partial = [[s.open(s.splat_sum(0)); T]; B];
        // written out, so that every shift and place is a constant
        macro_rules! groups {
            ($($group:literal)*) => {$(
                // SAFETY: as above.
                unsafe {
                    group::<S, F, B, T, $group>(
                        s, &tiles, &rows, k, &factors, &mut products, &mut partial, sums,
                    );
                }
            )*};
        }
        groups!(0 1 2 3 4 5 6 7);
    }
}

/// Adds to `products`, by way of `partial`, those of group `G` of block `k`; to `sums`, where it is the
/// last of its scale.
///
/// # Safety
/// Rows and tiles have the block, in format `F`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "what a block keeps in registers")]
#[allow(clippy::needless_range_loop, reason = "rows and tiles at once")]
unsafe fn group<S: Simd, F: Format, const B: usize, const T: usize, const G: usize>(
    s: S,
    tiles: &[Tile; T],
    rows: &[*const Block; B],
    k: usize,
    factors: &[Factors<S::V>; T],
    products: &mut [[S::Sums; T]; B],
    partial: &mut [[S::Partial; T]; B],
    sums: &mut [[S::V; T]; B],
) {
    let (has_halves, is_biased) = (F::Scales::HAS_HALVES, F::OFFSET == 128);
    let together = const { groups_together(F::Codes::LARGEST, F::Scales::HAS_HALVES) };
    let half = if has_halves { G / 4 } else { 0 };
    // SAFETY: the caller's promise.
    let mut codes = [unsafe { tiles[0].group::<S, F>(s, k, G) }; T];
    for t in 1..T {
        // SAFETY: as above.
        codes[t] = unsafe { tiles[t].group::<S, F>(s, k, G) };
    }
    for b in 0..B {
        // SAFETY: the caller's promise.
        let block = unsafe { &*rows[b].add(k) };
        if G == 0 || (has_halves && G == 4) {
            // so that the offset of the codes is taken off
            let negated = if has_halves { block.negated_halves[half] } else { block.negated_sum };
            let start =
                if is_biased { s.start_biased(negated) } else { s.splat_sum(negated * i32::from(F::OFFSET)) };
            products[b] = [start; T];
        }
        let four = block.bytes[G];
        for t in 0..T {
            if is_biased {
                products[b][t] = s.dot_biased(products[b][t], codes[t], four);
                continue;
            }
            if G.is_multiple_of(together) {
                partial[b][t] = s.open(products[b][t]);
            }
            partial[b][t] = s.dot(partial[b][t], codes[t], four);
            if (G + 1).is_multiple_of(together) {
                products[b][t] = s.settle(products[b][t], partial[b][t]);
            }
        }
        if G == 7 || (has_halves && G == 3) {
            let scale = s.splat(block.scale);
            for t in 0..T {
                let factor = s.mul(factors[t].scales[half], scale);
                sums[b][t] = s.mul_add(s.sums_to_f32(products[b][t]), factor, sums[b][t]);
            }
            if F::Scales::HAS_MINIMA {
                let total = s.splat(if has_halves { block.totals[half] } else { block.total });
                for t in 0..T {
                    sums[b][t] = s.mul_add(factors[t].minima[half], total, sums[b][t]);
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
        if S::REGISTERS >= 32 && tiles - tile >= 2 {
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
                    4.. if S::REGISTERS < 32 && S::REGISTERS >= 8 => {
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

//! Some blocks of a tile, decoded, and their products.
//!
//! Registers that hold few rows decode a tile often: there, its codes are turned into bytes and its scales
//! into numbers once for many rows, some blocks at a time, so few that they stay in the nearest cache.
//!
//! The loops over groups end at a number that the compiler does not know. It would write them out
//! otherwise, turn their order around so that each row takes all groups by itself, and load every weight
//! once a row: twice the time on AVX2.

use std::hint::black_box;
use std::mem::MaybeUninit;

use super::activations::Block;
use super::codes::Codes;
use super::format::Format;
use super::scales::Scales;
use super::step::groups_together;
use super::tile::Tile;
use crate::isa::{LANES, Simd};

/// Most blocks of a panel.
pub(super) const PANEL_BLOCKS: usize = 8;

/// Whether a panel has its codes as words: where they have all 8 bits, and words are faster.
pub(super) const fn has_words<S: Simd, F: Format>() -> bool {
    S::HAS_WORDS && F::OFFSET == 128 && !F::Scales::HAS_HALVES && !F::Scales::HAS_MINIMA
}

/// One block.
#[repr(C, align(64))]
struct PanelBlock {
    /// The eight groups as bytes, or two lines each as words.
    codes: [[u8; 64]; 16],
    scales: [[f32; LANES]; 2],
    minima: [[f32; LANES]; 2],
}

/// Decoded blocks.
pub(super) struct Panel {
    blocks: [MaybeUninit<PanelBlock>; PANEL_BLOCKS],
    /// 1, which the compiler does not know.
    one: usize,
}

impl Panel {
    /// Without a block.
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { blocks: [const { MaybeUninit::uninit() }; PANEL_BLOCKS], one: black_box(1) }
    }

    /// Takes `count` blocks of `tile` from `first` on.
    ///
    /// # Safety
    /// The tile has these blocks, in format `F`.
    #[inline(always)]
    pub(super) unsafe fn decode<S: Simd, F: Format>(&mut self, s: S, tile: Tile, first: usize, count: usize) {
        for (i, to) in self.blocks[..count].iter_mut().enumerate() {
            let to = to.as_mut_ptr();
            // SAFETY: the caller's promise for the tile; all that is written lies in the block, of which
            // every byte may be anything.
            unsafe {
                for group in 0..8 {
                    let codes = tile.group::<S, F>(s, first + i, group);
                    if const { has_words::<S, F>() } {
                        let [first, other] = s.words(codes);
                        s.store_bytes(first, &mut (*to).codes[2 * group]);
                        s.store_bytes(other, &mut (*to).codes[2 * group + 1]);
                    } else {
                        s.store_bytes(codes, &mut (*to).codes[group]);
                    }
                }
                let factors = tile.factors::<S, F>(s, first + i);
                s.store(factors.scales[0], &mut (*to).scales[0]);
                if F::Scales::HAS_HALVES {
                    s.store(factors.scales[1], &mut (*to).scales[1]);
                }
                if F::Scales::HAS_MINIMA {
                    s.store(factors.minima[0], &mut (*to).minima[0]);
                    if F::Scales::HAS_HALVES {
                        s.store(factors.minima[1], &mut (*to).minima[1]);
                    }
                }
            }
        }
    }
}

/// Rows of activations whose words a [`Widened`] holds.
pub(super) const WIDENED_ROWS: usize = 4;

/// Activations of some rows and blocks as words, each block's in pairs: what one instruction hands to every
/// lane. They go by way of memory, from where a pair reaches all lanes in one load.
#[repr(C, align(64))]
pub(super) struct Widened([[[i16; 32]; PANEL_BLOCKS]; WIDENED_ROWS]);

impl Widened {
    /// Without a row.
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self([[[0; 32]; PANEL_BLOCKS]; WIDENED_ROWS])
    }

    /// Takes the first `count` blocks of `rows`.
    ///
    /// # Safety
    /// The rows have these blocks.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "iterators may be left as calls")]
    unsafe fn take<const B: usize>(&mut self, rows: [*const Block; B], count: usize) {
        for b in 0..B {
            let to = &mut self.0[b];
            for k in 0..count.min(PANEL_BLOCKS) {
                // SAFETY: the caller's promise.
                let bytes = unsafe { &(*rows[b].add(k)).bytes };
                for i in 0..32 {
                    to[k][i] = i16::from(bytes[i / 4][i % 4]);
                }
            }
        }
    }

    /// Pair `pair` of block `block` of row `row`.
    #[inline(always)]
    fn pair(&self, row: usize, block: usize, pair: usize) -> i32 {
        let words = [self.0[row][block][2 * pair], self.0[row][block][2 * pair + 1]];
        // SAFETY: both are four bytes, every bit pattern of which is valid.
        unsafe { std::mem::transmute::<[i16; 2], i32>(words) }
    }
}

/// Adds to `sums` the products of `B` rows of `count` blocks with as many of a panel: the chain of
/// [`multiply`](super::step::multiply), whose integers are as exact.
///
/// # Safety
/// The rows have these blocks, and the panel too, in format `F`; there are `B` sums.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "several arrays at once")]
pub(super) unsafe fn multiply_panel<S: Simd, F: Format, const B: usize>(
    s: S,
    panel: &Panel,
    rows: [*const Block; B],
    count: usize,
    room: &mut Widened,
    sums: &mut [[f32; LANES]; B],
) {
    const { assert!(B <= WIDENED_ROWS) };
    let has_words = const { has_words::<S, F>() };
    if has_words {
        // SAFETY: the caller's promise.
        unsafe { room.take(rows, count) };
    }
    for k in 0..count {
        // SAFETY: the caller's promise.
        let weights = unsafe { &*panel.blocks.as_ptr().add(k).cast::<PanelBlock>() };
        for half in 0..if F::Scales::HAS_HALVES { 2 } else { 1 } {
            // SAFETY: the caller's promise.
            let products = unsafe {
                if has_words {
                    word_products::<S, B>(s, weights, room, k, 16 * panel.one)
                } else {
                    byte_products::<S, F, B>(s, weights, rows, k, half, panel.one)
                }
            };
            for b in 0..B {
                // SAFETY: the caller's promise.
                let block = unsafe { &*rows[b].add(k) };
                let factor = s.mul(s.load(&weights.scales[half]), s.splat(block.scale));
                let mut sum = s.mul_add(s.sums_to_f32(products[b]), factor, s.load(&sums[b]));
                if F::Scales::HAS_MINIMA {
                    let total = if F::Scales::HAS_HALVES { block.totals[half] } else { block.total };
                    sum = s.mul_add(s.load(&weights.minima[half]), s.splat(total), sum);
                }
                s.store(sum, &mut sums[b]);
            }
        }
    }
}

/// The integer products of `B` rows with the words of a block. `pairs` is 16.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "several arrays at once")]
fn word_products<S: Simd, const B: usize>(
    s: S,
    weights: &PanelBlock,
    room: &Widened,
    k: usize,
    pairs: usize,
) -> [S::Sums; B] {
    let mut products = [s.splat_sum(0); B];
    for p in 0..pairs {
        let words = s.load_bytes(&weights.codes[p]);
        for b in 0..B {
            products[b] = s.dot_words(products[b], words, room.pair(b, k, p));
        }
    }
    products
}

/// The integer products of block `k` of `B` rows with the bytes of a block, or of one half of it. `one` is 1.
///
/// # Safety
/// The rows have the block.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "several arrays at once")]
unsafe fn byte_products<S: Simd, F: Format, const B: usize>(
    s: S,
    weights: &PanelBlock,
    rows: [*const Block; B],
    k: usize,
    half: usize,
    one: usize,
) -> [S::Sums; B] {
    let is_biased = F::OFFSET == 128;
    let together = const { groups_together(F::Codes::LARGEST, F::Scales::HAS_HALVES) };
    let groups = if F::Scales::HAS_HALVES { 4 } else { 8 };
    let mut products = [s.splat_sum(0); B];
    for b in 0..B {
        // SAFETY: the caller's promise.
        let block = unsafe { &*rows[b].add(k) };
        let negated = if F::Scales::HAS_HALVES { block.negated_halves[half] } else { block.negated_sum };
        products[b] =
            if is_biased { s.start_biased(negated) } else { s.splat_sum(negated * i32::from(F::OFFSET)) };
    }
    let first = half * groups;
    if is_biased {
        for group in first..first + groups * one {
            let codes = s.load_bytes(&weights.codes[group]);
            for b in 0..B {
                // SAFETY: the caller's promise.
                products[b] = s.dot_biased(products[b], codes, unsafe { (*rows[b].add(k)).bytes[group] });
            }
        }
        return products;
    }
    // either loop has a few rounds at most that may be written out
    let (many, few) = if together >= 4 { (1, one) } else { (one, 1) };
    for run in 0..groups / together * many {
        let mut partial = [s.open(products[0]); B];
        for b in 1..B {
            partial[b] = s.open(products[b]);
        }
        for group in first + run * together..first + run * together + together * few {
            let codes = s.load_bytes(&weights.codes[group]);
            for b in 0..B {
                // SAFETY: the caller's promise.
                partial[b] = s.dot(partial[b], codes, unsafe { (*rows[b].add(k)).bytes[group] });
            }
        }
        for b in 0..B {
            products[b] = s.settle(products[b], partial[b]);
        }
    }
    products
}

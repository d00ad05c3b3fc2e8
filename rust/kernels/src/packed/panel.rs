//! Some blocks of a tile, decoded.
//!
//! Registers that hold few rows decode a tile often: there, its codes are turned into bytes and its scales
//! into numbers once for many rows, some blocks at a time, so few that they stay in the nearest cache.

use std::mem::MaybeUninit;

use super::activations::Block;
use super::format::Format;
use super::scales::{Factors, Scales};
use super::tile::Tile;
use crate::isa::{LANES, Simd};

/// Most blocks of a panel.
pub(super) const PANEL_BLOCKS: usize = 16;

/// Weights of sixteen rows, block by block.
pub(crate) trait Weights<F>: Copy {
    /// The codes of a group of a block.
    ///
    /// # Safety
    /// The weights are there, of format `F`, and have this block and group.
    unsafe fn group<S: Simd>(self, s: S, block: usize, group: usize) -> S::Bytes;

    /// The factors of a block.
    ///
    /// # Safety
    /// As [`group`](Self::group).
    unsafe fn factors<S: Simd>(self, s: S, block: usize) -> Factors<S::V>;
}

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
pub(super) struct Panel([MaybeUninit<PanelBlock>; PANEL_BLOCKS]);

impl Panel {
    /// Without a block.
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; PANEL_BLOCKS])
    }

    /// Takes `count` blocks of `tile` from `first` on.
    ///
    /// # Safety
    /// The tile has these blocks, in format `F`.
    #[inline(always)]
    pub(super) unsafe fn decode<S: Simd, F: Format>(&mut self, s: S, tile: Tile, first: usize, count: usize) {
        for (i, to) in self.0[..count].iter_mut().enumerate() {
            let to = to.as_mut_ptr();
            // SAFETY: the caller's promise for the tile; all that is written lies in the block, of which
            // every byte may be anything.
            unsafe {
                for group in 0..8 {
                    let codes = Weights::<F>::group(tile, s, first + i, group);
                    if const { has_words::<S, F>() } {
                        let [first, other] = s.words(codes);
                        s.store_bytes(first, &mut (*to).codes[2 * group]);
                        s.store_bytes(other, &mut (*to).codes[2 * group + 1]);
                    } else {
                        s.store_bytes(codes, &mut (*to).codes[group]);
                    }
                }
                let factors = Weights::<F>::factors(tile, s, first + i);
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

/// The blocks of a panel, to read.
#[derive(Clone, Copy)]
pub(super) struct Decoded<'a>(pub(super) &'a Panel);

impl<F: Format> Weights<F> for Decoded<'_> {
    #[inline(always)]
    unsafe fn group<S: Simd>(self, s: S, block: usize, group: usize) -> S::Bytes {
        // SAFETY: the caller has decoded the block.
        s.load_bytes(unsafe { &(*self.0.0.as_ptr().add(block).cast::<PanelBlock>()).codes[group] })
    }

    #[inline(always)]
    unsafe fn factors<S: Simd>(self, s: S, block: usize) -> Factors<S::V> {
        // SAFETY: the caller has decoded the block, with what its format has of these.
        unsafe {
            let block = self.0.0.as_ptr().add(block).cast::<PanelBlock>();
            let scale = s.load(&(*block).scales[0]);
            let mut factors = Factors { scales: [scale; 2], minima: [s.splat(0.0); 2] };
            if F::Scales::HAS_HALVES {
                factors.scales[1] = s.load(&(*block).scales[1]);
            }
            if F::Scales::HAS_MINIMA {
                factors.minima = [s.load(&(*block).minima[0]); 2];
                if F::Scales::HAS_HALVES {
                    factors.minima[1] = s.load(&(*block).minima[1]);
                }
            }
            factors
        }
    }
}

/// Adds to `sums` the products of `B` rows of `count` blocks with as many of a panel of words: the chain of
/// [`multiply`](super::step::multiply), whose integers are as exact.
///
/// # Safety
/// The rows have these blocks, and the panel too, in a format of which it [has words](has_words).
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "several arrays at once")]
pub(super) unsafe fn multiply_words<S: Simd, const B: usize>(
    s: S,
    panel: &Panel,
    rows: [*const Block; B],
    count: usize,
    sums: &mut [S::V; B],
) {
    for k in 0..count {
        // SAFETY: the caller's promise.
        let weights = unsafe { &*panel.0.as_ptr().add(k).cast::<PanelBlock>() };
        let mut pairs = [[[0i16; 2]; 16]; B];
        for b in 0..B {
            // SAFETY: the caller's promise.
            let block = unsafe { &*rows[b].add(k) };
            for (word, byte) in pairs[b].as_flattened_mut().iter_mut().zip(block.bytes.as_flattened()) {
                *word = i16::from(*byte);
            }
        }
        let mut products = [s.splat_sum(0); B];
        for p in 0..16 {
            let words = s.load_bytes(&weights.codes[p]);
            for b in 0..B {
                products[b] = s.dot_words(products[b], words, pairs[b][p]);
            }
        }
        for b in 0..B {
            // SAFETY: the caller's promise.
            let scale = unsafe { (*rows[b].add(k)).scale };
            let factor = s.mul(s.load(&weights.scales[0]), s.splat(scale));
            sums[b] = s.mul_add(s.sums_to_f32(products[b]), factor, sums[b]);
        }
    }
}

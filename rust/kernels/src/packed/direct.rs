//! One row or a few: tiles are decoded as they are read.

use std::marker::PhantomData;

use super::activations::Block;
use super::format::Format;
use super::product::Target;
use super::scales::Factors;
use super::step::{Strip, Weights, multiply, strips};
use super::tile::Tile;
use crate::isa::{Kernel, Simd};

/// Tiles as they are packed.
pub(crate) struct Packed<'a, F> {
    tiles: &'a [Tile],
    format: PhantomData<F>,
}

impl<F> Clone for Packed<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Packed<'_, F> {}

impl<'a, F> Packed<'a, F> {
    pub(crate) fn new(tiles: &'a [Tile]) -> Self {
        Self { tiles, format: PhantomData }
    }
}

impl<F: Format> Weights for Packed<'_, F> {
    type Shape = F::Shape;

    #[inline(always)]
    fn offset(self) -> i32 {
        i32::from(F::OFFSET)
    }

    #[inline(always)]
    unsafe fn group<S: Simd>(self, s: S, tile: usize, block: usize, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        unsafe { self.tiles.get_unchecked(tile).group::<S, F>(s, block, group) }
    }

    #[inline(always)]
    unsafe fn factors<S: Simd>(self, s: S, tile: usize, block: usize) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        unsafe { self.tiles.get_unchecked(tile).factors::<S, F>(s, block) }
    }
}

/// All rows times one or two tiles.
pub(crate) struct Direct<'a, 'b, 'm, F> {
    pub(crate) weights: Packed<'a, F>,
    pub(crate) num_blocks: usize,
    pub(crate) target: &'a Target<'b, 'm>,
}

impl<F: Format> Kernel for Direct<'_, '_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        strips(s, &self, self.target.count(), self.weights.tiles.len());
    }
}

impl<S: Simd, F: Format> Strip<S> for Direct<'_, '_, '_, F> {
    #[inline(always)]
    fn strip<const B: usize, const T: usize>(&self, s: S, row: usize, tile: usize) {
        let rows: [*const Block; B] = std::array::from_fn(|b| self.target.row(row + b));
        let weights = Packed::<F>::new(&self.weights.tiles[tile..tile + T]);
        let mut sums = [[s.splat(0.0); T]; B];
        // SAFETY: rows and tiles have as many blocks as the matrix.
        unsafe { multiply(s, weights, rows, self.num_blocks, &mut sums) };
        for (b, sums) in sums.iter().enumerate() {
            for (t, sums) in sums.iter().enumerate() {
                self.target.put(s, *sums, row + b, tile + t);
            }
        }
    }
}

//! Activations as signed bytes.
//!
//! A block is 32 numbers under one scale, the largest magnitude over 127, so that no byte is -128 and
//! every instruction set can multiply it. With the bytes come their sums, which give what a weight's
//! minimum or offset adds.

use alloyforge_types::Result;

use super::BLOCK;
use crate::isa::{Isa, Kernel, Simd};
use crate::memory::Buffer;

/// 32 numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Block {
    /// In `-127..=127`.
    pub(crate) bytes: [[i8; 4]; BLOCK / 4],
    /// What a byte is multiplied with; NaN where a number was not finite.
    pub(crate) scale: f32,
    /// Minus the sum of the bytes.
    pub(crate) negated_sum: i32,
    /// Minus the sums of either half.
    pub(crate) negated_halves: [i32; 2],
    /// The scale times the sum.
    pub(crate) total: f32,
    /// The same of either half.
    pub(crate) totals: [f32; 2],
    rest: u32,
}

/// Below this a block is taken for zeros: the inverse of its scale would not be finite.
const SMALLEST: f32 = 1e-30;

impl Block {
    /// Of up to 32 numbers, the rest zeros.
    #[inline(always)]
    fn new<S: Simd>(s: S, numbers: &[f32]) -> Self {
        let mut padded = [0.0f32; BLOCK];
        let numbers: &[f32; BLOCK] = match numbers.try_into() {
            Ok(numbers) => numbers,
            Err(_) => {
                padded[..numbers.len()].copy_from_slice(numbers);
                &padded
            }
        };
        let magnitude = f32::from_bits(s.magnitude(numbers));
        let (scale, inverse) = match magnitude {
            m if !m.is_finite() => (f32::NAN, 0.0),
            m if m < SMALLEST => (0.0, 0.0),
            m => (m / 127.0, 127.0 / m),
        };
        let (bytes, halves) =
            if inverse == 0.0 { ([0; BLOCK], [0; 2]) } else { s.nearest_bytes(numbers, inverse) };
        let sum = halves[0] + halves[1];
        let mut fours = [[0; 4]; BLOCK / 4];
        fours.as_flattened_mut().copy_from_slice(&bytes);
        Self {
            bytes: fours,
            scale,
            negated_sum: -sum,
            negated_halves: [-halves[0], -halves[1]],
            total: scale * sum as f32,
            totals: [scale * halves[0] as f32, scale * halves[1] as f32],
            rest: 0,
        }
    }
}

/// Blocks of a row of `cols` numbers.
pub fn num_blocks(cols: usize) -> usize {
    cols.div_ceil(BLOCK)
}

/// Writes the blocks of one row.
///
/// A block with a number that is not finite makes every product of its row NaN. Numbers below 1e-30 in
/// a block without larger ones count as zeros.
///
/// # Panics
/// Where `out` is not [`num_blocks`] of the row.
pub fn quantize_row(isa: Isa, row: &[f32], out: &mut [Block]) {
    assert_eq!(out.len(), num_blocks(row.len()), "blocks of a row");
    isa.run(QuantizeRow { row, out });
}

struct QuantizeRow<'a> {
    row: &'a [f32],
    out: &'a mut [Block],
}

impl Kernel for QuantizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (numbers, out) in self.row.chunks(BLOCK).zip(self.out) {
            *out = Block::new(s, numbers);
        }
    }
}

/// Room for the blocks of rows.
#[derive(Debug)]
pub struct Activations(Buffer);

impl Activations {
    /// For as many blocks.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(blocks: usize) -> Result<Self> {
        Buffer::zeroed(blocks.saturating_mul(size_of::<Block>()), "the workspace").map(Self)
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The blocks, row after row.
    pub fn get(&self) -> &[Block] {
        // SAFETY: every bit pattern is a block; the slice is aligned and inside the bytes.
        unsafe { self.0.bytes().align_to::<Block>().1 }
    }

    /// The blocks, to write.
    pub fn get_mut(&mut self) -> &mut [Block] {
        // SAFETY: as above, and no byte of a block is padding.
        unsafe { self.0.bytes_mut().align_to_mut::<Block>().1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(isa: Isa, row: &[f32]) -> Vec<Block> {
        let mut out = Activations::new(num_blocks(row.len())).expect("small");
        quantize_row(isa, row, out.get_mut());
        out.get().to_vec()
    }

    proptest! {
        #[test]
        fn bytes_are_the_nearest(row in prop::collection::vec(-1e3f32..1e3, 1..200), size in -20i32..20) {
            let row: Vec<f32> = row.iter().map(|x| x * 2f32.powi(size)).collect();
            let first = blocks(Isa::detect(), &row);
            for (numbers, block) in row.chunks(BLOCK).zip(&first) {
                let largest = numbers.iter().fold(0.0f64, |a, x| a.max(f64::from(x.abs())));
                for (i, byte) in block.bytes.as_flattened().iter().enumerate() {
                    let x = numbers.get(i).map_or(0.0, |x| f64::from(*x));
                    let off = (f64::from(*byte) * largest / 127.0 - x).abs();
                    prop_assert!(off <= largest / 127.0 * 0.50001);
                    prop_assert!(*byte != i8::MIN);
                }
                prop_assert!((f64::from(block.scale) - largest / 127.0).abs() <= largest * 1e-8);
                let halves = [0, 16].map(|at| block.bytes.as_flattened()[at..at + 16].iter().map(|&b| i32::from(b)).sum::<i32>());
                prop_assert_eq!(block.negated_halves, halves.map(|x| -x));
                prop_assert_eq!(block.negated_sum, -halves[0] - halves[1]);
                prop_assert_eq!(block.totals, halves.map(|x| block.scale * x as f32));
                prop_assert_eq!(block.total, block.scale * (halves[0] + halves[1]) as f32);
            }
            for isa in Isa::available() {
                prop_assert_eq!(&blocks(isa, &row), &first, "{}", isa.name());
            }
        }
    }

    #[test]
    fn ties_go_to_the_even_byte() {
        for isa in Isa::available() {
            let block = blocks(isa, &[127.0, 0.5, 1.5, 2.5, -0.5, -1.5])[0];
            assert_eq!(block.bytes.as_flattened()[..6], [127, 0, 2, 2, 0, -2]);
        }
    }

    #[test]
    fn extremes_have_blocks_too() {
        for isa in Isa::available() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut row = vec![1.0; 70];
                row[40] = bad;
                let blocks = blocks(isa, &row);
                assert!(blocks[1].scale.is_nan() && blocks[1].total.is_nan());
                assert!(blocks[0].scale.is_finite() && blocks[2].scale.is_finite());
            }
            for tiny in [0.0, -0.0, 1e-45, 9e-31] {
                let block = blocks(isa, &[tiny; 32])[0];
                assert!(block.scale == 0.0 && block.total == 0.0 && block.bytes == [[0; 4]; 8]);
            }
            let block = blocks(isa, &[f32::MAX, f32::MIN, 1.0])[0];
            assert_eq!(block.bytes.as_flattened()[..3], [127, -127, 0]);
        }
    }
}

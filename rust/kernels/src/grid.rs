//! How products of many rows are cut.

use std::ops::Range;

use crate::matrix::Matrix;
use crate::product::{chunk_rows, num_chunks};

/// Chunks that all batches of a [`Grid`] meet before the next.
const SHARED_CHUNKS: usize = 16;

/// What a batch of input rows may take of a core's second cache.
const BATCH_BYTES: usize = 256 << 10;

/// Fewer rows than this are not worth decoding weights for once more.
const LEAST_BATCH: usize = 64;

/// Batches have whole strips of rows on every instruction set.
const STRIP: usize = 12;

/// How a product of many rows is cut into parts for threads: batches of input rows that stay in a core's
/// own cache while chunks of weight rows go by. All batches meet the same few chunks before the next,
/// so that weights come from memory once.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// Input rows.
    count: usize,
    /// Input rows of a batch.
    batch: usize,
    /// Weight rows.
    rows: usize,
}

impl Grid {
    /// Most input rows of a part.
    pub const MAX_BATCH: usize = 128;

    /// For `count` input rows times `matrix`.
    pub fn new(matrix: &Matrix, count: usize) -> Self {
        let row_bytes = matrix.cols() * if matrix.takes_blocks() { 2 } else { 4 };
        let most = (BATCH_BYTES / row_bytes.max(1)).clamp(LEAST_BATCH, Self::MAX_BATCH);
        // of much the same size, and whole strips
        let batch = count.div_ceil(count.div_ceil(most).max(1)).next_multiple_of(STRIP).min(Self::MAX_BATCH);
        Self { count, batch: batch.max(1), rows: matrix.rows() }
    }

    /// How many parts.
    pub fn parts(self) -> usize {
        self.count.div_ceil(self.batch) * num_chunks(self.rows)
    }

    /// The input rows and the weight rows of part `index`.
    pub fn part(self, index: usize) -> (Range<usize>, Range<usize>) {
        let (batches, chunks) = (self.count.div_ceil(self.batch), num_chunks(self.rows));
        let first = index / (batches * SHARED_CHUNKS) * SHARED_CHUNKS;
        let (shared, index) = (SHARED_CHUNKS.min(chunks - first), index - first * batches);
        let begin = index / shared * self.batch;
        (begin..self.count.min(begin + self.batch), chunk_rows(first + index % shared, self.rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_meets_every_weight_row_once(
            count in 0usize..400,
            batch in 1usize..=Grid::MAX_BATCH,
            rows in 1usize..1500,
        ) {
            let grid = Grid { count, batch, rows };
            let mut met = vec![0u8; count * rows];
            for index in 0..grid.parts() {
                let (batch, part) = grid.part(index);
                prop_assert!(!batch.is_empty() && batch.len() <= Grid::MAX_BATCH && !part.is_empty());
                for i in batch {
                    for j in part.clone() {
                        met[i * rows + j] += 1;
                    }
                }
            }
            prop_assert!(met.iter().all(|&n| n == 1));
        }
    }
}

//! How products of many rows are cut into parts for threads.
//!
//! A core's second cache is what counts: beyond it memory is slow, and on some machines no faster for being
//! cached further out. Packed weights are small and soon decoded, so that it is the input that stays there,
//! in batches, while chunks of weights go by; of plain weights a chunk stays, while all input rows go by.

use std::ops::Range;

use crate::matrix::Matrix;
use crate::product::CHUNK_ROWS;

/// Chunks that all batches meet before the next, so that weights come from memory once.
const SHARED_CHUNKS: usize = 16;

/// What a batch of input rows, or a chunk of plain weights, may take of a core's second cache.
const CACHE_BYTES: usize = 256 << 10;

/// Fewer rows than this are not worth decoding weights for once more.
const LEAST_BATCH: usize = 64;

/// Batches have whole strips of rows on every instruction set.
const STRIP: usize = 12;

/// From so many input rows on, chunks of plain weights are larger.
const MANY_ROWS: usize = 32;

/// Parts for each thread, so that the last to finish is soon done.
const PARTS: usize = 4;

/// A product cut into parts.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// Input rows.
    count: usize,
    /// Input rows of a batch.
    batch: usize,
    /// Weight rows.
    rows: usize,
    /// Weight rows of a chunk.
    chunk: usize,
}

impl Grid {
    /// Most input rows of a part of a [small](Self::small) grid.
    pub const MAX_BATCH: usize = 128;

    /// For `count` input rows times `matrix`, on `threads` threads.
    pub fn new(matrix: &Matrix, count: usize, threads: usize) -> Self {
        let rows = matrix.rows();
        if matrix.takes_blocks() || count < MANY_ROWS {
            return Self::small(matrix, count);
        }
        let row_bytes = matrix.bytes() / rows.max(1);
        let most = (CACHE_BYTES / row_bytes.max(1)).min(rows / (PARTS * threads.max(1)));
        let chunk = (most / CHUNK_ROWS).max(1) * CHUNK_ROWS;
        Self { count, batch: count, rows, chunk }
    }

    /// The same in parts of at most [`MAX_BATCH`](Self::MAX_BATCH) input rows and [`CHUNK_ROWS`] weight rows.
    pub fn small(matrix: &Matrix, count: usize) -> Self {
        let row_bytes = matrix.cols() * if matrix.takes_blocks() { 2 } else { 4 };
        let most = (CACHE_BYTES / row_bytes.max(1)).clamp(LEAST_BATCH, Self::MAX_BATCH);
        // of much the same size, and whole strips
        let batch = count.div_ceil(count.div_ceil(most).max(1)).next_multiple_of(STRIP).min(Self::MAX_BATCH);
        Self { count, batch: batch.max(1), rows: matrix.rows(), chunk: CHUNK_ROWS }
    }

    /// How many parts.
    pub fn parts(self) -> usize {
        self.count.div_ceil(self.batch) * self.rows.div_ceil(self.chunk)
    }

    /// The input rows and the weight rows of part `index`.
    pub fn part(self, index: usize) -> (Range<usize>, Range<usize>) {
        let (batches, chunks) = (self.count.div_ceil(self.batch), self.rows.div_ceil(self.chunk));
        let first = index / (batches * SHARED_CHUNKS) * SHARED_CHUNKS;
        let (shared, index) = (SHARED_CHUNKS.min(chunks - first), index - first * batches);
        let begin = index / shared * self.batch;
        let from = (first + index % shared) * self.chunk;
        (begin..self.count.min(begin + self.batch), from..self.rows.min(from + self.chunk))
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
            chunks in 1usize..4,
        ) {
            let grid = Grid { count, batch, rows, chunk: chunks * CHUNK_ROWS };
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

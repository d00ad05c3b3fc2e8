//! How a step's attention is cut into the work of blocks of threads, as `kernels/cuda` expects it.

use std::ops::Range;

use alloyforge_types::{BLOCK_LEN, LayerSpec, ModelSpec};

use crate::step::{Sequence, first_seen};
use crate::words::Words;

/// Packed rows of a tile of queries, and most of a sequence whose tokens are split instead.
const TILE_ROWS: usize = 64;
const SPLIT_ROWS: usize = 16;

/// Least tokens of a split; longer sequences have longer ones, so that they stay within
/// [`MAX_SPLITS`]. Neither depends on what else is in the step.
const SPLIT_LEN: usize = 256;
const MAX_SPLITS: usize = 64;

/// Most query heads of a key head that a tile has room for.
pub(crate) const MAX_SHARING: usize = TILE_ROWS;

/// The work of a step, as ranges of its [`Words`].
#[cfg_attr(not(feature = "flash-attn"), allow(dead_code, reason = "read by the kernels alone"))]
#[derive(Debug)]
pub(crate) struct Plan {
    /// For each row, one past the last token that it sees.
    pub(crate) ends: Range<usize>,
    pub(crate) groups: Vec<Group>,
    /// Tiles of long sequences, for each number of query heads that share a key head.
    tiles: Vec<(usize, Range<usize>)>,
}

/// One KV group's part.
#[cfg_attr(not(feature = "flash-attn"), allow(dead_code, reason = "read by the kernels alone"))]
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) tables: Range<usize>,
    pub(crate) sequences: Range<usize>,
    /// Four words a split, two a row whose splits are joined.
    pub(crate) splits: Range<usize>,
    pub(crate) joins: Range<usize>,
    /// Partial results, in units of all heads of a row.
    pub(crate) num_partials: usize,
}

impl Plan {
    /// The plan for `sequences`, whose block tables of each group are `tables[group][sequence]`.
    pub(crate) fn new(
        spec: &ModelSpec,
        sequences: &[Sequence],
        tables: &[Vec<&[u32]>],
        words: &mut Words,
    ) -> Self {
        let sharing = |layer: &LayerSpec| layer.attention.num_heads / layer.attention.num_kv_heads;
        let mut sharings: Vec<usize> = spec.layers.iter().map(sharing).collect();
        sharings.sort_unstable();
        sharings.dedup();
        let most = sharings.last().copied().unwrap_or(1);
        let is_short = |s: &Sequence| s.num_rows * most <= SPLIT_ROWS;

        let ends: Vec<u32> = sequences.iter().flat_map(|s| s.ends.iter().map(|&end| end as u32)).collect();
        let ends = words.put(&ends);
        let tiles = sharings
            .iter()
            .filter(|&&sharing| sharing <= MAX_SHARING)
            .map(|&sharing| {
                let rows = TILE_ROWS / sharing;
                let mut tiles = Vec::new();
                for (i, s) in sequences.iter().enumerate().filter(|(_, s)| !is_short(s)) {
                    // the last rows see most: they begin first
                    for first in (0..s.num_rows).step_by(rows).rev() {
                        tiles.extend([i as u32, first as u32]);
                    }
                }
                (sharing, words.put(&tiles))
            })
            .collect();
        let groups = spec
            .kv_groups
            .iter()
            .zip(tables)
            .map(|(group, tables)| Group::new(group.window, sequences, tables, is_short, words))
            .collect();
        Self { ends, groups, tiles }
    }

    #[cfg_attr(not(feature = "flash-attn"), allow(dead_code, reason = "read by the kernels alone"))]
    /// The tiles where `sharing` query heads share a key head.
    pub(crate) fn tiles(&self, sharing: usize) -> Option<&Range<usize>> {
        self.tiles.iter().find(|(s, _)| *s == sharing).map(|(_, tiles)| tiles)
    }
}

impl Group {
    fn new(
        window: Option<usize>,
        sequences: &[Sequence],
        tables: &[&[u32]],
        is_short: impl Fn(&Sequence) -> bool,
        words: &mut Words,
    ) -> Self {
        let (mut all, mut rows, mut splits, mut joins) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut num_partials = 0;
        for (i, (s, table)) in sequences.iter().zip(tables).enumerate() {
            let end = s.start + s.num_rows;
            let first = first_seen(s.start, window);
            let mut num_splits = 0;
            if is_short(s) {
                let len = SPLIT_LEN.max((end - first).div_ceil(MAX_SPLITS).next_multiple_of(BLOCK_LEN));
                for at in (first / len * len..end).step_by(len) {
                    // blocks before the first seen token may be gone
                    let from = at.max(first / BLOCK_LEN * BLOCK_LEN);
                    splits.extend([i as u32, from as u32, (at + len).min(end) as u32, num_splits]);
                    num_splits += 1;
                }
                if num_splits > 1 {
                    joins.extend((0..s.num_rows as u32).flat_map(|row| [i as u32, row]));
                }
            }
            let place = [s.first_row as u32, s.num_rows as u32, s.start as u32, all.len() as u32];
            rows.extend(place);
            rows.extend([num_partials as u32, num_splits]);
            if num_splits > 1 {
                num_partials += num_splits as usize * s.num_rows;
            }
            all.extend_from_slice(&table[..end.div_ceil(BLOCK_LEN)]);
        }
        Self {
            tables: words.put(&all),
            sequences: words.put(&rows),
            splits: words.put(&splits),
            joins: words.put(&joins),
            num_partials,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(first_row: usize, start: usize, num_rows: usize) -> Sequence {
        let ends = (start + 1..=start + num_rows).collect();
        Sequence { first_row, num_rows, start, ends, spans: Vec::new() }
    }

    /// Every token that a short sequence sees is in exactly one split, and no split begins in a block
    /// that may be gone.
    #[test]
    fn splits_cover_what_is_seen_once() {
        let table: Vec<u32> = (0..10_000).collect();
        for window in [None, Some(1), Some(100), Some(4096)] {
            for (start, num_rows) in [(0, 1), (31, 2), (255, 1), (256, 1), (4095, 4), (70_000, 3)] {
                let sequences = [sequence(0, start, num_rows), sequence(num_rows, 5, 1)];
                let mut words = Words::default();
                let group = Group::new(window, &sequences, &[&table, &table], |_| true, &mut words);
                let end = start + num_rows;
                let first = first_seen(start, window);
                let mut next = first / BLOCK_LEN * BLOCK_LEN;
                let splits = words.get(&group.splits);
                let mine: Vec<&[u32]> = splits.chunks(4).filter(|s| s[0] == 0).collect();
                for (i, split) in mine.iter().enumerate() {
                    assert_eq!((split[1] as usize, split[3] as usize), (next, i), "{window:?} {start}");
                    assert!(split[1] < split[2]);
                    next = split[2] as usize;
                }
                assert_eq!(next, end);
                assert!(mine.len() <= MAX_SPLITS + 1);
                let rows = words.get(&group.sequences);
                assert_eq!(rows[..4], [0, num_rows as u32, start as u32, 0]);
                assert_eq!(rows[5], mine.len() as u32);
                assert_eq!(rows[9] as usize, end.div_ceil(BLOCK_LEN));
                let partials = if mine.len() > 1 { mine.len() * num_rows } else { 0 };
                assert_eq!((rows[10] as usize, group.num_partials), (partials, partials));
                assert_eq!(words.get(&group.joins).len(), if mine.len() > 1 { 2 * num_rows } else { 0 });
            }
        }
    }
}

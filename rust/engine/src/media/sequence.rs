//! The media of one sequence, encoded: what its steps splice in and what its cached blocks hold.

use std::ops::Range;
use std::sync::Arc;

use alloyforge_types::{BLOCK_LEN, EmbedSpan, Error, MediaPositions, MediaRows, Result, SequenceStep};

use super::MediaPrompt;

/// Rows of one item in a row.
#[derive(Debug)]
struct Span {
    tokens: Range<usize>,
    rows: MediaRows,
    first_row: usize,
}

/// A sequence's media.
#[derive(Debug, Default)]
pub struct SequenceMedia {
    /// Ascending and disjoint.
    spans: Vec<Span>,
    positions: Option<MediaPositions>,
    is_two_way: bool,
    /// For each block of tokens, a digest of the rows in it; 0 where there are none.
    marks: Vec<u128>,
}

impl SequenceMedia {
    /// The media of `prompt`, of whose items `rows` were made.
    ///
    /// # Errors
    /// `Internal` where an encoder made other rows than the prompt has room for.
    pub(crate) fn new(prompt: &MediaPrompt, rows: &[MediaRows], hidden_dim: usize) -> Result<Self> {
        let mut spans = Vec::with_capacity(prompt.spans.len());
        let mut marks: Vec<u128> = Vec::new();
        for (i, (item, rows)) in prompt.items.iter().zip(rows).enumerate() {
            let placed: usize = prompt.spans.iter().filter(|s| s.item == i).map(|s| s.num_rows).sum();
            let is_even = rows.deeper.iter().all(|d| d.len() == rows.rows.len());
            if placed != rows.num_rows() || rows.width != hidden_dim || !is_even {
                let fault = format!(
                    "the encoder made {} rows of {} for a {} with {placed} places of {hidden_dim}",
                    rows.num_rows(),
                    rows.width,
                    item.kind.noun()
                );
                return Err(Error::internal(fault));
            }
        }
        for span in &prompt.spans {
            let (Some(item), Some(rows)) = (prompt.items.get(span.item), rows.get(span.item)) else {
                return Err(Error::internal("a place for rows of no item"));
            };
            let tokens = span.first..span.first + span.num_rows;
            for block in tokens.start / BLOCK_LEN..tokens.end.div_ceil(BLOCK_LEN) {
                if marks.len() <= block {
                    marks.resize(block + 1, 0);
                }
                let from = tokens.start.max(block * BLOCK_LEN);
                let place =
                    (from % BLOCK_LEN) as u128 | ((span.first_row + from - tokens.start) as u128) << 8;
                marks[block] = mix(marks[block] ^ item.hash, place);
            }
            spans.push(Span { tokens, rows: rows.clone(), first_row: span.first_row });
        }
        Ok(Self { spans, positions: prompt.positions.clone(), is_two_way: prompt.is_two_way, marks })
    }

    /// For each block of tokens, a digest of the rows in it; blocks behind the last one have none.
    pub fn marks(&self) -> &[u128] {
        &self.marks
    }

    /// The last end of a chunk that begins at `start` and should end at `end`, such that rows which see
    /// each other stay together; `start` where there is none.
    pub fn end_before(&self, start: usize, end: usize) -> usize {
        match self.cut_by(end) {
            Some(cut) => cut.start.max(start),
            None => end,
        }
    }

    /// As [`end_before`](Self::end_before), but the first end that is not before `end`.
    pub fn end_behind(&self, end: usize) -> usize {
        self.cut_by(end).map_or(end, |cut| cut.end)
    }

    /// The two-way span that a chunk ending at `end` would cut.
    fn cut_by(&self, end: usize) -> Option<Range<usize>> {
        let inside = |s: &&Span| s.tokens.start < end && end < s.tokens.end;
        self.spans.iter().filter(|_| self.is_two_way).find(inside).map(|s| s.tokens.clone())
    }

    /// Adds to a step from `start` what its media ask for. `first_row` is the step's first row in the
    /// batch.
    pub fn fill(&self, step: &mut SequenceStep, first_row: usize, embeds: &mut Vec<EmbedSpan>) {
        let covered = step.start..step.start + step.num_rows;
        for span in &self.spans {
            let tokens = span.tokens.start.max(covered.start)..span.tokens.end.min(covered.end);
            if tokens.is_empty() {
                continue;
            }
            let first = span.first_row + tokens.start - span.tokens.start;
            embeds.push(EmbedSpan {
                first_row: first_row + tokens.start - covered.start,
                values: Arc::clone(&span.rows.rows),
                rows: first..first + tokens.len(),
                deeper: span.rows.deeper.clone(),
            });
            if self.is_two_way {
                if step.attend_end.is_empty() {
                    step.attend_end = (covered.start + 1..=covered.end).collect();
                }
                for i in tokens.clone() {
                    step.attend_end[i - covered.start] = tokens.end;
                }
            }
        }
        if let Some(positions) = &self.positions {
            let behind = |i: usize| [positions.next.saturating_add((i - positions.prompt.len()) as u32); 3];
            let position = |i: usize| positions.prompt.get(i).copied().unwrap_or_else(|| behind(i));
            step.rope_positions = covered.map(position).collect();
        }
    }
}

/// A digest of a digest and a place: multiplied and folded twice, so that places which are summed or
/// swapped do not meet.
fn mix(hash: u128, place: u128) -> u128 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let x = (hash ^ place.wrapping_mul(ODD)).wrapping_mul(ODD);
    let x = (x ^ (x >> 61)).wrapping_mul(ODD | 2);
    // 0 says that there are no rows
    (x ^ (x >> 67)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(is_two_way: bool) -> SequenceMedia {
        let rows = |n: usize| MediaRows { width: 2, rows: vec![1.0; 2 * n].into(), deeper: Vec::new() };
        let span = |first: usize, n: usize, first_row: usize| Span {
            tokens: first..first + n,
            rows: rows(n + first_row),
            first_row,
        };
        SequenceMedia {
            spans: vec![span(3, 4, 0), span(40, 10, 2)],
            positions: Some(MediaPositions { prompt: (0..60).map(|i| [i, 2 * i, 3 * i]).collect(), next: 7 }),
            is_two_way,
            marks: Vec::new(),
        }
    }

    #[test]
    fn chunks_keep_two_way_rows_together() {
        let media = media(true);
        assert_eq!([media.end_before(0, 3), media.end_behind(3)], [3, 3]);
        assert_eq!([media.end_before(0, 5), media.end_behind(5)], [3, 7]);
        assert_eq!([media.end_before(40, 45), media.end_behind(45)], [40, 50]);
        assert_eq!([media.end_before(8, 50), media.end_behind(50)], [50, 50]);
        let causal = super::tests::media(false);
        assert_eq!([causal.end_before(0, 5), causal.end_behind(5)], [5, 5]);
    }

    #[test]
    fn a_step_takes_the_rows_that_it_covers() {
        let mut embeds = Vec::new();
        let mut step = SequenceStep { start: 5, num_rows: 40, ..SequenceStep::default() };
        media(false).fill(&mut step, 100, &mut embeds);
        let found: Vec<_> = embeds.iter().map(|e| (e.first_row, e.rows.clone())).collect();
        assert_eq!(found, [(100, 2..4), (135, 2..7)]);
        assert_eq!(step.rope_positions[0], [5, 10, 15]);
        assert!(step.attend_end.is_empty());

        let mut step = SequenceStep { start: 40, num_rows: 22, ..SequenceStep::default() };
        media(true).fill(&mut step, 0, &mut embeds);
        assert_eq!(step.attend_end[..12], [[50; 10].as_slice(), &[51, 52]].concat());
        assert_eq!(step.rope_positions[19..], [[59, 118, 177], [7; 3], [8; 3]]);
    }

    #[test]
    fn marks_tell_items_and_places_apart() {
        let mut marks: Vec<u128> =
            vec![mix(5, 0), mix(6, 0), mix(5, 1), mix(5, 1 << 8), mix(mix(5, 0) ^ 6, 3)];
        marks.sort_unstable();
        marks.dedup();
        assert_eq!(marks.len(), 5);
        assert!(!marks.contains(&0));
    }
}

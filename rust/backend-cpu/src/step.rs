//! A step's batch, unrolled into what the phases walk over.
//!
//! The vectors are kept from step to step, so that after the first few a step takes no memory.

use alloyforge_kernels::attention::tile_rows;
use alloyforge_types::{BLOCK_LEN, Batch, BlockId, EmbedSpan, Error, ModelSpec, Result, SequenceStep};

use crate::cache::Cache;

/// Some consecutive rows of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) sequence: usize,
    /// The first row in the batch, and how many.
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// The first row's place in its sequence.
    pub(crate) start: usize,
}

/// Where a row's embedding comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Token(u32),
    /// Row `.1` of span `.0`.
    Span(usize, usize),
}

/// The unrolled batch.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) num_rows: usize,
    pub(crate) sources: Vec<Source>,
    pub(crate) spans: Vec<EmbedSpan>,
    /// One past the last token that each row sees.
    pub(crate) ends: Vec<usize>,
    /// Each row's rotary position, and the length that its frequencies are for.
    pub(crate) positions: Vec<([u32; 3], usize)>,
    /// Rows in one block of the cache: what one thread may write.
    pub(crate) runs: Vec<Rows>,
    /// Rows that attend together.
    pub(crate) tiles: Vec<Rows>,
    /// The place of each row in its sequence.
    pub(crate) places: Vec<usize>,
    /// Rows that attend together over an encoder's states; their `sequence` is a slot.
    pub(crate) cross_tiles: Vec<Rows>,
    pub(crate) watched_heads: Vec<(usize, usize)>,
    pub(crate) logit_rows: Vec<usize>,
    /// The block tables of all sequences, one after the other, for each group.
    tables: Vec<Vec<BlockId>>,
    /// Where a sequence's table begins, at `sequence * groups + group`.
    table_starts: Vec<usize>,
    /// For the check that no two runs write to one block.
    written: Vec<BlockId>,
}

impl Step {
    /// The block of `group` that holds tokens `index * BLOCK_LEN ..` of a sequence.
    pub(crate) fn block(&self, sequence: usize, group: usize, index: usize) -> BlockId {
        self.tables[group][self.table_starts[sequence * self.tables.len() + group] + index]
    }

    /// Takes `batch`.
    ///
    /// # Errors
    /// `Internal` where the batch contradicts itself, the spec or the cache. The caller has checked
    /// it; but the phases write to memory by these numbers.
    pub(crate) fn set(
        &mut self,
        spec: &ModelSpec,
        cache: &Cache,
        num_slots: usize,
        limits: Limits,
        batch: &Batch,
    ) -> Result<()> {
        self.clear(spec.kv_groups.len());
        self.num_rows = batch.tokens.len();
        let within = |what: &str, is: usize, most: usize| {
            if is > most { Err(wrong(format!("{is} {what}, at most {most}"))) } else { Ok(()) }
        };
        within("rows", self.num_rows, limits.max_rows)?;
        within("logit rows", batch.logit_rows.len(), limits.max_logit_rows)?;
        if batch.logit_rows.iter().any(|&row| row >= self.num_rows) {
            return Err(wrong(format!("logit rows {:?} of {}", batch.logit_rows, self.num_rows)));
        }
        self.logit_rows.extend_from_slice(&batch.logit_rows);
        let tile_rows = tile_rows(spec.max_group());
        for (i, sequence) in batch.sequences.iter().enumerate() {
            self.push(spec, cache, i, sequence, tile_rows)?;
        }
        self.set_cross(spec, num_slots, batch)?;
        if self.ends.len() != self.num_rows {
            return Err(wrong(format!("{} tokens for {} rows of sequences", self.num_rows, self.ends.len())));
        }
        self.check_writes()?;
        self.set_sources(spec, batch)
    }

    fn clear(&mut self, num_groups: usize) {
        self.sources.clear();
        self.spans.clear();
        self.ends.clear();
        self.positions.clear();
        self.runs.clear();
        self.tiles.clear();
        self.places.clear();
        self.cross_tiles.clear();
        self.watched_heads.clear();
        self.logit_rows.clear();
        self.tables.resize_with(num_groups, Vec::new);
        self.tables.iter_mut().for_each(Vec::clear);
        self.table_starts.clear();
        // so that a batch that is refused leaves nothing to compute
        self.num_rows = 0;
    }

    /// Adds one sequence, in tiles of at most `tile_rows` rows.
    fn push(
        &mut self,
        spec: &ModelSpec,
        cache: &Cache,
        index: usize,
        sequence: &SequenceStep,
        tile_rows: usize,
    ) -> Result<()> {
        let wrong = |what: String| Err(wrong(format!("sequence {index}: {what}")));
        let &SequenceStep { num_rows, start, rope_len, .. } = sequence;
        let first = self.ends.len();
        let Some(end) = start.checked_add(num_rows).filter(|&end| end <= u32::MAX as usize) else {
            return wrong(format!("{num_rows} rows from {start} on"));
        };
        if num_rows > self.num_rows - first {
            return wrong(format!("{num_rows} rows, {} tokens are left", self.num_rows - first));
        }
        if spec.positions.is_some_and(|most| end > most) {
            return wrong(format!("{end} tokens, there are {:?} positions", spec.positions));
        }
        for (what, len) in [("ends", sequence.attend_end.len()), ("positions", sequence.rope_positions.len())]
        {
            if len != 0 && len != num_rows {
                return wrong(format!("{len} {what} for {num_rows} rows"));
            }
        }
        for row in 0..num_rows {
            let own = start + row + 1;
            let sees = sequence.attend_end.get(row).copied().unwrap_or(own);
            if !(own..=end).contains(&sees) {
                return wrong(format!("row {row} sees up to {sees}, of {end}"));
            }
            self.ends.push(sees);
            self.places.push(start + row);
            let position = sequence.rope_positions.get(row).copied().unwrap_or([(own - 1) as u32; 3]);
            self.positions.push((position, rope_len.max(own)));
        }
        if sequence.tables.len() != spec.kv_groups.len() {
            return wrong(format!(
                "{} block tables for {} KV groups",
                sequence.tables.len(),
                spec.kv_groups.len()
            ));
        }
        for (group, table) in sequence.tables.iter().enumerate() {
            let needed = end.div_ceil(BLOCK_LEN);
            let oldest = spec.kv_groups[group].window.map_or(0, |window| (start + 1).saturating_sub(window));
            let num_blocks = cache.num_blocks(group);
            let is_sound = num_rows == 0
                || table
                    .get(oldest / BLOCK_LEN..needed)
                    .is_some_and(|blocks| blocks.iter().all(|&block| (block as usize) < num_blocks));
            if !is_sound {
                return wrong(format!("block table {group} does not hold tokens {oldest}..{end}: {table:?}"));
            }
            self.table_starts.push(self.tables[group].len());
            self.tables[group].extend_from_slice(&table[..needed.min(table.len())]);
        }
        let rows = Rows { sequence: index, first, count: num_rows, start };
        self.runs.extend(rows.cut(|start| BLOCK_LEN - start % BLOCK_LEN));
        self.tiles.extend(rows.cut(|_| tile_rows));
        Ok(())
    }

    /// The rows of each slot, tile by tile, where the spec has cross attention.
    fn set_cross(&mut self, spec: &ModelSpec, num_slots: usize, batch: &Batch) -> Result<()> {
        if !spec.has_cross() {
            return Ok(());
        }
        let heads_of = |layer: usize| Some(spec.layers.get(layer)?.cross.as_ref()?.num_heads);
        if batch.watched_heads.iter().any(|&(layer, head)| heads_of(layer).is_none_or(|n| head >= n)) {
            return Err(wrong(format!("watched heads {:?}", batch.watched_heads)));
        }
        self.watched_heads.extend_from_slice(&batch.watched_heads);
        let mut first = 0;
        for (i, sequence) in batch.sequences.iter().enumerate() {
            let Some(slot) = sequence.states.filter(|&slot| slot < num_slots) else {
                return Err(wrong(format!(
                    "sequence {i} attends to slot {:?} of {num_slots}",
                    sequence.states
                )));
            };
            let mut rows = Rows { sequence: slot, first, count: sequence.num_rows, start: 0 };
            first += rows.count;
            // neighbours of one slot share its tiles
            if let Some(last) = self.cross_tiles.last_mut().filter(|last| last.sequence == slot) {
                let taken = rows.count.min(tile_rows(1) - last.count);
                last.count += taken;
                rows = Rows { first: rows.first + taken, count: rows.count - taken, ..rows };
            }
            self.cross_tiles.extend(rows.cut(|_| tile_rows(1)));
        }
        Ok(())
    }

    /// Checks that every block is written by one run alone.
    fn check_writes(&mut self) -> Result<()> {
        for group in 0..self.tables.len() {
            let mut written = std::mem::take(&mut self.written);
            written.clear();
            written
                .extend(self.runs.iter().map(|run| self.block(run.sequence, group, run.start / BLOCK_LEN)));
            written.sort_unstable();
            let twice = written.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
            self.written = written;
            if let Some(block) = twice {
                return Err(wrong(format!("block {block} of KV group {group} is written twice")));
            }
        }
        Ok(())
    }

    /// Finds every row's embedding.
    fn set_sources(&mut self, spec: &ModelSpec, batch: &Batch) -> Result<()> {
        self.sources.extend(batch.tokens.iter().map(|&token| Source::Token(token)));
        for (i, span) in batch.embeds.iter().enumerate() {
            let len = span.rows.end.saturating_sub(span.rows.start);
            let is_inside =
                span.rows.end.checked_mul(spec.hidden_dim).is_some_and(|n| n <= span.values.len());
            let rows =
                span.first_row.checked_add(len).and_then(|end| self.sources.get_mut(span.first_row..end));
            let is_inside = is_inside && span.deeper.iter().all(|d| d.len() == span.values.len());
            let (true, Some(rows)) = (is_inside, rows) else {
                return Err(wrong(format!(
                    "embedding span {i} at row {} of {}",
                    span.first_row, self.num_rows
                )));
            };
            for (row, source) in span.rows.clone().zip(rows) {
                *source = Source::Span(i, row);
            }
            self.spans.push(span.clone());
        }
        // a token that a span replaces may be any number
        let stray = self.sources.iter().find_map(|source| match *source {
            Source::Token(token) if token as usize >= spec.vocab_size => Some(token),
            _ => None,
        });
        stray.map_or(Ok(()), |token| Err(wrong(format!("token {token} of {}", spec.vocab_size))))
    }
}

impl Rows {
    /// Cuts into parts, each as long as `len` says for its start.
    fn cut(self, len: impl Fn(usize) -> usize) -> impl Iterator<Item = Self> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let count = len(rest.start).min(rest.count);
            let part = Self { count, ..rest };
            rest = Self {
                first: rest.first + count,
                count: rest.count - count,
                start: rest.start + count,
                ..rest
            };
            (count > 0).then_some(part)
        })
    }
}

/// What the workspace was made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_rows: usize,
    pub(crate) max_logit_rows: usize,
}

fn wrong(what: String) -> Error {
    Error::internal(format!("batch: {what}"))
}

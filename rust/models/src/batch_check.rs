//! Whether a batch can be run: what backends may rely on.

use std::ops::Range;

use alloyforge_types::{
    BLOCK_LEN, Batch, BlockId, EmbedSpan, Error, ModelSpec, NO_BLOCK, Result, SequenceStep,
};

/// Checks batches against a spec, the backend's limits and the reserved KV cache.
#[derive(Debug)]
pub(crate) struct BatchCheck {
    pub(crate) max_rows: usize,
    pub(crate) max_logit_rows: usize,
    /// Blocks reserved for each KV group; all 0 before any are.
    pub(crate) blocks: Vec<usize>,
    /// Blocks that a step writes, kept for its memory.
    written: Vec<BlockId>,
}

/// A batch that contradicts itself is a defect of whoever made it.
fn defect(fault: String) -> Error {
    Error::internal(format!("batch: {fault}"))
}

impl BatchCheck {
    /// Checks without limits, for `num_groups` KV groups without blocks.
    pub(crate) fn new(num_groups: usize) -> Self {
        let blocks = vec![0; num_groups];
        Self { max_rows: usize::MAX, max_logit_rows: usize::MAX, blocks, written: Vec::new() }
    }

    /// Checks `batch`.
    ///
    /// # Errors
    /// `InvalidRequest` for a token outside the vocabulary; `Internal` for everything else.
    pub(crate) fn batch(&mut self, spec: &ModelSpec, batch: &Batch) -> Result<()> {
        let rows = batch.tokens.len();
        let given = batch.sequences.iter().try_fold(0usize, |sum, s| sum.checked_add(s.num_rows));
        if given != Some(rows) {
            return Err(defect(format!("{rows} tokens, but its sequences have {given:?} rows")));
        }
        if rows > self.max_rows {
            return Err(defect(format!("{rows} rows, at most {} fit", self.max_rows)));
        }
        if batch.logit_rows.len() > self.max_logit_rows {
            let found = batch.logit_rows.len();
            return Err(defect(format!("logits of {found} rows, at most {} fit", self.max_logit_rows)));
        }
        if let Some(id) = batch.tokens.iter().find(|&&id| id as usize >= spec.vocab_size) {
            let fault = format!("{id} is no token id, the vocabulary has {} tokens", spec.vocab_size);
            return Err(Error::invalid("tokens", fault));
        }
        if !batch.logit_rows.windows(2).all(|w| w[0] < w[1]) {
            return Err(defect("logit rows do not ascend".to_owned()));
        }
        if batch.logit_rows.last().is_some_and(|&last| last >= rows) {
            return Err(defect(format!("logits are asked for a row past {rows}")));
        }
        embeds(&batch.embeds, rows, spec.hidden_dim)?;
        for (i, sequence) in batch.sequences.iter().enumerate() {
            self.sequence(spec, i, sequence)?;
        }
        self.writes(batch)
    }

    fn sequence(&self, spec: &ModelSpec, i: usize, s: &SequenceStep) -> Result<()> {
        let defect = |fault: String| Err(defect(format!("sequence {i}: {fault}")));
        let Some(end) = s.start.checked_add(s.num_rows).filter(|&end| end <= u32::MAX as usize) else {
            return defect(format!("begins at {}", s.start));
        };
        if s.num_rows == 0 {
            return defect("has no rows".to_owned());
        }
        if spec.has_cross() != s.states.is_some() {
            return defect(format!("attends to the states in slot {:?}", s.states));
        }
        if let Some(most) = spec.positions.filter(|&most| end > most) {
            return defect(format!("{end} tokens, there are {most} positions"));
        }
        if s.tables.len() != spec.kv_groups.len() {
            return defect(format!("{} block tables for {} KV groups", s.tables.len(), spec.kv_groups.len()));
        }
        if !s.attend_end.is_empty() {
            if s.attend_end.len() != s.num_rows {
                return defect(format!("{} ends for {} rows", s.attend_end.len(), s.num_rows));
            }
            let fits = |(row, &to): (usize, &usize)| to > s.start + row && to <= end;
            if !s.attend_end.iter().enumerate().all(fits) {
                return defect("a row attends to less than itself or past the end".to_owned());
            }
        }
        if !s.rope_positions.is_empty() && s.rope_positions.len() != s.num_rows {
            return defect(format!("{} positions for {} rows", s.rope_positions.len(), s.num_rows));
        }
        let groups = spec.kv_groups.iter().zip(&s.tables).zip(&self.blocks);
        for (g, ((group, table), &reserved)) in groups.enumerate() {
            let covered = end.div_ceil(BLOCK_LEN);
            if table.len() < covered {
                return defect(format!("table {g} has {} blocks for {end} tokens", table.len()));
            }
            // the first row sees furthest back
            let seen = group.window.map_or(0, |window| (s.start + 1).saturating_sub(window));
            let needed = &table[seen / BLOCK_LEN..covered];
            if let Some(block) = needed.iter().find(|&&b| b == NO_BLOCK || b as usize >= reserved) {
                return defect(format!("table {g} needs block {block}, {reserved} are reserved"));
            }
        }
        Ok(())
    }

    /// No block may be written by two sequences of one step.
    fn writes(&mut self, batch: &Batch) -> Result<()> {
        if batch.sequences.len() < 2 {
            return Ok(());
        }
        for group in 0..self.blocks.len() {
            self.written.clear();
            for s in &batch.sequences {
                let blocks = written_blocks(s);
                self.written.extend(s.tables.get(group).and_then(|t| t.get(blocks)).unwrap_or_default());
            }
            self.written.sort_unstable();
            if let Some(twice) = self.written.windows(2).find(|w| w[0] == w[1]) {
                return Err(defect(format!("two sequences write block {} of group {group}", twice[0])));
            }
        }
        Ok(())
    }

    /// Checks a copy of whole blocks.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn copies(&self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        let Some(&reserved) = self.blocks.get(group) else {
            return Err(defect(format!("there is no KV group {group}")));
        };
        match pairs.iter().find(|(from, to)| *from as usize >= reserved || *to as usize >= reserved) {
            None => Ok(()),
            Some((from, to)) => {
                Err(defect(format!("block {from} cannot be copied to {to}, {reserved} are reserved")))
            }
        }
    }
}

/// The entries of a sequence's tables that its rows are written to.
fn written_blocks(s: &SequenceStep) -> Range<usize> {
    s.start / BLOCK_LEN..(s.start + s.num_rows).div_ceil(BLOCK_LEN)
}

fn embeds(spans: &[EmbedSpan], rows: usize, hidden: usize) -> Result<()> {
    let mut places: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        let place = span.rows.end.checked_sub(span.rows.start).filter(|&n| n > 0);
        let place = place.and_then(|n| Some(span.first_row..span.first_row.checked_add(n)?));
        let Some(place) = place.filter(|p| p.end <= rows) else {
            return Err(defect(format!("rows {:?} spliced at {} of {rows}", span.rows, span.first_row)));
        };
        let needed = span.rows.end.checked_mul(hidden);
        if span.values.len() % hidden != 0 || needed.is_none_or(|n| n > span.values.len()) {
            return Err(defect(format!("rows {:?} of {} values spliced", span.rows, span.values.len())));
        }
        if span.deeper.iter().any(|d| d.len() != span.values.len()) {
            return Err(defect(format!("values of {} and of other lengths spliced", span.values.len())));
        }
        places.push(place);
    }
    places.sort_unstable_by_key(|p| p.start);
    match places.windows(2).find(|p| p[0].end > p[1].start) {
        Some(pair) => Err(defect(format!("spliced rows {:?} and {:?} overlap", pair[0], pair[1]))),
        None => Ok(()),
    }
}

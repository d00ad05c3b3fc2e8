//! One step's batch on the device, checked: a kernel would read past the end instead of failing.

use std::collections::HashMap;
use std::ops::Range;

use alloyforge_types::{BLOCK_LEN, Batch, EmbedSpan, Error, ModelSpec, NO_BLOCK, Result, SequenceStep};
use candle_core::Tensor;

use crate::cache::{Cache, Slots, Span};
use crate::fault::Place;
use crate::fused::Plan;
use crate::rope::{Known, Turn};
use crate::words::Words;

/// What the phases of a step share.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) rows: usize,
    /// The lists of numbers that the others are ranges of.
    pub(crate) words: Words,
    pub(crate) tokens: Range<usize>,
    pub(crate) sequences: Vec<Sequence>,
    /// A plan for each KV group.
    pub(crate) slots: Vec<Slots>,
    /// A turn for each rotary embedding of the spec.
    pub(crate) turns: Vec<Turn>,
    pub(crate) num_logit_rows: usize,
    /// The asked rows, where there are any.
    pub(crate) logit_rows: Option<Range<usize>>,
    /// How attention is cut for our kernels, where they are there.
    pub(crate) plan: Option<Plan>,
    pub(crate) embeds: Vec<EmbedSpan>,
    /// The place of each row in its sequence, where the model has learned positions.
    pub(crate) places: Option<Range<usize>>,
    /// Rows of one slot of encoder states: the slot, the first row, how many.
    pub(crate) shares: Vec<(usize, usize, usize)>,
    pub(crate) watched_heads: Vec<(usize, usize)>,
    /// Masks made by an earlier layer of this step.
    pub(crate) masks: HashMap<MaskKey, Option<Tensor>>,
}

/// What a mask depends on: the sequence, its first row in the mask, the layer's window.
pub(crate) type MaskKey = (usize, usize, Option<usize>);

/// One sequence's rows.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Its first row in the batch.
    pub(crate) first_row: usize,
    /// Its rows.
    pub(crate) num_rows: usize,
    /// The index of its first row.
    pub(crate) start: usize,
    /// For each row, one past the last index that it attends to.
    pub(crate) ends: Vec<usize>,
    /// For each KV group, all tokens that any row attends to.
    pub(crate) spans: Vec<Span>,
}

impl Step {
    /// Checks `batch` against `spec` and `cache` and brings it to the device.
    ///
    /// # Errors
    /// `Internal` for a batch that contradicts itself, `Device`.
    pub(crate) fn new(
        place: &Place,
        spec: &ModelSpec,
        cache: &Cache,
        num_slots: usize,
        known: &mut [Known],
        has_kernels: bool,
        batch: &Batch,
    ) -> Result<Self> {
        let fault = |e| place.fault(e);
        check(spec, num_slots, batch).map_err(|what| Error::internal(format!("batch: {what}")))?;
        let rows = batch.tokens.len();
        let mut words = Words::default();
        let tokens = words.put(&batch.tokens);
        let mut slots = vec![Vec::with_capacity(rows); spec.kv_groups.len()];
        let mut sequences = Vec::with_capacity(batch.sequences.len());
        for step in &batch.sequences {
            let first_row = sequences.last().map_or(0, |s: &Sequence| s.first_row + s.num_rows);
            sequences.push(Sequence::new(spec, cache, step, first_row, &mut slots, &mut words)?);
        }
        let slots = slots.iter().map(|slots| Slots::new(slots, &mut words)).collect();
        let turns = spec.ropes.iter().zip(known);
        let turns = turns
            .map(|(rope, known)| Turn::new(rope, &batch.sequences, known, &mut words, &place.device))
            .collect::<candle_core::Result<_>>()
            .map_err(fault)?;
        let plan = has_kernels.then(|| {
            let tables = |g: usize| batch.sequences.iter().map(|s| s.tables[g].as_slice()).collect();
            let tables: Vec<Vec<&[u32]>> = (0..spec.kv_groups.len()).map(tables).collect();
            Plan::new(spec, &sequences, &tables, &mut words)
        });
        let places = places(spec, batch, &mut words);
        let wanted: Vec<u32> = batch.logit_rows.iter().map(|&row| row as u32).collect();
        // a device has no tensor of nothing
        let logit_rows = (!wanted.is_empty()).then(|| words.put(&wanted));
        words.upload(&place.device).map_err(fault)?;
        Ok(Self {
            rows,
            words,
            tokens,
            sequences,
            slots,
            turns,
            num_logit_rows: wanted.len(),
            logit_rows,
            plan,
            embeds: batch.embeds.clone(),
            places,
            shares: if spec.has_cross() { shares(batch) } else { Vec::new() },
            watched_heads: batch.watched_heads.clone(),
            masks: HashMap::new(),
        })
    }
}

impl Sequence {
    /// Checks the block tables of `step` and appends the slots of its rows to those of each group.
    fn new(
        spec: &ModelSpec,
        cache: &Cache,
        step: &SequenceStep,
        first_row: usize,
        slots: &mut [Vec<u32>],
        words: &mut Words,
    ) -> Result<Self> {
        let (start, num_rows) = (step.start, step.num_rows);
        let ends = if step.attend_end.is_empty() {
            (start + 1..=start + num_rows).collect()
        } else {
            step.attend_end.clone()
        };
        let mut spans = Vec::with_capacity(spec.kv_groups.len());
        for (g, (group, table)) in spec.kv_groups.iter().zip(&step.tables).enumerate() {
            let first = first_seen(start, group.window);
            let end = start + num_rows;
            let used = table.get(first / BLOCK_LEN..end.div_ceil(BLOCK_LEN)).unwrap_or_default();
            let covered = used.len() == end.div_ceil(BLOCK_LEN) - first / BLOCK_LEN;
            if !covered || used.iter().any(|&b| b == NO_BLOCK || b as usize >= cache.blocks(g)) {
                return Err(Error::internal(format!(
                    "batch: group {g}: tokens {first}..{end} in blocks {used:?} of {}",
                    cache.blocks(g)
                )));
            }
            slots[g].extend(
                (start..end).map(|i| table[i / BLOCK_LEN] * BLOCK_LEN as u32 + (i % BLOCK_LEN) as u32),
            );
            spans.push(Span::new(table, first, end, words));
        }
        Ok(Self { first_row, num_rows, start, ends, spans })
    }
}

/// The place of each row, where the model has learned positions.
fn places(spec: &ModelSpec, batch: &Batch, words: &mut Words) -> Option<Range<usize>> {
    spec.positions?;
    let rows = batch.sequences.iter().flat_map(|s| s.start as u32..(s.start + s.num_rows) as u32);
    let rows: Vec<u32> = rows.collect();
    Some(words.put(&rows))
}

/// The rows of each slot; neighbours of one slot together.
fn shares(batch: &Batch) -> Vec<(usize, usize, usize)> {
    let mut shares: Vec<(usize, usize, usize)> = Vec::new();
    let mut row = 0;
    for sequence in &batch.sequences {
        let slot = sequence.states.unwrap_or_default();
        match shares.last_mut() {
            Some(last) if last.0 == slot => last.2 += sequence.num_rows,
            _ => shares.push((slot, row, sequence.num_rows)),
        }
        row += sequence.num_rows;
    }
    shares
}

/// The first index that the token at `index` sees.
pub(crate) fn first_seen(index: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| (index + 1).saturating_sub(window))
}

/// Whether the parts of `batch` fit each other and `spec`.
fn check(spec: &ModelSpec, num_slots: usize, batch: &Batch) -> std::result::Result<(), String> {
    let rows = batch.tokens.len();
    let counted = batch.sequences.iter().try_fold(0usize, |sum, s| sum.checked_add(s.num_rows));
    if counted != Some(rows) || u32::try_from(rows).is_err() {
        return Err(format!("{rows} tokens for {counted:?} rows"));
    }
    if let Some(&token) = batch.tokens.iter().find(|&&token| token as usize >= spec.vocab_size) {
        return Err(format!("token {token} of {}", spec.vocab_size));
    }
    if !batch.logit_rows.is_sorted_by(|a, b| a < b) || batch.logit_rows.last().is_some_and(|&row| row >= rows)
    {
        return Err(format!("logit rows {:?} of {rows}", batch.logit_rows));
    }
    let heads_of = |layer: usize| Some(spec.layers.get(layer)?.cross.as_ref()?.num_heads);
    if batch.watched_heads.iter().any(|&(layer, head)| heads_of(layer).is_none_or(|n| head >= n)) {
        return Err(format!("watched heads {:?}", batch.watched_heads));
    }
    for span in &batch.embeds {
        let len = span.rows.end.checked_sub(span.rows.start);
        let end = len.and_then(|len| span.first_row.checked_add(len));
        let is_even = span.deeper.iter().all(|d| d.len() == span.values.len());
        let len = span.values.len() / spec.hidden_dim;
        if end.is_none_or(|end| end > rows) || span.rows.end > len || !is_even {
            return Err(format!(
                "embeddings {:?} of {} at row {}",
                span.rows,
                span.values.len(),
                span.first_row
            ));
        }
    }
    for (i, s) in batch.sequences.iter().enumerate() {
        let end = s.start.checked_add(s.num_rows).filter(|&end| u32::try_from(end).is_ok());
        if spec.has_cross() && s.states.is_none_or(|slot| slot >= num_slots) {
            return Err(format!("sequence {i} attends to slot {:?} of {num_slots}", s.states));
        }
        if end.is_some_and(|end| spec.positions.is_some_and(|most| end > most)) {
            return Err(format!("sequence {i}: {end:?} tokens, there are {:?} positions", spec.positions));
        }
        let fits = |len: usize| len == 0 || len == s.num_rows;
        let sees = |(row, &end): (usize, &usize)| s.start + row < end && end <= s.start + s.num_rows;
        if s.num_rows == 0 || end.is_none() || s.tables.len() != spec.kv_groups.len() {
            return Err(format!(
                "sequence {i}: {} rows at {}, {} tables",
                s.num_rows,
                s.start,
                s.tables.len()
            ));
        }
        if !fits(s.attend_end.len())
            || !fits(s.rope_positions.len())
            || !s.attend_end.iter().enumerate().all(sees)
        {
            return Err(format!("sequence {i}: attention ends or positions do not fit its rows"));
        }
    }
    Ok(())
}

//! Decoding several windows as one batch: greedily, by sampling, or with beams.

use alloyforge_interfaces::Model;
use alloyforge_types::{Batch, BlockId, Error, Result, SequenceStep};

use crate::Vocabulary;
use crate::blocks::{Blocks, Cached};
use crate::logits::{argmax, draw, log_sum_exp, top, unit};
use crate::rules::Rules;

/// What a decoder may do at a time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of a step.
    pub max_rows: usize,
    /// Rows of a step whose logits are asked for.
    pub max_logit_rows: usize,
    /// Hypotheses, of all windows together.
    pub max_hypotheses: usize,
    /// KV blocks.
    pub num_blocks: usize,
    /// Windows whose states are kept.
    pub num_slots: usize,
    /// Most tokens of a sequence.
    pub target_len: usize,
    /// Rows of a window's states.
    pub source_len: usize,
}

/// A loaded decoder.
pub struct TextDecoder {
    model: Box<dyn Model>,
    blocks: Blocks,
    limits: Limits,
    logits: Vec<f32>,
}

/// One window to be decoded.
#[derive(Debug, Clone)]
pub struct Task {
    /// The slot of its states.
    pub slot: usize,
    /// What stands before the text.
    pub prompt: Vec<u32>,
    /// Where in it the token stands that begins a transcript, behind which it is asked whether anybody
    /// speaks.
    pub start: usize,
    /// What the text obeys.
    pub rules: Rules,
}

/// How windows are decoded.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// 0: the most probable; otherwise drawn at this temperature.
    pub temperature: f32,
    /// Hypotheses that are kept side by side, at temperature 0.
    pub beam_size: usize,
    /// As many as this, times the beams, are finished before the best is chosen.
    pub patience: f32,
    /// Texts that are drawn, of which the best is kept, above temperature 0.
    pub best_of: usize,
    /// Most tokens of a text.
    pub max_tokens: usize,
    /// Whether the token that ends a text is passed over.
    pub ignore_end: bool,
    /// Where draws come from.
    pub seed: u64,
}

/// A window's text.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Without the token that ends it.
    pub tokens: Vec<u32>,
    /// The mean log probability of a token, the end's included.
    pub mean_logprob: f32,
    /// How probable it is that nobody speaks.
    pub no_speech: f32,
    /// Whether it came to its end rather than to the limit.
    pub is_finished: bool,
}

/// Rows of one sequence in a step.
struct Part<'a> {
    tokens: &'a [u32],
    cached: &'a Cached,
    slot: usize,
    /// Of these rows, whose logits are wanted.
    wanted: Vec<usize>,
}

struct Hypothesis {
    tokens: Vec<u32>,
    sum: f32,
    cached: Cached,
    is_done: bool,
}

/// A task with its hypotheses.
struct Running {
    alive: Vec<Hypothesis>,
    finished: Vec<(Vec<u32>, f32)>,
    no_speech: f32,
    is_over: bool,
}

impl TextDecoder {
    /// A decoder on `model`, whose cache and slots are taken here.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(mut model: Box<dyn Model>, limits: Limits) -> Result<Self> {
        model.reserve_kv(&[limits.num_blocks])?;
        model.reserve_states(limits.num_slots, limits.source_len)?;
        Ok(Self { model, blocks: Blocks::new(limits.num_blocks), limits, logits: Vec::new() })
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// What it may do at a time.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Puts a window's states into `slot`.
    ///
    /// # Errors
    /// `Device`.
    pub fn put(&mut self, slot: usize, states: &[f32]) -> Result<()> {
        self.model.put_states(slot, states)
    }

    /// Runs one step; gives the logits of the wanted rows in `self.logits`, row after row.
    fn step(&mut self, parts: &[Part<'_>], copies: &mut Vec<(BlockId, BlockId)>) -> Result<()> {
        self.model.copy_blocks(0, copies)?;
        copies.clear();
        let mut batch = Batch::default();
        for part in parts {
            let first = batch.tokens.len();
            batch.logit_rows.extend(part.wanted.iter().map(|row| first + row));
            batch.tokens.extend_from_slice(part.tokens);
            batch.sequences.push(SequenceStep {
                num_rows: part.tokens.len(),
                start: part.cached.len - part.tokens.len(),
                rope_len: part.cached.len,
                tables: vec![part.cached.table.clone()],
                states: Some(part.slot),
                ..SequenceStep::default()
            });
        }
        self.model.forward(&batch, &mut self.logits)
    }

    /// The logits behind every token of `tokens`, `[len, vocab]`, for the states in `slot`; with `heads`,
    /// where each of those heads looks for every token, `[heads, len, source_len]`.
    ///
    /// # Errors
    /// `ContextLength`, `InvalidRequest` for a token outside the vocabulary, `Device`.
    pub fn force(
        &mut self,
        slot: usize,
        tokens: &[u32],
        heads: &[(usize, usize)],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<Vec<f32>> {
        let (limit, source) = (self.limits.target_len, self.limits.source_len);
        if tokens.len() > limit {
            return Err(Error::ContextLength { tokens: tokens.len(), limit });
        }
        self.blocks.clear();
        let mut cached = Cached::default();
        let mut watched = vec![0.0; heads.len() * tokens.len() * source];
        let vocab = self.model.spec().vocab_size;
        let step = self.limits.max_logit_rows.min(self.limits.max_rows).min(32);
        for (first, part) in tokens.chunks(step).enumerate().map(|(i, part)| (i * step, part)) {
            self.blocks.extend(&mut cached, part.len(), &mut Vec::new())?;
            let batch = Batch {
                tokens: part.to_vec(),
                sequences: vec![SequenceStep {
                    num_rows: part.len(),
                    start: first,
                    rope_len: tokens.len(),
                    tables: vec![cached.table.clone()],
                    states: Some(slot),
                    ..SequenceStep::default()
                }],
                logit_rows: (0..part.len()).collect(),
                watched_heads: heads.to_vec(),
                ..Batch::default()
            };
            self.model.forward(&batch, &mut self.logits)?;
            for (row, logits) in self.logits.chunks_exact(vocab).enumerate() {
                each(first + row, logits);
            }
            if !heads.is_empty() {
                let seen = self.model.watched()?;
                for (head, rows) in seen.chunks_exact(part.len() * source).enumerate() {
                    let at = (head * tokens.len() + first) * source;
                    watched[at..at + rows.len()].copy_from_slice(rows);
                }
            }
        }
        Ok(watched)
    }

    /// Decodes `tasks` together, as many at a time as there is room for.
    ///
    /// # Errors
    /// `InvalidRequest` for more beams than there is room for; `ContextLength`; `Device`.
    pub fn decode(&mut self, vocabulary: &Vocabulary, tasks: &[Task], how: &How) -> Result<Vec<Decoded>> {
        let width = if how.temperature > 0.0 { how.best_of } else { how.beam_size }.max(1);
        // a beam copies before its parents let go
        let at_once = self.limits.max_hypotheses / width;
        if at_once == 0 {
            let (name, most) =
                (if how.temperature > 0.0 { "best_of" } else { "beam_size" }, self.limits.max_hypotheses);
            return Err(Error::invalid(name, format!("is {width}, at most {most} fit")));
        }
        // each window has two rows with logits when it begins
        let at_once = at_once.min(self.limits.max_logit_rows / 2).max(1);
        let mut out = Vec::with_capacity(tasks.len());
        for tasks in tasks.chunks(at_once) {
            out.extend(self.group(vocabulary, tasks, how, width)?);
        }
        Ok(out)
    }

    fn group(
        &mut self,
        vocabulary: &Vocabulary,
        tasks: &[Task],
        how: &How,
        width: usize,
    ) -> Result<Vec<Decoded>> {
        self.blocks.clear();
        let vocab = self.model.spec().vocab_size;
        let mut running = self.prefill(vocabulary, tasks, how, width)?;
        let limit = self.limits.target_len;
        let mut copies = Vec::new();
        for index in 1u64.. {
            for (task, run) in tasks.iter().zip(&mut running) {
                for hypothesis in &mut run.alive {
                    hypothesis.is_done |= hypothesis.tokens.len() >= how.max_tokens
                        || task.prompt.len() + hypothesis.tokens.len() >= limit;
                }
                run.is_over |= run.alive.iter().all(|h| h.is_done);
            }
            if running.iter().all(|run| run.is_over) {
                break;
            }
            for run in running.iter_mut().filter(|run| !run.is_over) {
                for hypothesis in run.alive.iter_mut().filter(|h| !h.is_done) {
                    self.blocks.extend(&mut hypothesis.cached, 1, &mut copies)?;
                }
            }
            let parts: Vec<Part<'_>> = tasks
                .iter()
                .zip(&running)
                .filter(|(_, run)| !run.is_over)
                .flat_map(|(task, run)| {
                    run.alive.iter().filter(|h| !h.is_done).map(|h| Part {
                        tokens: &h.tokens[h.tokens.len() - 1..],
                        cached: &h.cached,
                        slot: task.slot,
                        wanted: vec![0],
                    })
                })
                .collect();
            self.step(&parts, &mut copies)?;
            drop(parts);
            let mut logits = std::mem::take(&mut self.logits);
            let mut rows = logits.chunks_exact_mut(vocab);
            for (i, (task, run)) in tasks.iter().zip(&mut running).enumerate() {
                if run.is_over {
                    continue;
                }
                let count = run.alive.iter().filter(|h| !h.is_done).count();
                let rows: Vec<&mut [f32]> = rows.by_ref().take(count).collect();
                self.advance(vocabulary, task, run, rows, how, (i as u64, index))?;
            }
            self.logits = logits;
        }
        Ok(running.into_iter().map(|run| best(run, how)).collect())
    }

    /// Computes the prompts and the first tokens.
    fn prefill(
        &mut self,
        vocabulary: &Vocabulary,
        tasks: &[Task],
        how: &How,
        width: usize,
    ) -> Result<Vec<Running>> {
        let vocab = self.model.spec().vocab_size;
        let mut running = Vec::with_capacity(tasks.len());
        let mut first = 0;
        while first < tasks.len() {
            let (mut rows, mut end) = (0, first);
            while end < tasks.len()
                && (end == first || rows + tasks[end].prompt.len() <= self.limits.max_rows)
            {
                rows += tasks[end].prompt.len();
                end += 1;
            }
            let group = &tasks[first..end];
            let mut cached = Vec::new();
            for task in group {
                let len = task.prompt.len();
                if len == 0 || len >= self.limits.target_len || len > self.limits.max_rows {
                    return Err(Error::ContextLength { tokens: len + 1, limit: self.limits.target_len });
                }
                let mut own = Cached::default();
                self.blocks.extend(&mut own, len, &mut Vec::new())?;
                cached.push(own);
            }
            let parts: Vec<Part<'_>> = group
                .iter()
                .zip(&cached)
                .map(|(task, cached)| {
                    let last = task.prompt.len() - 1;
                    let mut wanted = vec![task.start.min(last), last];
                    wanted.dedup();
                    Part { tokens: &task.prompt, cached, slot: task.slot, wanted }
                })
                .collect();
            let counts: Vec<usize> = parts.iter().map(|part| part.wanted.len()).collect();
            self.step(&parts, &mut Vec::new())?;
            drop(parts);
            let mut logits = std::mem::take(&mut self.logits);
            let mut rows = logits.chunks_exact_mut(vocab);
            for (i, ((task, cached), count)) in group.iter().zip(cached).zip(counts).enumerate() {
                let mut own: Vec<&mut [f32]> = rows.by_ref().take(count).collect();
                let silent = vocabulary.no_speech.and_then(|id| own.first()?.get(id as usize).copied());
                let no_speech = silent.map_or(0.0, |logit| (logit - log_sum_exp(own[0])).exp());
                let alive = vec![Hypothesis { tokens: Vec::new(), sum: 0.0, cached, is_done: false }];
                let mut run = Running { alive, finished: Vec::new(), no_speech, is_over: false };
                let Some(last) = own.pop() else {
                    return Err(Error::internal("a prompt without logits"));
                };
                if how.temperature > 0.0 {
                    // all draws begin from the same prompt
                    for _ in 1..width {
                        let cached = self.blocks.fork(&run.alive[0].cached);
                        run.alive.push(Hypothesis { tokens: Vec::new(), sum: 0.0, cached, is_done: false });
                    }
                    let mut copies: Vec<Vec<f32>> = (0..width).map(|_| last.to_vec()).collect();
                    let rows = copies.iter_mut().map(Vec::as_mut_slice).collect();
                    self.advance(vocabulary, task, &mut run, rows, how, ((first + i) as u64, 0))?;
                } else {
                    self.advance(vocabulary, task, &mut run, vec![last], how, ((first + i) as u64, 0))?;
                }
                running.push(run);
            }
            self.logits = logits;
            first = end;
        }
        Ok(running)
    }

    /// One more token for each hypothesis that goes on; `rows` has their logits.
    fn advance(
        &mut self,
        vocabulary: &Vocabulary,
        task: &Task,
        run: &mut Running,
        mut rows: Vec<&mut [f32]>,
        how: &How,
        (window, index): (u64, u64),
    ) -> Result<()> {
        let going = run.alive.iter().filter(|h| !h.is_done);
        for (hypothesis, row) in going.zip(&mut rows) {
            task.rules.apply(vocabulary, &hypothesis.tokens, row);
        }
        if how.temperature == 0.0 && how.beam_size > 1 {
            return self.beams(vocabulary, run, &rows, how);
        }
        let going = run.alive.iter_mut().filter(|h| !h.is_done);
        for (i, (hypothesis, row)) in going.zip(rows).enumerate() {
            let token = if how.temperature > 0.0 {
                let stream = how.seed.wrapping_add(window << 20).wrapping_add((i as u64) << 12);
                draw(row, how.temperature, unit(stream, index))
            } else {
                argmax(row)
            };
            hypothesis.sum += row[token] - log_sum_exp(row);
            if token as u32 == vocabulary.end && !how.ignore_end {
                run.finished.push((hypothesis.tokens.clone(), hypothesis.sum));
                hypothesis.is_done = true;
            } else {
                hypothesis.tokens.push(token as u32);
            }
        }
        Ok(())
    }

    /// The best continuations of all beams (OpenAI's `BeamSearchDecoder`).
    fn beams(
        &mut self,
        vocabulary: &Vocabulary,
        run: &mut Running,
        rows: &[&mut [f32]],
        how: &How,
    ) -> Result<()> {
        let mut candidates: Vec<(usize, u32, f32)> = Vec::new();
        let going: Vec<usize> = (0..run.alive.len()).filter(|&i| !run.alive[i].is_done).collect();
        for (&beam, row) in going.iter().zip(rows) {
            let total = log_sum_exp(row);
            for (token, logit) in top(row, how.beam_size + 1) {
                candidates.push((beam, token as u32, run.alive[beam].sum + logit - total));
            }
        }
        // stable: of equal ones the earlier beam's comes first
        candidates.sort_by(|a, b| b.2.total_cmp(&a.2));
        let mut next: Vec<Hypothesis> = Vec::with_capacity(how.beam_size);
        for (beam, token, sum) in candidates {
            let parent = &run.alive[beam];
            if token == vocabulary.end && !how.ignore_end {
                run.finished.push((parent.tokens.clone(), sum));
                continue;
            }
            let mut tokens = parent.tokens.clone();
            tokens.push(token);
            next.push(Hypothesis { tokens, sum, cached: self.blocks.fork(&parent.cached), is_done: false });
            if next.len() == how.beam_size {
                break;
            }
        }
        for old in std::mem::replace(&mut run.alive, next) {
            self.blocks.release(old.cached);
        }
        let wanted = (how.beam_size as f32 * how.patience).round().max(1.0) as usize;
        run.is_over = run.finished.len() >= wanted || run.alive.is_empty();
        Ok(())
    }
}

/// The best of what a task came to: the highest log probability for its length.
fn best(run: Running, how: &How) -> Decoded {
    let no_speech = run.no_speech;
    let mut all: Vec<(Vec<u32>, f32, bool)> = run.finished.into_iter().map(|(t, s)| (t, s, true)).collect();
    let wanted = if how.temperature > 0.0 { how.best_of } else { how.beam_size };
    // unfinished ones fill up what is missing
    if all.len() < wanted.max(1) {
        let ended: Vec<Vec<u32>> = all.iter().map(|(tokens, ..)| tokens.clone()).collect();
        let mut rest: Vec<Hypothesis> =
            run.alive.into_iter().filter(|h| !ended.contains(&h.tokens)).collect();
        rest.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        all.extend(rest.into_iter().take(wanted - all.len()).map(|h| (h.tokens, h.sum, false)));
    }
    let score = |(tokens, sum, _): &(Vec<u32>, f32, bool)| sum / tokens.len().max(1) as f32;
    let mut found: Option<(Vec<u32>, f32, bool)> = None;
    for one in all {
        if found.as_ref().is_none_or(|best| score(&one) > score(best)) {
            found = Some(one);
        }
    }
    let (tokens, sum, is_finished) = found.unwrap_or((Vec::new(), 0.0, true));
    let mean_logprob = sum / (tokens.len() + 1) as f32;
    Decoded { tokens, mean_logprob, no_speech, is_finished }
}

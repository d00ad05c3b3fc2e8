//! Guesses from a smaller model with the same tokens.
//!
//! It keeps its own keys and values, for the few sequences that it was asked about last, and reads up
//! what it has missed before it guesses. What it gets wrong costs speed and nothing else: an error of
//! its own ends the guessing, not a request.

use std::collections::HashMap;
use std::time::Instant;

use alloyforge_interfaces::Model;
use alloyforge_types::{BLOCK_LEN, Batch, Error, Result, SequenceStep};

use crate::kv::{KvManager, SequenceBlocks};
use crate::scheduler::SeqId;

/// Most sequences that are guessed for at once: with more, steps are full without guesses.
pub(crate) const MOST_SEQUENCES: usize = 8;

/// Draws a token for one of the sequences that are guessed for, given its place, the logits and how many
/// guesses it has.
pub(crate) type Draw<'a> = dyn FnMut(usize, &[f32], usize) -> Result<u32> + 'a;

/// What is asked for one sequence.
pub(crate) struct Wanted<'a> {
    /// The sequence.
    pub(crate) seq: SeqId,
    /// Its tokens, the last of which has not been computed by anyone.
    pub(crate) tokens: &'a [u32],
    /// How many guesses.
    pub(crate) num: usize,
    /// They; fewer where the model still reads.
    pub(crate) guesses: Vec<u32>,
}

/// What the model has read of a sequence.
struct Read {
    tokens: Vec<u32>,
    blocks: SequenceBlocks,
    rope_len: usize,
    last_used: u64,
}

/// A smaller model and what it has read.
pub(crate) struct ModelDrafter {
    model: Box<dyn Model>,
    kv: KvManager,
    max_rows: usize,
    max_len: usize,
    vocab_size: usize,
    read: HashMap<SeqId, Read>,
    clock: u64,
    batch: Batch,
    logits: Vec<f32>,
    row: Vec<f32>,
    /// Seconds that a guess for everybody took, of late.
    turn_seconds: Option<f64>,
}

impl ModelDrafter {
    /// A drafter on `model`, whose cache has `blocks[g]` blocks for group `g`, for a model of
    /// `vocab_size` tokens.
    pub(crate) fn new(
        model: Box<dyn Model>,
        blocks: &[usize],
        max_rows: usize,
        max_len: usize,
        vocab_size: usize,
    ) -> Self {
        // a sequence that goes back by some wrong guesses finds what is behind its window still there
        let window = |w: Option<usize>| w.map(|w| w.saturating_add(BLOCK_LEN));
        let windows = model.spec().kv_groups.iter().map(|g| window(g.window));
        let groups: Vec<(Option<usize>, usize)> = windows.zip(blocks.iter().copied()).collect();
        Self {
            kv: KvManager::new(&groups, false),
            model,
            max_rows,
            max_len,
            vocab_size,
            read: HashMap::new(),
            clock: 0,
            batch: Batch::default(),
            logits: Vec::new(),
            row: Vec::new(),
            turn_seconds: None,
        }
    }

    /// Seconds that a guess for everybody took, of late.
    pub(crate) fn turn_seconds(&self) -> Option<f64> {
        self.turn_seconds
    }

    /// Forgets sequences that are over.
    pub(crate) fn retain(&mut self, is_live: impl Fn(SeqId) -> bool) {
        let over: Vec<SeqId> = self.read.keys().copied().filter(|&seq| !is_live(seq)).collect();
        over.into_iter().for_each(|seq| self.forget(seq));
    }

    fn forget(&mut self, seq: SeqId) {
        if let Some(mut read) = self.read.remove(&seq) {
            self.kv.release(&mut read.blocks);
        }
    }

    /// Guesses. `draw` is told which of `wanted` it draws for, the model's logits, and how many guesses
    /// that one has.
    ///
    /// # Errors
    /// Whatever the model or `draw` fails with.
    pub(crate) fn guess(&mut self, wanted: &mut [Wanted<'_>], draw: &mut Draw<'_>) -> Result<()> {
        self.clock += 1;
        for want in wanted.iter_mut() {
            self.go_back(want.seq, want.tokens);
            if want.tokens.len() + want.num > self.max_len {
                want.num = 0;
            }
        }
        let most = wanted.iter().map(|w| w.num).max().unwrap_or(0);
        for turn in 0..most {
            let begin = Instant::now();
            let drawn_for = self.plan(wanted, turn == 0)?;
            if self.batch.sequences.is_empty() {
                break;
            }
            let is_reading = self.batch.tokens.len() > self.batch.sequences.len();
            self.model.forward(&self.batch, &mut self.logits)?;
            let vocab_size = self.model.spec().vocab_size;
            if self.logits.len() != drawn_for.len() * vocab_size {
                return Err(Error::internal("the draft model gave another count of logits"));
            }
            for (&i, logits) in drawn_for.iter().zip(self.logits.chunks_exact(vocab_size)) {
                // rows of the embedding that no token has may differ in number
                self.row.clear();
                self.row.extend_from_slice(&logits[..vocab_size.min(self.vocab_size)]);
                self.row.resize(self.vocab_size, f32::NEG_INFINITY);
                let token = draw(i, &self.row, wanted[i].guesses.len())?;
                wanted[i].guesses.push(token);
            }
            if turn > 0 || !is_reading {
                let took = begin.elapsed().as_secs_f64();
                self.turn_seconds =
                    Some(self.turn_seconds.map_or(took, |old| 0.75 * old + 0.25 * took.min(3.0 * old)));
            }
        }
        Ok(())
    }

    /// Goes back to where what was read of a sequence agrees with `tokens`, of which the last is always
    /// read again for its logits.
    fn go_back(&mut self, seq: SeqId, tokens: &[u32]) {
        let Self { read, kv, clock, .. } = self;
        let read = read.entry(seq).or_insert_with(|| Read {
            tokens: Vec::new(),
            blocks: kv.start(0, false),
            rope_len: tokens.len(),
            last_used: 0,
        });
        read.last_used = *clock;
        let common = read.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        if common + BLOCK_LEN / 2 < read.tokens.len() {
            // another text, or one whose window has moved on too far
            kv.release(&mut read.blocks);
            read.blocks = kv.start(0, false);
            read.tokens.clear();
            return;
        }
        read.tokens.truncate(common.min(tokens.len().saturating_sub(1)));
    }

    /// Fills the batch with what each still has to read, and the rows behind which a guess is drawn.
    /// Returns for whom.
    fn plan(&mut self, wanted: &[Wanted<'_>], is_first: bool) -> Result<Vec<usize>> {
        self.batch.tokens.clear();
        self.batch.sequences.clear();
        self.batch.logit_rows.clear();
        let mut drawn_for = Vec::new();
        for (i, want) in wanted.iter().enumerate() {
            if want.guesses.len() >= want.num {
                continue;
            }
            let room = self.max_rows - self.batch.tokens.len();
            let Some(read) = self.read.get(&want.seq) else { continue };
            let start = read.tokens.len();
            let pending = want.tokens.len() + want.guesses.len() - start;
            let rows = pending.min(room);
            // one that is still behind after its first chunk reads on in the next call
            if rows == 0 || (!is_first && want.guesses.is_empty()) {
                continue;
            }
            if !self.make_room(want.seq, start, rows) {
                continue;
            }
            let Some(read) = self.read.get_mut(&want.seq) else { continue };
            let (tokens, guesses) = (want.tokens, &want.guesses);
            let new =
                tokens.iter().skip(start).chain(guesses.iter().skip(start.saturating_sub(tokens.len())));
            read.tokens.extend(new.take(rows));
            self.batch.tokens.extend_from_slice(&read.tokens[start..]);
            self.batch.sequences.push(SequenceStep {
                num_rows: rows,
                start,
                rope_len: read.rope_len,
                tables: read.blocks.tables().to_vec(),
                attend_end: Vec::new(),
                rope_positions: Vec::new(),
                states: None,
            });
            if rows == pending {
                self.batch.logit_rows.push(self.batch.tokens.len() - 1);
                drawn_for.push(i);
            }
        }
        Ok(drawn_for)
    }

    /// Takes blocks for `rows` rows of a sequence, from those used longest ago if need be.
    fn make_room(&mut self, seq: SeqId, start: usize, rows: usize) -> bool {
        loop {
            let Some(read) = self.read.get_mut(&seq) else { return false };
            // nothing is shared, so that nothing is copied
            if self.kv.extend(&mut read.blocks, start, rows).is_some() {
                return true;
            }
            let idle = self.read.iter().filter(|(_, r)| r.last_used < self.clock && !r.blocks.is_empty());
            match idle.min_by_key(|(_, r)| r.last_used).map(|(&seq, _)| seq) {
                Some(oldest) => self.forget(oldest),
                None => return false,
            }
        }
    }
}

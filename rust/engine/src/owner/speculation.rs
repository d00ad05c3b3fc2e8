//! What the next step guesses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use alloyforge_types::{Error, Result};

use super::Books;
use crate::draft::MOST_GUESSES;
use crate::draft::model::{MOST_SEQUENCES, ModelDrafter, Wanted};
use crate::draft::payoff::{StepCosts, choose, choose_even};

/// Steps without guesses, after guessing with a model did not pay, before it is tried again; doubled
/// each time that it still does not, up to the second number.
const REST: (u32, u32) = (64, 2048);

/// Guesses for each sequence when a model is tried again.
const TRIED: usize = 3;

/// Guesses in step with what they bring.
pub(super) struct Speculation {
    costs: StepCosts,
    drafter: Option<ModelDrafter>,
    max_guesses: usize,
    /// Steps to go before a model that did not pay is tried again.
    resting: u32,
    rest: u32,
}

impl Speculation {
    pub(super) fn new(drafter: Option<ModelDrafter>, max_guesses: usize) -> Self {
        Self { costs: StepCosts::default(), drafter, max_guesses, resting: 0, rest: REST.0 }
    }

    /// Notes a step of decoding rows alone, `num_guesses` of them guesses.
    pub(super) fn note(&mut self, rows: usize, num_guesses: usize, took: Duration) {
        self.costs.note(rows, num_guesses, took.as_secs_f64());
    }

    /// Has the next step guess where that pays.
    pub(super) fn guess(&mut self, books: &mut Books) {
        let sequences = books.guessed();
        let is_guessed = |books: &mut Books, (_, id, choice)| {
            books.choice(id, choice).is_some_and(|(choice, ..)| choice.guesser.is_some())
        };
        if sequences.is_empty() || !is_guessed(books, sequences[0]) {
            return;
        }
        let Some(drafter) = &mut self.drafter else { return self.guess_from_texts(books, &sequences) };
        drafter.retain(|seq| books.scheduler.contains(seq));
        let guessed = catch_unwind(AssertUnwindSafe(|| self.guess_with_model(books, &sequences)));
        let guessed = guessed.unwrap_or_else(|panic| Err(Error::internal(super::message(&*panic))));
        if guessed.is_err() {
            // a model that fails guesses no more; every token is right without it
            self.drafter = None;
        }
    }

    fn guess_from_texts(&self, books: &mut Books, sequences: &[(u64, u64, usize)]) {
        let mut candidates = Vec::with_capacity(sequences.len());
        for &(_, id, choice) in sequences {
            let looked = books.choice(id, choice).and_then(|(choice, rules, tokens)| {
                let room = choice.room(rules);
                let guesser = choice.guesser.as_mut()?;
                guesser.look(tokens, room);
                Some((guesser.chance(), guesser.guesses().len()))
            });
            candidates.push(looked.unwrap_or((0.0, 0)));
        }
        let lengths = choose(&self.costs, sequences.len(), &candidates, self.max_guesses);
        for (&(seq, id, choice), len) in sequences.iter().zip(lengths) {
            set_draft(books, seq, id, choice, len);
        }
    }

    fn guess_with_model(&mut self, books: &mut Books, sequences: &[(u64, u64, usize)]) -> Result<()> {
        let Some(drafter) = &mut self.drafter else { return Ok(()) };
        let chosen = &sequences[..sequences.len().min(MOST_SEQUENCES)];
        let chance = |books: &mut Books, (_, id, choice)| {
            let found =
                books.choice(id, choice).and_then(|(choice, ..)| Some(choice.guesser.as_ref()?.chance()));
            found.unwrap_or(0.0)
        };
        let chances: Vec<f64> = chosen.iter().map(|&s| chance(books, s)).collect();
        let most = MOST_GUESSES.min(self.max_guesses / chosen.len());
        let mut num = match drafter.turn_seconds() {
            None => TRIED.min(most),
            Some(turn) => choose_even(&self.costs, sequences.len(), &chances, most, turn),
        };
        if num > 0 {
            self.rest = REST.0;
        } else if self.resting > 0 {
            self.resting -= 1;
            return Ok(());
        } else {
            num = TRIED.min(most);
            self.resting = self.rest;
            self.rest = (2 * self.rest).min(REST.1);
        }
        let rooms: Vec<usize> = chosen
            .iter()
            .map(|&(_, id, choice)| {
                books.choice(id, choice).map_or(0, |(choice, rules, _)| choice.room(rules))
            })
            .collect();
        let (scheduler, mut drawing) = books.drawing();
        let mut wanted: Vec<Wanted<'_>> = chosen
            .iter()
            .zip(&rooms)
            .map(|(&(seq, ..), &room)| Wanted {
                seq,
                tokens: scheduler.tokens(seq),
                num: num.min(room),
                guesses: Vec::new(),
            })
            .collect();
        drafter.guess(&mut wanted, &mut |i, logits, ahead| {
            let (_, id, choice) = chosen[i];
            drawing.guess(id, choice, logits, ahead)
        })?;
        let guesses: Vec<Vec<u32>> = wanted.into_iter().map(|w| w.guesses).collect();
        for (&(seq, id, choice), guesses) in chosen.iter().zip(&guesses) {
            if let Some((choice, ..)) = books.choice(id, choice)
                && let Some(guesser) = &mut choice.guesser
            {
                guesser.tell(guesses);
            }
            set_draft(books, seq, id, choice, guesses.len());
        }
        Ok(())
    }
}

/// Has the next step compute the first `len` guesses of a choice.
fn set_draft(books: &mut Books, seq: u64, id: u64, choice: usize, len: usize) {
    let draft = books.choice(id, choice).and_then(|(choice, ..)| {
        let guesses = choice.guesser.as_ref()?.guesses();
        Some(guesses[..len.min(guesses.len())].to_vec())
    });
    if let Some(draft) = draft.filter(|d| !d.is_empty()) {
        books.scheduler.set_draft(seq, &draft);
    }
}

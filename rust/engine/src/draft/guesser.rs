//! One answer's guesses, and how good they have been.

use super::MOST_GUESSES;
use super::ngram::NgramIndex;
use super::payoff::HitRate;

/// Lengths of agreement from which guesses count as surer, each kind with a hit rate of its own, and
/// the rate that is expected before anything was seen.
const KINDS: [(usize, f64); 4] = [(0, 0.15), (3, 0.3), (5, 0.5), (9, 0.7)];

/// What an answer is expected to say next.
///
/// Guesses that were not computed are checked too, against the token that was drawn, so that their rate
/// is known while they are left out.
#[derive(Debug)]
pub(crate) struct Guesser {
    /// Where they come from the text.
    index: Option<NgramIndex>,
    rates: [HitRate; KINDS.len()],
    kind: usize,
    guesses: Vec<u32>,
}

impl Guesser {
    /// A guesser from the text so far.
    pub(crate) fn from_text() -> Self {
        Self {
            index: Some(NgramIndex::default()),
            rates: KINDS.map(|(_, expected)| HitRate::expecting(expected)),
            kind: 0,
            guesses: Vec::new(),
        }
    }

    /// One that is told its guesses.
    pub(crate) fn told() -> Self {
        Self { index: None, rates: [HitRate::expecting(0.7); KINDS.len()], kind: 0, guesses: Vec::new() }
    }

    /// Guesses at most `room` tokens behind `tokens`.
    pub(crate) fn look(&mut self, tokens: &[u32], room: usize) {
        let Some(index) = &mut self.index else { return };
        index.extend(tokens);
        let agreement = index.guess(tokens, room.min(MOST_GUESSES), &mut self.guesses);
        self.kind = KINDS.iter().rposition(|(least, _)| agreement >= *least).unwrap_or(0);
    }

    /// Takes somebody else's guesses.
    pub(crate) fn tell(&mut self, guesses: &[u32]) {
        self.guesses.clear();
        self.guesses.extend_from_slice(guesses);
    }

    pub(crate) fn guesses(&self) -> &[u32] {
        &self.guesses
    }

    /// The chance that a guess is right where those before it are.
    pub(crate) fn chance(&self) -> f64 {
        self.rates[self.kind].chance()
    }

    /// Checks guess `i`, all before it having been right; `token` was drawn in its place.
    pub(crate) fn check(&mut self, i: usize, token: u32) -> bool {
        let Some(&guess) = self.guesses.get(i) else { return false };
        self.rates[self.kind].note(guess == token);
        guess == token
    }
}

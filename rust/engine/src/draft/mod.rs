//! Speculative decoding: guesses at the tokens to come, computed beside the one that is certain.
//!
//! A step that reads all weights for one row costs little more for a few rows. So what a sequence is
//! likely to say next is put behind its last token, and the logits of all these rows come from one step
//! (Leviathan et al., arXiv 2211.17192). They are checked exactly: row by row, the token is drawn as it
//! would be without any guess, from the same logits and the same number of the request's random stream,
//! and the first that differs from the guess ends the run. A guess decides only how many steps the
//! same tokens take, so the distribution, and with a seed every token, is what it is without.
//!
//! Guesses come from the text itself ([`ngram`]) or from a smaller model ([`model`]). [`payoff`] weighs
//! what they bring against what their rows cost, both as they were seen, and leaves them out where they
//! do not pay.

pub(crate) mod guesser;
pub(crate) mod model;
pub(crate) mod ngram;
pub(crate) mod payoff;

use alloyforge_interfaces::Model;

/// Most guesses for one sequence in one step.
pub(crate) const MOST_GUESSES: usize = 12;

/// Where guesses come from.
#[derive(Default)]
pub enum Draft {
    /// Nowhere: a token a step.
    #[default]
    Off,
    /// From the text so far: what followed the last time that it ended as it does now.
    Ngram,
    /// From a smaller model with the same tokens.
    Model(Box<dyn Model>),
}

//! The tokens that penalties look back on.

use std::collections::HashMap;

/// A request's tokens so far, with their counts kept as they come.
#[derive(Debug, Clone, Default)]
pub struct TokenHistory {
    tokens: Vec<u32>,
    prompt_len: usize,
    counts: HashMap<u32, Counts>,
}

/// How often a token was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// In the answer.
    pub answer: u32,
}

impl TokenHistory {
    /// A history that begins with `prompt`.
    pub fn new(prompt: &[u32]) -> Self {
        let counts = prompt.iter().map(|&t| (t, Counts::default())).collect();
        Self { tokens: prompt.to_vec(), prompt_len: prompt.len(), counts }
    }

    /// Adds a token of the answer.
    pub fn push(&mut self, token: u32) {
        self.tokens.push(token);
        self.counts.entry(token).or_default().answer += 1;
    }

    /// Prompt and answer.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The answer alone.
    pub fn answer(&self) -> &[u32] {
        self.tokens.get(self.prompt_len..).unwrap_or_default()
    }

    /// Every distinct token with its counts, in no order.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u32, Counts)> + '_ {
        self.counts.iter().map(|(&t, &c)| (t, c))
    }
}

//! One engine step: a ragged batch of sequences.

use std::ops::Range;
use std::sync::Arc;

/// The number of a block in its KV group's pool.
pub type BlockId = u32;

/// A place in a block table whose block was given back, behind a sliding window.
pub const NO_BLOCK: BlockId = u32::MAX;

/// Rows of hidden width that stand in place of token embeddings: a picture, a sound.
#[derive(Debug, Clone)]
pub struct EmbedSpan {
    /// The batch row of the first replaced token.
    pub first_row: usize,
    /// Values of shape `[n, hidden]`, shared by all steps that a long span is spread over.
    pub values: Arc<[f32]>,
    /// The rows of `values` that this step takes.
    pub rows: Range<usize>,
    /// For each of the first layers, values of the same shape, of which the same rows are added to the
    /// residual stream behind the layer (DeepStack).
    pub deeper: Vec<Arc<[f32]>>,
}

/// A token to be drawn on the device from one row of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenDraw {
    /// Which of the rows whose logits are asked for.
    pub row: usize,
    /// What logits are divided by; 0: the highest one's token, the lowest id among equals.
    pub temperature: f32,
    /// A number in `[0, 1)`: the token is the one into whose share of the weights, tokens in ascending
    /// order, it falls.
    pub number: f64,
}

/// What a draw gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawnToken {
    /// A token.
    Token(u32),
    /// Nothing: a logit is NaN.
    NotNumbers,
    /// Nothing: no logit is above negative infinity.
    NoToken,
}

/// One sequence's part of a step.
#[derive(Debug, Clone, Default)]
pub struct SequenceStep {
    /// Rows of this sequence in the step: 1 when decoding, more in prefill.
    pub num_rows: usize,
    /// The index of the first row in its sequence, which is the count of tokens cached before it.
    pub start: usize,
    /// The length that rotary embeddings which depend on length see at the least: the token at
    /// index `i` is turned by the table for `max(rope_len, i + 1)` tokens. It is the prompt's length,
    /// whatever chunks the prompt comes in.
    pub rope_len: usize,
    /// A block table for each KV group: entry `i` holds tokens `i * BLOCK_LEN ..`. It covers
    /// `start + num_rows` tokens; entries behind a window may be [`NO_BLOCK`].
    pub tables: Vec<Vec<BlockId>>,
    /// For each row, one past the last index that it attends to; empty: causal (its own index + 1).
    /// Tokens of a picture that see each other (Gemma 3) have a larger one. Never past
    /// `start + num_rows`.
    pub attend_end: Vec<usize>,
    /// The slot whose encoder states the sequence attends to, where the model has cross attention.
    /// Neighbouring sequences of one slot read it together.
    pub states: Option<usize>,
    /// For each row, its rotary position in time, height and width; empty: its index, three times.
    pub rope_positions: Vec<[u32; 3]>,
}

/// Everything that a forward pass is told. Rows stand sequence after sequence.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// One token a row.
    pub tokens: Vec<u32>,
    /// The sequences, in the order of their rows; no sequence occurs twice.
    pub sequences: Vec<SequenceStep>,
    /// The rows whose logits are asked for, ascending.
    pub logit_rows: Vec<usize>,
    /// Rows that are not token embeddings; disjoint.
    pub embeds: Vec<EmbedSpan>,
    /// Heads of cross attention, `(layer, head)`, whose probabilities are kept for every row.
    pub watched_heads: Vec<(usize, usize)>,
}

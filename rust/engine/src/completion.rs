//! What a request gives back.

use alloyforge_types::Error;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// An end token or a stop text.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// The answer calls tools.
    ToolCalls,
    /// The caller cancelled it.
    Cancelled,
}

impl FinishReason {
    /// The name as the public API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A token with its log probability under the model's own distribution, before any change that
/// sampling makes.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Its natural log probability.
    pub logprob: f32,
    /// The most probable tokens with theirs, best first, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Tokens counted for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were found in the prefix cache.
    pub cached_tokens: usize,
    /// Tokens of all answers together.
    pub completion_tokens: usize,
    /// Tokens that were guessed and computed beside those before them.
    pub drafted_tokens: usize,
    /// Those of them that turned out right: so many steps were saved.
    pub accepted_tokens: usize,
}

/// Where a request's time went, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// From submission until the first step that served it.
    pub queue: f64,
    /// From then until the first token.
    pub prefill: f64,
    /// From the first token until the end.
    pub decode: f64,
    /// From submission until the first token; 0 where there was none.
    pub first_token: f64,
}

/// One whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Which of the request's `n` answers.
    pub choice: usize,
    /// Its tokens as the model gave them, the one that ended it included.
    pub tokens: Vec<u32>,
    /// Its text: no special tokens, nothing from a stop text on.
    pub text: String,
    /// One entry a token, where log probabilities were asked for.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// A request's end result.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The answers, in order.
    pub choices: Vec<Completion>,
    /// Tokens counted.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
}

/// New text of one answer. A choice's chunks join exactly to its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Which of the request's `n` answers.
    pub choice: usize,
    /// Whole characters only; empty at most in a choice's last chunk.
    pub text: String,
    /// The tokens since the last chunk.
    pub tokens: Vec<u32>,
    /// One entry for each of `tokens`, where log probabilities were asked for.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// Set in a choice's last chunk.
    pub finish_reason: Option<FinishReason>,
}

/// What a request's handle receives: any number of chunks, then one of the other two.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// New text; only where the request streams.
    Chunk(Chunk),
    /// The end result, a cancelled request's too.
    Finished(Box<Output>),
    /// The request failed.
    Failed(Error),
}

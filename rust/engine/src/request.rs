//! What a caller asks the engine for.

use alloyforge_types::{Priority, SamplingParams};

use crate::{Constraint, ConversationId, Fault, MediaPrompt};

/// Text generation from a prompt of tokens.
///
/// Nothing here is a default of some model: [`Session::request`](crate::Session::request) gives a
/// request that the model's own generation settings have spoken in.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The prompt's token ids. Empty: the model's BOS token alone, where it has one.
    pub prompt: Vec<u32>,
    /// The media in it, put together with it by
    /// [`Session::media_prompt`](crate::Session::media_prompt).
    pub media: Option<MediaPrompt>,
    /// Most tokens of an answer; `None`: up to the end of the context.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// The form that every answer keeps to. An answer that is complete ends, and the model's own end tokens
    /// end it where it may be over, whether they are ignored or not.
    pub constraint: Option<Constraint>,
    /// Texts that end the answer; the answer stands before them.
    pub stop: Vec<String>,
    /// Tokens that end the answer beside the model's own, also where those are ignored.
    pub stop_tokens: Vec<u32>,
    /// Whether the model's own end tokens are ordinary ones.
    pub ignore_eos: bool,
    /// How many alternatives come with each token's log probability; `None`: no log probabilities.
    pub logprobs: Option<usize>,
    /// Answers to the one prompt, each with its own random stream.
    pub n: usize,
    /// Who goes first.
    pub priority: Priority,
    /// Seconds from submission within which the request must be over.
    pub timeout: Option<f64>,
    /// Whether text is delivered while it is written ([`Event::Chunk`](crate::Event::Chunk)), or only
    /// the end result.
    pub stream: bool,
    /// Whether special tokens give the answer their text, but those that end it.
    pub special_text: bool,
    /// The conversation that keeps the blocks of prompt and first answer.
    pub conversation: Option<ConversationId>,
    /// Where a test wants it to panic.
    pub fault: Fault,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            prompt: Vec::new(),
            media: None,
            max_tokens: None,
            sampling: SamplingParams::default(),
            constraint: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            n: 1,
            priority: Priority::Normal,
            timeout: None,
            stream: true,
            special_text: false,
            conversation: None,
            fault: Fault::default(),
        }
    }
}

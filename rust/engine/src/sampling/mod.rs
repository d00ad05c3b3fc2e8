//! From logits to a token.
//!
//! A [`Sampler`] belongs to one request. It applies the stages in the order that
//! [`SamplingParams`](alloyforge_types::SamplingParams) states and draws from a counter-based random
//! stream (`stream`), so that draw `i` depends on the seed and on `i` alone: a request that was
//! interrupted and computed again draws the same tokens, whoever else is in the batch.
//!
//! A vocabulary has up to 262,144 entries and most stages keep few of them, so no stage sorts it
//! whole: `candidates` orders only as long a head as a stage asks for.

mod breakers;
mod candidates;
mod dry;
mod history;
mod logprobs;
mod sampler;
mod scan;
mod stream;
mod truncate;
mod validate;

pub use history::TokenHistory;
pub use logprobs::{Normaliser, TopLogprob};
pub(crate) use sampler::token_of;
pub use sampler::{Distribution, Drawn, Sampler};
pub(crate) use stream::derive_seed;

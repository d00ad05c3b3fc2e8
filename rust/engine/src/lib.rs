//! Scheduler, KV cache, sampler and session: many requests on one model at once.
//!
//! A key decision: one thread owns the model and everything that changes while requests run, and
//! callers reach it through a channel. There is no lock that two threads could take in a different
//! order, nothing is borrowed twice, and what a request gives depends on the request alone: its tokens
//! are computed row by row from its own sequence, and drawn from its own random stream.
//!
//! A second one: [`scheduler`] knows neither threads nor clocks nor models. It is a state machine that
//! can be tried with thousands of arrivals in a second, and it takes all blocks of the KV cache that a
//! step needs before the step begins, so that no step can run out of memory.
//!
//! A request's way: [`Session`] (text to tokens, checks) → [`Engine`] (the queue) → the owner thread
//! (plan, [`forward`](alloyforge_interfaces::Model::forward), draw, deliver) → [`Handle`] (events).
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod chat;
mod command;
mod completion;
mod constraint;
mod conversation;
mod defaults;
mod draft;
mod embedding;
mod engine;
mod faults;
mod handle;
mod job;
pub mod kv;
mod media;
mod options;
mod owner;
mod probe;
mod request;
pub mod sampling;
pub mod scheduler;
mod session;
mod stats;
mod text;

pub use chat::ChatRequest;
pub use completion::{Chunk, Completion, Event, FinishReason, Output, Timings, TokenLogprob, Usage};
pub use constraint::Constraint;
pub use conversation::{Conversation, ConversationId};
pub use draft::Draft;
pub use embedding::{Comparison, EmbeddingParts, EmbeddingSession, Embeddings, Ranking, Scores};
pub use engine::{Engine, ModelFacts};
pub use faults::{Fault, FaultPoint};
pub use handle::{Handle, Waker};
pub use media::{MediaModel, MediaPrompt, SequenceMedia, media_item};
pub use options::EngineOptions;
pub use probe::{Probe, ProbeKind};
pub use request::Request;
pub use session::{Info, PromptSource, Session, SessionParts};
pub use stats::Stats;

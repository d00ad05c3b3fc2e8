//! From sound to text.
//!
//! A key decision: both halves of a speech model are [`Model`](alloyforge_interfaces::Model)s, run on the
//! same phases as text, so that a decoder's windows and beams are rows of one ragged batch. This room adds
//! what is speech's own: the log-mel [spectrum](mel), the [encoder]'s convolutions, the
//! [rules] that a step's logits obey, [decoding](decode) by sampling or beams, the walk over long
//! audio ([`Transcriber`]), the [alignment](align) of words, and [voice activity](vad). It runs beside the
//! engine rather than on it: windows are short, bounded and started together, so a queue, a prefix cache
//! and preemption have nothing to do.

pub mod align;
mod blocks;
mod clips;
pub mod decode;
pub mod encoder;
pub mod flac;
mod hearing;
mod linear;
mod logits;
pub mod mel;
mod options;
pub mod resample;
pub mod rules;
mod segments;
mod stem;
mod transcriber;
mod transcript;
pub mod vad;
mod vocabulary;
mod words;

pub use encoder::{AudioEncoder, EncoderParts};
pub use hearing::SoundEncoder;
pub use options::Options;
pub use transcriber::{SpeechParts, Transcriber};
pub use transcript::{Event, Segment, Transcript, Word};
pub use vocabulary::Vocabulary;

/// Samples a second.
pub const SAMPLE_RATE: usize = 16_000;

/// Samples from one frame of the spectrum to the next.
pub const HOP: usize = 160;

/// Frames a second.
pub const FRAMES_PER_SECOND: usize = SAMPLE_RATE / HOP;

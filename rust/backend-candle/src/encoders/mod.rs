//! Encoders of pictures and texts.
//!
//! As the decoder, an encoder is data ([`VisionSpec`](alloyforge_types::VisionSpec),
//! [`TextSpec`](alloyforge_types::TextSpec)) run by one pass: `patches` makes rows of pixels, `tower`
//! is the blocks that all of them share, `head` makes rows for a decoder or an embedding of what comes
//! out. Weights are asked for by names of this room's own, after llama.cpp's, so that no file's names
//! are known here: `patch_embd`, `position_embd`, `blk.N.attn_q`, `mm.1` …, each with `.weight` and
//! `.bias`.
//!
//! Everything is computed in f32, on the CPU with norms, activations and softmax of our own, because
//! Candle's run on one core.

mod head;
mod ops;
mod patches;
mod text;
mod tower;
mod vision;
mod weights;

pub use text::CandleTextEncoder;
pub use vision::CandleVisionEncoder;

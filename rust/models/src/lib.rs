//! The one decoder and the families it serves.
//!
//! A key design decision: a family is data. Its file under `families/` translates a configuration,
//! `config.json` or GGUF metadata, into a [`ModelSpec`](alloyforge_types::ModelSpec) and says what the
//! weights are called; [`Decoder`] runs any spec on any [`Backend`](alloyforge_interfaces::Backend)
//! and asks nobody for a name. What a file says and nobody here understands is an error, never a
//! default, because a model that is computed slightly wrong still writes fluent text.
//!
//! [`resolve`] is the way in.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod batch_check;
mod config;
mod decoder;
mod describe;
mod families;
mod media;
mod resolve;
mod weights;
mod whisper;

pub use config::Config;
pub use decoder::Decoder;
pub use describe::{Description, TypeShare, describe};
pub use media::{
    BackendLayers, Comparison, DecoderEmbedder, Embedder, EmbedderLimits, Hearing, Ranking, SentenceSettings,
    Vision, VisionTask, last_norm, resolve_embedder, resolve_hearing, resolve_projector,
    resolve_sound_projector, resolve_vision,
};
pub use resolve::{Resolved, resolve};
pub use whisper::{AudioTower, Whisper, audio_tower, is_whisper, resolve_whisper};

/// The format of most of the numbers in `store`, or how `config` says that they are quantised.
pub fn file_type(config: &serde_json::Value, store: &dyn alloyforge_interfaces::TensorStore) -> String {
    describe::file_type(Config::HuggingFace(config), store)
}

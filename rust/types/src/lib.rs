//! Plain data that every room of AlloyForge shares, and the one error type.
//!
//! Nothing here reads a file, owns a tensor or runs on a device. A type that two rooms exchange is
//! defined once, in this crate, so that the arrows between rooms point one way: implementations use
//! `interfaces`, `interfaces` use `types`, and `types` use nobody.
//!
//! The centre is [`ModelSpec`]: a decoder described layer by layer on independent axes, each an enum
//! or a number. A family is a translation from its configuration file into that description; no
//! forward pass ever asks which family it runs.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod batch;
mod dtype;
mod encoder;
mod error;
mod inventory;
mod media;
mod metadata;
mod quant_mix;
mod role;
mod rope;
mod sampling;
mod sound;
mod spec;
mod tensor;

pub use batch::{Batch, BlockId, DrawnToken, EmbedSpan, NO_BLOCK, SequenceStep, TokenDraw};
pub use dtype::{BLOCK_LEN, DType, KvType, QuantType};
pub use encoder::{
    EncoderActivation, EncoderNorm, GridPositions, GridRope, HeadThen, Pooling, TextHead, TextSpec,
    TileLayout, TowerSpec, VisionHead, VisionSpec,
};
pub use error::{Error, ErrorKind, Result};
pub use media::{MediaItem, MediaKind, MediaPositions, MediaRows, MediaSpan, MediaTensor, PromptPiece};
pub use metadata::{MetaArray, MetaValue, Metadata};
pub use quant_mix::{MatrixKind, MatrixPlace, QuantMix};
pub use role::{ExpertRole, LayerRole, Role};
pub use rope::{RopeLayout, RopeScaling, RopeSections, RopeSpec, RopeTable};
pub use sampling::{DryBreaker, DryParams, Mirostat, Priority, SamplingParams, XtcParams};
pub use sound::{SOUND_HOP, SOUND_RATE, SoundHead, SoundPiece, SoundPieces, SoundSpec};
pub use spec::{
    Activation, AttentionSpec, CrossSpec, KvGroup, LayerSpec, MlpSpec, ModelSpec, MoeSpec, NormKind,
    NormPlacement, QkNorm, RouterOrder,
};
pub use tensor::{ByteView, TensorView, Weight};

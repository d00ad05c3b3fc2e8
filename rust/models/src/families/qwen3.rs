//! Qwen3: Qwen2 without biases, with a norm on each head's query and key.

use alloyforge_types::{QkNorm, Result};

use super::Draft;
use super::dense::{Bias, Dense};
use super::qwen2::place_windows;
use crate::config::Reader;

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let bias = Bias::Configured { default: false };
    let dense = Dense {
        head_dim: Some(128),
        context_len: 32_768,
        qk_norm: QkNorm::PerHead,
        qkv_bias: bias,
        o_bias: bias,
        ..Dense::default()
    };
    let mut draft = dense.build(c)?;
    place_windows(c, &mut draft)?;
    Ok(draft)
}

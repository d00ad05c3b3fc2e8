//! Kernels of our own on a GPU, in place of several of Candle's or where Candle has none.
//!
//! Each has a plain way beside it in the rest of this crate, which gives the same numbers but for
//! rounding and is taken where a kernel does not fit: another width of heads, rows that are no multiple
//! of what a thread reads at once. What a kernel is told is checked here or comes from a checked step: it
//! would read past the end instead of failing.

mod plan;

#[cfg_attr(feature = "flash-attn", path = "enabled.rs")]
#[cfg_attr(not(feature = "flash-attn"), path = "disabled.rs")]
#[allow(unsafe_code, reason = "launches of kernels; its first lines say why they are sound")]
mod kernels;

use alloyforge_types::{AttentionSpec, RopeLayout};
use candle_core::{DType, Tensor};

pub(crate) use kernels::Fused;
pub(crate) use plan::Plan;

use crate::words::Words;

/// What a block adds to the residual stream, and the norm before the next block.
#[derive(Debug)]
#[cfg_attr(not(feature = "flash-attn"), allow(dead_code, reason = "read by the kernels alone"))]
pub(crate) struct AddNorm<'a> {
    /// f32 `[rows, hidden]`, changed in place where something is added.
    pub(crate) residual: &'a Tensor,
    /// `[rows, hidden]` of type `out`.
    pub(crate) added: Option<&'a Tensor>,
    /// The weight of the norm on what is added.
    pub(crate) post: Option<&'a Tensor>,
    /// The factor on what is added.
    pub(crate) scale: f32,
    /// The weight of the norm of the sum, and its type.
    pub(crate) weight: Option<&'a Tensor>,
    pub(crate) out: DType,
    pub(crate) eps: f32,
}

/// The products of q, k and v on their way to attention and into the cache.
#[derive(Debug)]
#[cfg_attr(not(feature = "flash-attn"), allow(dead_code, reason = "read by the kernels alone"))]
pub(crate) struct Vectors<'a> {
    pub(crate) spec: &'a AttentionSpec,
    /// `[rows, heads * head_dim]` and `[rows, kv_heads * head_dim]`, of one type.
    pub(crate) products: [&'a Tensor; 3],
    pub(crate) biases: [Option<&'a Tensor>; 3],
    /// Weights of the norms on each head of q and k.
    pub(crate) norms: [Option<&'a Tensor>; 2],
    pub(crate) turn: Option<Turned<'a>>,
    pub(crate) eps: f32,
    /// The pools, and the slot of each row.
    pub(crate) keys: &'a Tensor,
    pub(crate) values: &'a Tensor,
    pub(crate) slots: &'a Tensor,
}

/// A rotary embedding: tables `[angles, dim / 2]` and the row of them that turns each row.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "flash-attn"), allow(dead_code, reason = "read by the kernels alone"))]
pub(crate) struct Turned<'a> {
    pub(crate) cos: &'a Tensor,
    pub(crate) sin: &'a Tensor,
    pub(crate) angles: &'a Tensor,
    pub(crate) dim: usize,
    pub(crate) layout: RopeLayout,
}

/// One layer's attention.
#[derive(Debug)]
#[cfg_attr(not(feature = "flash-attn"), allow(dead_code, reason = "read by the kernels alone"))]
pub(crate) struct Attend<'a> {
    pub(crate) spec: &'a AttentionSpec,
    pub(crate) group: usize,
    /// `[rows, heads, head_dim]` of the cache's type.
    pub(crate) queries: &'a Tensor,
    pub(crate) keys: &'a Tensor,
    pub(crate) values: &'a Tensor,
    /// f32, one a head.
    pub(crate) sinks: Option<&'a Tensor>,
    pub(crate) out: DType,
}

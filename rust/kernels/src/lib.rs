//! Arithmetic on slices: block types, products, attention, norms, and the threads that run them.
//!
//! A key decision: nothing here knows a model. A kernel takes slices and numbers, works on one
//! thread, allocates nothing and is told which instruction set it may use by a value that only
//! detection can make ([`isa::Isa`]); who calls it cuts the work into pieces and hands them to the
//! [`pool::Pool`]. So a faster kernel replaces a plain one without a caller noticing.
//!
//! Results are reproducible by construction. Every sum has one order that follows from its own
//! length alone: a number of a product is one chain of fused multiply-adds in a lane of its own, other sums
//! are sixteen lanes, each adding every sixteenth term, folded in halves at the end ([`isa::Simd`]). Neither the tile that a number is computed in, nor the other
//! rows of the batch, nor the count of threads enters, and AVX2 and AVX-512 agree bit for bit.
//!
//! Beside each kernel stands a naive form in [`mod@reference`], which the tests hold it against.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

pub mod activation;
pub mod attention;
mod cgroup;
pub mod convert;
#[cfg_attr(feature = "flash-attn", path = "cuda/enabled.rs")]
#[cfg_attr(not(feature = "flash-attn"), path = "cuda/disabled.rs")]
pub mod cuda;
pub mod dequant;
pub mod disjoint;
pub mod grid;
pub mod isa;
mod lanes;
mod math;
pub mod matrix;
pub mod memory;
pub mod norm;
pub mod packed;
pub mod plane;
pub mod pool;
pub mod product;
pub mod quantize;
pub mod reference;
pub mod rope;
pub mod router;
pub mod scale;
pub mod scan;
pub mod topology;

//! The native CPU backend: a decoder's phases over kernels of our own.
//!
//! A key decision: everything that a step needs is taken when the model is loaded. Weights are copied
//! from the mapped file in the form that the kernels read, as compact as the file has them; one
//! workspace holds what passes between phases, sized by [`LoadOptions::max_rows`]; one pool of threads
//! runs every phase. A step then takes no memory and starts no thread, and a phase is a few jobs of the
//! pool:
//!
//! | phase | jobs |
//! | --- | --- |
//! | `qkv` | norm by rows; three products by weight rows; norm, turn and cache by block and head |
//! | `attend` | one, by tiles of rows and key heads |
//! | `output` | product and residual by weight rows (and one more for a norm after) |
//! | `cross` | norm by rows; queries by weight rows; attention by tiles and heads; product and residual |
//! | `mlp` | norm by rows; gate, up and activation by weight rows; down and residual by weight rows |
//!
//! With experts, tokens are sorted by expert first, so that each expert's weights are read once a step
//! however many tokens chose it.
//!
//! The cache keeps whole blocks one after the other, each with the planes of all layers of its KV group
//! (see [`plane`](alloyforge_kernels::plane)), so that copying or storing a block is one copy of memory.
//!
//! What a row comes to depends on its own sequence alone, bit for bit: every sum in the kernels has an
//! order that follows from the model's widths or from places in the sequence, never from the batch,
//! from the chunks of a prefill or from which thread came first. `tests/reproducible.rs` holds it to
//! that.
//!
//! [`LoadOptions::max_rows`]: alloyforge_interfaces::LoadOptions::max_rows
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod backend;
mod cache;
mod check;
mod layer;
mod loader;
mod phases;
mod rope;
mod states;
mod step;
mod workspace;

pub use backend::CpuBackend;

//! Model files as bytes: GGUF, safetensors, and the folders that Hugging Face publishes.
//!
//! A key decision: nothing here decodes a number. A file is memory-mapped, its header is checked once,
//! whole, when it is opened, and from then on a tensor is a borrowed slice with a type and a shape;
//! what the numbers mean belongs to the kernels, what they are for to the models. Weights are
//! therefore never copied on the way to a backend, and a page that nobody asks for is never read.
//!
//! Files come from strangers. Every count, size, offset and string length is compared with what the
//! file holds before memory is taken or a byte is read, nesting is bounded, and what does not add up is
//! an [`Error::Format`](alloyforge_types::Error::Format) that names file, item and place. Code after
//! `open` may rely on it: every slice that a store hands out lies inside its file and has exactly the
//! length of its shape.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![deny(unsafe_code)]

pub mod ct2;
pub mod gguf;
pub mod hf;
mod json;
mod mapped;
mod names;
pub mod safetensors;

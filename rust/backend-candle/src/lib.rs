//! The Candle backend: a decoder's phases on any device that Candle drives.
//!
//! One forward pass over [`ModelSpec`](alloyforge_types::ModelSpec) serves every device. A key
//! decision: on the CPU it is the numerical oracle. Weights are widened to f32 and activations stay
//! f32 throughout, where the fast kernels of Candle (and of most engines) round activations to eight
//! bits; what the native backend computes can so be held against something nearer to the exact
//! answer. On a GPU the same code keeps f16, bf16 and ggml blocks as they are and leaves the products
//! to cuBLAS and to Candle's quantised kernels.
//!
//! The rules that keep it small:
//!
//! - no Candle type in a public signature;
//! - no branch on a model's family: every axis of the spec is a field, read where it matters;
//! - what depends on the build (`cuda`, `metal`) is a pair of files with the same signatures,
//!   chosen in `device`;
//! - indices that reach a device are checked on the host first, because a kernel would read past the
//!   end instead of failing;
//! - unsafe code stands in two files alone, each with its reasons: the opening of a CUDA device and the
//!   launches of our own kernels.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![deny(unsafe_code)]

mod activation;
mod attention;
mod backend;
mod cache;
mod check;
mod convert;
mod device;
mod encoders;
mod experts;
mod fault;
mod formats;
mod fused;
mod host;
mod layer;
mod loader;
mod matrix;
mod norm;
mod plan;
mod quantize;
mod rope;
mod stack;
mod states;
mod step;
mod threads;
mod words;

pub use backend::CandleBackend;
pub use device::{DeviceInfo, device_faults, devices, features, seek_cuda_in};
pub use encoders::{CandleTextEncoder, CandleVisionEncoder};

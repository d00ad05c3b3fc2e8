//! The CUDA libraries, opened when a GPU is first asked for.
//!
//! A key decision: the module needs none of them to be imported. Candle's bindings can only be linked, and
//! a module that is linked with the driver does not start where there is no driver. So every function that
//! they call is defined here, as one jump through a slot (`trampolines`), and [`open`] opens the real libraries and fills
//! the slots. One wheel then serves every machine, finds the libraries that pip put beside it, and says
//! what is missing instead of failing to start.
//!
//! This is a crate because the linker has to see it before what it stands in for, and because it can be
//! tested without a toolkit, a driver or a GPU: the tests make a driver of their own.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod driver;
mod fault;
mod handle;
mod library;
mod open;
mod trampolines;

pub use driver::Gpu;
pub use fault::Fault;
pub use library::Library;
pub use open::{open, seek_in};

/// The release of CUDA that compiled the kernels, as CUDA writes it: 13000 is 13.0. An older driver does
/// not read their PTX.
pub const KERNELS_RELEASE: u32 = number(env!("CUDA_RELEASE"));

/// The compute capability that the kernels were compiled for: major and minor.
pub const KERNELS_CAPABILITY: (u32, u32) =
    (number(env!("CUDA_CAPABILITY")) / 10, number(env!("CUDA_CAPABILITY")) % 10);

/// A number that the build script wrote, which writes nothing else.
const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => 0,
    }
}

//! GGUF: one file with metadata, a table of tensors and their data; or several, one per shard.
//!
//! Format: `docs/gguf.md` of ggml, versions 2 and 3, little-endian. The two versions differ in nothing
//! that a little-endian reader sees.
//!
//! [`GgufFile`] reads, [`GgufWriter`] writes.

mod cursor;
mod encode;
mod file;
mod header;
mod split;
mod tensors;
mod value;
mod writer;

pub use file::{GgufFile, TensorInfo};
pub use writer::{GgufBody, GgufWriter};

/// The bytes that a file begins with.
const MAGIC: &[u8; 4] = b"GGUF";

/// The key whose value the data section and every tensor in it are aligned to.
const ALIGNMENT_KEY: &str = "general.alignment";

/// The alignment where a file names none.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The largest alignment that is believed; a larger one only moves data past the end of files.
const MAX_ALIGNMENT: u64 = 1 << 24;

/// Most bytes in a metadata key.
const MAX_KEY_LEN: usize = 65535;

/// Most dimensions of a tensor.
const MAX_DIMS: usize = 4;

/// Most bytes in a tensor's name: ggml keeps 64 with a closing zero.
const MAX_NAME_LEN: usize = 63;

/// Numbers of the value types.
mod value_type {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

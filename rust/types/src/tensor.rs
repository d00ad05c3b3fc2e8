//! Tensors as bytes: what a file holds, and what a backend loads.

use std::borrow::Cow;

use crate::QuantType;

/// A tensor as its file has it, borrowed from the mapped file.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorView<'a> {
    /// The stored format.
    pub ty: QuantType,
    /// The shape, outermost dimension first (GGUF stores the reverse): at most 4 dimensions in a GGUF
    /// file, 8 in a safetensors file.
    pub shape: Vec<usize>,
    /// The numbers: `shape` in row-major order, rows packed in blocks of `ty`. The length has been
    /// checked against shape and type.
    pub data: &'a [u8],
}

/// A tensor of unsigned bytes: packed numbers of a layout that the model's family knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteView<'a> {
    /// The shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// As many bytes as the shape says.
    pub data: &'a [u8],
}

/// A weight ready for a backend: a matrix `[rows, cols]` in row-major order, or a vector (one row).
///
/// Row `i` maps the `cols` inputs to output `i`. Borrowed from the mapped file wherever the file
/// stores it so, owned where the family's layout had to be turned.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight<'a> {
    /// The name in the file, for errors.
    pub name: String,
    /// The stored format.
    pub ty: QuantType,
    /// Output features.
    pub rows: usize,
    /// Input features; a multiple of the format's block.
    pub cols: usize,
    /// `rows` rows of `ty.row_bytes(cols)` bytes each.
    pub data: Cow<'a, [u8]>,
}

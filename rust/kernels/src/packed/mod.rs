//! Weights laid out for products of bytes.
//!
//! A key decision: a matrix keeps the codes of its file, as compact as they are there, in tiles of
//! sixteen rows, four columns of each after the other, so that one instruction multiplies four columns
//! of sixteen rows with four activations. Activations become signed bytes with a scale for every 32
//! ([`activations`]), sums of products of bytes are exact integers on every machine, and one fused
//! multiply-add a block turns them into the result. A number is therefore the same sum in the same order
//! whatever else is computed beside it, and the same on every instruction set that fuses.
//!
//! | module | what |
//! | --- | --- |
//! | [`activations`] | numbers into blocks of bytes |
//! | `format` | a file's block types as codes, scales and minima of tiles |
//! | `tile` | where things lie in a tile, packing, and rows back as numbers |
//! | `step` | what one block adds to a sum: the arithmetic that all products share |
//! | `direct` | one row or a few: tiles are decoded as they are read |
//! | `panel` | many rows: some columns of two tiles are decoded once, into the nearest cache |

pub mod activations;
mod codes;
mod direct;
mod format;
mod panel;
mod product;
mod scales;
mod step;
mod tile;

pub(crate) use panel::SCRATCH_LEN;
pub(crate) use product::product;
pub(crate) use tile::Tiles;

/// Columns in a block.
pub(crate) const BLOCK: usize = 32;

/// Weight rows in a tile.
pub(crate) const TILE_ROWS: usize = 16;

/// 64 bytes at the start of a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

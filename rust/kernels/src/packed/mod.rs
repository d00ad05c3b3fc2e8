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
//! | `panel` | blocks of a tile, decoded for many rows |
//! | `step` | what one block adds to a sum: the arithmetic that all products share |
//! | `product` | rows times tiles, in strips that the registers hold |
//!
//! Where registers hold many rows, tiles are decoded anew for every strip of them, whether there is one
//! row or a thousand: a strip of six rows leaves room for that between its products, so that bytes decoded
//! once and kept would only take space in the nearest cache. With strips of four rows, on AVX2, decoding is
//! a fourth of the work, and many rows share a `panel` of what was decoded once.

pub mod activations;
mod codes;
mod format;
mod panel;
mod product;
mod scales;
mod step;
mod tile;

pub(crate) use product::product;
pub(crate) use tile::Tiles;

/// Columns in a block.
pub const BLOCK: usize = 32;

/// Weight rows in a tile.
pub(crate) const TILE_ROWS: usize = 16;

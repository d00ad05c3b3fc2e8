//! Where things lie in a tile; packing; rows back as numbers.
//!
//! A tile has the codes of all its blocks, then their scales, then the scales of every 256 columns,
//! each part from the start of a line. Rows beyond the matrix are zeros.

use std::marker::PhantomData;
use std::ops::Range;

use alloyforge_types::{Error, QuantType, Result};

use super::codes::Codes;
use super::format::{self, Format, with_format};
use super::scales::{Factors, Scales};
use super::{BLOCK, TILE_ROWS};
use crate::disjoint::Disjoint;
use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::memory::Buffer;
use crate::pool::Pool;

/// One chunk of packing writes about this many bytes.
const CHUNK_BYTES: usize = 1 << 18;

/// The lengths of a tile's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    codes: usize,
    scales: usize,
    supers: usize,
}

impl Layout {
    /// Of a tile of `cols` columns.
    fn new<F: Format>(cols: usize) -> Option<Self> {
        let line = |bytes: usize| bytes.checked_next_multiple_of(64);
        let blocks = cols / BLOCK;
        Some(Self {
            codes: blocks.checked_mul(F::Codes::BYTES)?,
            scales: line(blocks.checked_mul(F::Scales::BYTES)?)?,
            supers: line(cols.div_ceil(256).checked_mul(F::Scales::SUPER_BYTES)?)?,
        })
    }

    fn bytes(self) -> Option<usize> {
        self.codes.checked_add(self.scales)?.checked_add(self.supers)
    }
}

/// A matrix in tiles.
#[derive(Debug)]
pub(crate) struct Tiles {
    ty: QuantType,
    rows: usize,
    cols: usize,
    layout: Layout,
    data: Buffer,
}

/// A tile's parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    codes: *const u8,
    scales: *const u8,
    supers: *const u8,
}

// SAFETY: it points into `Tiles`, which nobody writes; those who read say that it is there.
unsafe impl Sync for Tile {}

impl Tile {
    /// The codes of a group of a block.
    ///
    /// # Safety
    /// The tile is there, in format `F`, and has this block and group.
    #[inline(always)]
    pub(super) unsafe fn group<S: Simd, F: Format>(self, s: S, block: usize, group: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        unsafe { F::Codes::group(s, self.codes.add(block * F::Codes::BYTES), group) }
    }

    /// The factors of a block.
    ///
    /// # Safety
    /// As [`group`](Self::group).
    #[inline(always)]
    pub(super) unsafe fn factors<S: Simd, F: Format>(self, s: S, block: usize) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        unsafe {
            let supers = self.supers.add(block / 8 * F::Scales::SUPER_BYTES);
            F::Scales::load(s, self.scales.add(block * F::Scales::BYTES), supers)
        }
    }
}

impl Tiles {
    /// Whether a matrix of type `ty` can be laid out so.
    pub(crate) fn is_known(ty: QuantType) -> bool {
        format::is_known(ty)
    }

    /// Lays out the matrix called `name`. `source` gives some rows as blocks of type `ty`; where it must
    /// make them, it leaves them in the room that it is handed.
    ///
    /// # Errors
    /// `Internal` for a type that is not known or a width that is no whole blocks; `OutOfMemory`; those
    /// of `source`.
    pub(crate) fn pack<'a>(
        pool: &Pool,
        isa: Isa,
        name: &str,
        (rows, cols): (usize, usize),
        ty: QuantType,
        source: impl Fn(Range<usize>, &mut Vec<u8>) -> Result<Option<&'a [u8]>> + Sync,
    ) -> Result<Self> {
        let layout = with_format!(ty, F => Layout::new::<F>(cols), None);
        let tiles = rows.div_ceil(TILE_ROWS);
        let sizes = layout.and_then(|layout| {
            let bytes = layout.bytes()?;
            Some((layout, bytes, bytes.checked_mul(tiles)?, ty.row_bytes(cols)?))
        });
        let Some((layout, tile_bytes, len, row_bytes)) = sizes else {
            return Err(Error::internal(format!("{name}: no tiles of {cols} columns in {}", ty.name())));
        };
        let mut data = Buffer::zeroed(len, name)?;
        let step = (CHUNK_BYTES / tile_bytes.max(1)).max(1);
        let target = Disjoint::new(data.bytes_mut());
        pool.run(tiles.div_ceil(step), |chunk, _| {
            let mut room = Vec::new();
            for tile in chunk * step..tiles.min((chunk + 1) * step) {
                let range = tile * TILE_ROWS..rows.min((tile + 1) * TILE_ROWS);
                let count = range.len();
                let from = source(range, &mut room)?.unwrap_or(&room[..]);
                if from.len() != count * row_bytes {
                    return Err(Error::internal(format!("{name}: {} bytes of rows", from.len())));
                }
                // SAFETY: each tile is one call's alone.
                let target = unsafe { target.part(tile * tile_bytes..(tile + 1) * tile_bytes) };
                with_format!(
                    ty,
                    F => isa.run(PackTile::<F> { from, row_bytes, layout, target, format: PhantomData }),
                    ()
                );
            }
            Ok(())
        })?;
        Ok(Self { ty, rows, cols, layout, data })
    }

    pub(crate) fn ty(&self) -> QuantType {
        self.ty
    }

    /// The size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Blocks of a row.
    pub(crate) fn num_blocks(&self) -> usize {
        self.cols / BLOCK
    }

    /// Tile `index`.
    ///
    /// # Panics
    /// Where there is none.
    pub(crate) fn tile(&self, index: usize) -> Tile {
        let Layout { codes, scales, supers } = self.layout;
        let bytes = codes + scales + supers;
        let tile = &self.data.bytes()[index * bytes..(index + 1) * bytes];
        Tile { codes: tile.as_ptr(), scales: tile[codes..].as_ptr(), supers: tile[codes + scales..].as_ptr() }
    }

    /// Where up to `count` tiles from `index` on begin, and how many bytes they have.
    pub(crate) fn span(&self, index: usize, count: usize) -> (*const u8, usize) {
        let Layout { codes, scales, supers } = self.layout;
        let bytes = codes + scales + supers;
        let rest = self.data.bytes().get(index * bytes..).unwrap_or_default();
        (rest.as_ptr(), rest.len().min(count * bytes))
    }

    /// Writes the rows `range` to `out` as numbers, the very ones that the file's blocks mean.
    ///
    /// # Errors
    /// `Internal` where `out` has another length.
    pub(crate) fn widen_rows(&self, isa: Isa, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        if range.end > self.rows || out.len() != range.len() * self.cols {
            return Err(Error::internal(format!("{} numbers for rows {range:?}", out.len())));
        }
        for (row, out) in range.zip(out.chunks_exact_mut(self.cols)) {
            let tile = self.tile(row / TILE_ROWS);
            let row = row % TILE_ROWS;
            with_format!(self.ty, F => isa.run(WidenRow::<F> { tile, row, out, format: PhantomData }), ());
        }
        Ok(())
    }
}

/// The blocks of up to sixteen rows into a tile of zeros.
struct PackTile<'a, F> {
    from: &'a [u8],
    row_bytes: usize,
    layout: Layout,
    target: &'a mut [u8],
    format: PhantomData<F>,
}

impl<F: Format> Kernel for PackTile<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (codes, scales) = self.target.split_at_mut(self.layout.codes);
        let (scales, supers) = scales.split_at_mut(self.layout.scales);
        let num_parts = F::LEN / BLOCK;
        let mut rows = [[0u8; 256]; TILE_ROWS];
        let mut groups = [[0u8; 64]; 8];
        for (block, codes) in codes.chunks_exact_mut(num_parts * F::Codes::BYTES).enumerate() {
            let scales = &mut scales[block * num_parts * F::Scales::BYTES..];
            let supers = &mut supers[block * F::Scales::SUPER_BYTES..];
            for (row, from) in self.from.chunks_exact(self.row_bytes).enumerate() {
                let from = &from[block * F::BYTES..][..F::BYTES];
                F::codes(from, &mut rows[row]);
                F::scales(from, row, scales, supers);
            }
            for (part, codes) in codes.chunks_exact_mut(F::Codes::BYTES).enumerate() {
                for (row, codes) in rows.iter().enumerate() {
                    for (group, codes) in codes[part * BLOCK..][..BLOCK].as_chunks::<4>().0.iter().enumerate()
                    {
                        groups[group][4 * row..4 * row + 4].copy_from_slice(codes);
                    }
                }
                F::Codes::write(&groups, codes);
            }
        }
    }
}

/// One row of a tile as numbers.
struct WidenRow<'a, F> {
    tile: Tile,
    row: usize,
    out: &'a mut [f32],
    format: PhantomData<F>,
}

impl<F: Format> Kernel for WidenRow<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut bytes = [0u8; 64];
        let mut lanes = [0.0; LANES];
        for (block, out) in self.out.chunks_exact_mut(BLOCK).enumerate() {
            // SAFETY: the tile has as many blocks as the row.
            let factors = unsafe { self.tile.factors::<S, F>(s, block) };
            let (mut scales, mut minima) = ([0.0; 2], [0.0; 2]);
            for half in 0..2 {
                s.store(factors.scales[half], &mut lanes);
                scales[half] = lanes[self.row];
                s.store(factors.minima[half], &mut lanes);
                minima[half] = lanes[self.row];
            }
            for (group, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                // SAFETY: as above.
                s.store_bytes(unsafe { self.tile.group::<S, F>(s, block, group) }, &mut bytes);
                let half = if F::Scales::HAS_HALVES { group / 4 } else { 0 };
                for (out, code) in out.iter_mut().zip(&bytes[4 * self.row..]) {
                    let scaled = (f32::from(*code) - f32::from(F::OFFSET)) * scales[half];
                    *out = if F::Scales::HAS_MINIMA { scaled + minima[half] } else { scaled };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dequant::dequantize;
    use proptest::prelude::*;

    fn known() -> Vec<QuantType> {
        QuantType::ALL.iter().copied().filter(|&ty| Tiles::is_known(ty)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rows_come_back_as_they_were(
            ty in prop::sample::select(known()),
            rows in 1usize..40,
            blocks in 1usize..5,
            threads in 1usize..3,
            seed in any::<u64>(),
        ) {
            let cols = blocks * ty.block_len();
            let row_bytes = ty.row_bytes(cols).expect("whole blocks");
            let mut state = seed | 1;
            let bytes: Vec<u8> = (0..rows * row_bytes)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            let mut want = vec![0.0; rows * cols];
            dequantize(ty, &bytes, &mut want).expect("fits");
            let pool = Pool::new(threads).expect("threads");
            for isa in Isa::available() {
                let tiles = Tiles::pack(&pool, isa, "w", (rows, cols), ty, |range, room| {
                    let rows = &bytes[range.start * row_bytes..range.end * row_bytes];
                    if range.start % 32 == 0 {
                        return Ok(Some(rows));
                    }
                    room.clear();
                    room.extend_from_slice(rows);
                    Ok(None)
                })
                .expect("packs");
                let mut got = vec![0.0; rows * cols];
                tiles.widen_rows(isa, 0..rows, &mut got).expect("fits");
                for (got, want) in got.iter().zip(&want) {
                    let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                    prop_assert!(same, "{} on {}: {got} for {want}", ty.name(), isa.name());
                }
            }
        }
    }

    #[test]
    fn tiles_are_as_compact_as_files() {
        for ty in known() {
            let tiles = Tiles::pack(
                &Pool::new(1).expect("a thread"),
                Isa::detect(),
                "w",
                (16, 2048),
                ty,
                |range, room| {
                    *room = vec![0; range.len() * ty.row_bytes(2048).expect("whole blocks")];
                    Ok(None)
                },
            )
            .expect("packs");
            let file = 16 * ty.row_bytes(2048).expect("whole blocks");
            // six bits of a scale take a byte
            assert!(
                tiles.bytes() as f64 <= file as f64 * 1.04,
                "{}: {} for {file}",
                ty.name(),
                tiles.bytes()
            );
        }
    }
}

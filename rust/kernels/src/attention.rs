//! Softmax attention over a blocked KV cache.
//!
//! One call computes a tile: some consecutive rows of one sequence, all query heads that share one
//! key head. It walks the blocks of the cache from the first visible to the last, widens each once for
//! the whole tile or, for few lines, as it reads it, and keeps a running maximum, sum and weighted sum for each row and head (Milakov and
//! Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135).
//!
//! A long sequence is cut into [`parts`], each summed for itself and joined to those before it, so that
//! threads can share one row's cache ([`attend_part`], [`join`]) and still come to the bits that one
//! thread comes to ([`attend`]). What a row adds up, and in which order, follows from the places of its
//! tokens in the sequence alone: parts and blocks begin at fixed places, and scores stand in the lane of
//! their token's slot.

mod cells;
mod step;

use std::ops::Range;

use alloyforge_types::{BLOCK_LEN, KvType};

use self::cells::{Brain, Bytes, Half, Wide};
use self::step::{Finish, Join, Line, Step};
use crate::convert;
use crate::isa::{Isa, LANES, prefetch};
use crate::plane::{GROUP, PlaneLayout};

/// The fewest rows of a tile that is cut for speed, and the lines that others have about: a block that was
/// fetched should serve enough of them.
const TILE: (usize, usize) = (16, 48);

/// Most rows of one tile, where `group` query heads share a key head.
pub fn tile_rows(group: usize) -> usize {
    (TILE.1 / group.max(1)).max(TILE.0)
}

/// Most parts of a sequence of any length that fits an address space with room to spare.
pub const MAX_PARTS: usize = 256;

/// The shortest part, in tokens.
const PART_LEN: usize = 256;

/// Up to so many lines read a narrow cache as it is; more share a copy in f32.
const FEW_LINES: usize = 12;

/// What all rows of a layer share.
#[derive(Debug, Clone, Copy)]
pub struct HeadSpec {
    /// The cache's layout.
    pub layout: PlaneLayout,
    /// Query heads on one key head.
    pub group: usize,
    /// The factor on query times key.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Tokens that a token sees, itself included.
    pub window: Option<usize>,
}

impl HeadSpec {
    /// [`partial_len`] of its heads.
    pub fn partial_len(&self) -> usize {
        partial_len(self.layout.head_dim)
    }
}

/// Numbers that a row and head of a [partial sum](attend_part) take: the weighted sum in whole vectors,
/// then the sum of the weights lane by lane, then a vector that begins with the greatest score.
pub fn partial_len(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES) + 2 * LANES
}

/// The rows of a tile.
#[derive(Debug, Clone, Copy)]
pub struct QueryTile<'a> {
    /// The queries: row `i`, head `h` of the group from `i * stride + h * head_dim` on.
    pub queries: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
    /// The first row's place in its sequence.
    pub start: usize,
    /// One past the last token that each row sees; as many as there are rows.
    pub ends: &'a [usize],
    /// One more score for each head of the group, without a value.
    pub sinks: Option<&'a [f32]>,
}

impl QueryTile<'_> {
    /// The tokens that row `i` sees.
    fn sees(&self, i: usize, window: Option<usize>) -> Range<usize> {
        let own = self.start + i + 1;
        window.map_or(0, |w| own.saturating_sub(w))..self.ends[i]
    }

    /// The tokens that any row sees.
    pub fn visible(&self, window: Option<usize>) -> Range<usize> {
        let all = (0..self.ends.len()).map(|i| self.sees(i, window));
        let (first, last) =
            all.fold((usize::MAX, 0), |(first, last), seen| (first.min(seen.start), last.max(seen.end)));
        first.min(last)..last
    }
}

/// The parts of a sequence that hold the tokens `visible`, in order. They begin at the same places in
/// every sequence: every 256 tokens, and further on at eighths of powers of two, so that their
/// count grows with the logarithm of the length.
pub fn parts(visible: Range<usize>) -> impl Iterator<Item = Range<usize>> + Clone {
    let after = |start: usize| {
        let eighth = if start < 8 * PART_LEN { PART_LEN } else { 1 << (start.ilog2() - 3) };
        start / eighth * eighth..(start / eighth + 1) * eighth
    };
    let first = (!visible.is_empty()).then(|| after(visible.start));
    std::iter::successors(first, move |part| (part.end < visible.end).then(|| after(part.end)))
}

/// A vector of numbers, so that no load straddles two lines of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Vector([f32; LANES]);

/// What a thread needs for a tile.
#[derive(Debug)]
pub struct Scratch {
    keys: Vec<Vector>,
    values: Vec<Vector>,
    /// The part at hand, and all parts before it.
    partial: Vec<Vector>,
    total: Vec<Vector>,
    lines: Vec<Line>,
}

impl Scratch {
    /// For tiles of heads up to `head_dim` wide, in groups up to `group`.
    pub fn new(head_dim: usize, group: usize) -> Self {
        let room = |numbers: usize| vec![Vector([0.0; LANES]); numbers.div_ceil(LANES)];
        let lines = group * tile_rows(group);
        Self {
            keys: room(head_dim * BLOCK_LEN),
            values: room(head_dim.next_multiple_of(LANES) * BLOCK_LEN),
            partial: room(lines * partial_len(head_dim)),
            total: room(lines * partial_len(head_dim)),
            lines: Vec::with_capacity(lines),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.keys.len() + self.values.len() + self.partial.len() + self.total.len()) * size_of::<Vector>()
            + self.lines.capacity() * size_of::<Line>()
    }
}

/// The numbers of `vectors`.
fn flat(vectors: &mut [Vector]) -> &mut [f32] {
    // SAFETY: a vector is sixteen numbers and nothing else.
    unsafe { std::slice::from_raw_parts_mut(vectors.as_mut_ptr().cast(), vectors.len() * LANES) }
}

/// Computes a tile. `planes(i)` gives the keys and values of the sequence's block `i`; `out(row, head)`
/// takes the result.
///
/// # Panics
/// Where a slice is too short.
pub fn attend<'p>(
    isa: Isa,
    spec: &HeadSpec,
    tile: &QueryTile<'_>,
    planes: impl Fn(usize) -> (&'p [u8], &'p [u8]),
    out: impl FnMut(usize, usize, &[f32]),
    scratch: &mut Scratch,
) {
    let len = tile.ends.len() * spec.group * spec.partial_len();
    let Scratch { keys, values, partial, total, lines } = scratch;
    let (partial, total) = (&mut flat(partial)[..len], &mut flat(total)[..len]);
    let mut rest = parts(tile.visible(spec.window));
    if tile.sinks.is_none()
        && let Some(first) = rest.next()
    {
        // what is joined to nothing is itself
        sum_part(isa, spec, tile, &first, &planes, total, [flat(keys), flat(values)], lines);
    } else {
        begin(spec, tile.sinks, total);
    }
    for part in rest {
        sum_part(isa, spec, tile, &part, &planes, partial, [flat(keys), flat(values)], lines);
        isa.run(Join { spec, total, partial });
    }
    finish(isa, spec, total, out);
}

/// The sums of one of the [`parts`] that hold what the tile sees: for each row, for each head of the
/// group, [`partial_len`](HeadSpec::partial_len) numbers into `partial`, for [`join`].
///
/// # Panics
/// As [`attend`].
pub fn attend_part<'p>(
    isa: Isa,
    spec: &HeadSpec,
    tile: &QueryTile<'_>,
    part: &Range<usize>,
    planes: impl Fn(usize) -> (&'p [u8], &'p [u8]),
    partial: &mut [f32],
    scratch: &mut Scratch,
) {
    let Scratch { keys, values, lines, .. } = scratch;
    sum_part(isa, spec, tile, part, &planes, partial, [flat(keys), flat(values)], lines);
}

/// Computes a tile from its [parts' sums](attend_part), given in the parts' order; `out(row, head)` takes
/// the result.
///
/// # Panics
/// As [`attend`].
pub fn join<'p>(
    isa: Isa,
    spec: &HeadSpec,
    tile: &QueryTile<'_>,
    partials: impl Iterator<Item = &'p [f32]>,
    out: impl FnMut(usize, usize, &[f32]),
    scratch: &mut Scratch,
) {
    let total = &mut flat(&mut scratch.total)[..tile.ends.len() * spec.group * spec.partial_len()];
    begin(spec, tile.sinks, total);
    for partial in partials {
        isa.run(Join { spec, total, partial });
    }
    finish(isa, spec, total, out);
}

/// Sets sums to those of no token, and of the sinks.
fn begin(spec: &HeadSpec, sinks: Option<&[f32]>, sums: &mut [f32]) {
    let len = spec.partial_len();
    for (i, sums) in sums.chunks_exact_mut(len).enumerate() {
        sums.fill(0.0);
        // a sink is a token that came first and whose value is zero
        sums[len - LANES] = sinks.map_or(f32::NEG_INFINITY, |sinks| sinks[i % spec.group]);
        sums[len - 2 * LANES] = if sinks.is_some() { 1.0 } else { 0.0 };
    }
}

/// Sums a part, block by block.
#[allow(clippy::too_many_arguments, reason = "a thread's room, one by one")]
fn sum_part<'p>(
    isa: Isa,
    spec: &HeadSpec,
    tile: &QueryTile<'_>,
    part: &Range<usize>,
    planes: &impl Fn(usize) -> (&'p [u8], &'p [u8]),
    partial: &mut [f32],
    [keys, values]: [&mut [f32]; 2],
    lines: &mut Vec<Line>,
) {
    begin(spec, None, partial);
    let visible = tile.visible(spec.window);
    let (first, last) = (part.start.max(visible.start), part.end.min(visible.end));
    for block in first / BLOCK_LEN..last.div_ceil(BLOCK_LEN) {
        lines.clear();
        for row in 0..tile.ends.len() {
            let (seen, begin) = (tile.sees(row, spec.window), block * BLOCK_LEN);
            let (lo, hi) = (seen.start.saturating_sub(begin), seen.end.saturating_sub(begin).min(BLOCK_LEN));
            if lo < hi {
                lines.extend((0..spec.group).map(|head| Line {
                    query: row * tile.stride + head * spec.layout.head_dim,
                    sums: (row * spec.group + head) * spec.partial_len(),
                    lo,
                    hi,
                }));
            }
        }
        if lines.is_empty() {
            continue;
        }
        let (key_plane, value_plane) = planes(block);
        if (block + 1) * BLOCK_LEN < last {
            // far away in memory, where the processor does not guess it
            let (keys, values) = planes(block + 1);
            for line in keys.chunks(64).chain(values.chunks(64)) {
                prefetch(line.as_ptr());
            }
        }
        let queries = tile.queries;
        let value_stride = spec.layout.value_stride();
        let is_wide = spec.layout.ty == KvType::F32;
        if (lines.len() > FEW_LINES && !is_wide) || !spec.layout.is_native() {
            spec.layout.read_keys(isa, key_plane, keys);
            spec.layout.read_values(isa, value_plane, values);
            let (keys, values) =
                (&keys[..spec.layout.head_dim * BLOCK_LEN], &values[..value_stride * BLOCK_LEN]);
            let cells = Wide { keys: keys.as_ptr(), values: values.as_ptr(), value_stride };
            isa.run(Step { spec, queries, lines, cells, sums: partial });
            continue;
        }
        let plane_bytes = spec.layout.plane_bytes();
        let (key_plane, value_plane) = (&key_plane[..plane_bytes], &value_plane[..plane_bytes]);
        let (k, v) = (key_plane.as_ptr(), value_plane.as_ptr());
        match spec.layout.ty {
            KvType::F32 => {
                let cells = Wide { keys: k.cast(), values: v.cast(), value_stride };
                isa.run(Step { spec, queries, lines, cells, sums: partial });
            }
            KvType::F16 => {
                let cells = Half { keys: k.cast(), values: v.cast(), value_stride };
                isa.run(Step { spec, queries, lines, cells, sums: partial });
            }
            KvType::BF16 => {
                let cells = Brain { keys: k.cast(), values: v.cast(), value_stride };
                isa.run(Step { spec, queries, lines, cells, sums: partial });
            }
            KvType::Q8_0 => {
                let groups = spec.layout.head_dim / GROUP;
                let numbers = groups * GROUP * BLOCK_LEN;
                let (keys, values) = (&mut keys[..groups * BLOCK_LEN], &mut values[..groups * BLOCK_LEN]);
                convert::f16_to_f32(isa, &key_plane[numbers..], keys);
                convert::f16_to_f32(isa, &value_plane[numbers..], values);
                let cells = Bytes {
                    keys: k.cast(),
                    key_scales: keys.as_ptr(),
                    values: v.cast(),
                    value_scales: values.as_ptr(),
                    groups,
                };
                isa.run(Step { spec, queries, lines, cells, sums: partial });
            }
        }
    }
}

/// Divides by the sums of the weights and hands out the results.
fn finish(isa: Isa, spec: &HeadSpec, sums: &mut [f32], mut out: impl FnMut(usize, usize, &[f32])) {
    for (i, sums) in sums.chunks_exact_mut(spec.partial_len()).enumerate() {
        isa.run(Finish { sums });
        out(i / spec.group, i % spec.group, &sums[..spec.layout.head_dim]);
    }
}

#[cfg(test)]
mod tests;

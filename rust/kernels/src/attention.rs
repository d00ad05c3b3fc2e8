//! Softmax attention over a blocked KV cache.
//!
//! One call computes a tile: some consecutive rows of one sequence, all query heads that share one
//! key head. It walks the blocks of the cache from the first visible to the last, widens each once for
//! the whole tile, and keeps a running maximum, sum and weighted sum for each row and head (Milakov and
//! Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135). What a row adds up, and in which order,
//! follows from the places of its tokens in the sequence alone: blocks begin at multiples of
//! [`BLOCK_LEN`], scores stand in the lane of their token's slot.

use alloyforge_types::BLOCK_LEN;

use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::math::{exp, soft_cap};
use crate::plane::PlaneLayout;

/// Most rows of one tile.
pub const TILE_ROWS: usize = 16;

/// Vectors that the scores of a block take.
const VECTORS: usize = BLOCK_LEN / LANES;

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
    #[inline(always)]
    fn sees(&self, i: usize, window: Option<usize>) -> (usize, usize) {
        let own = self.start + i + 1;
        (window.map_or(0, |w| own.saturating_sub(w)), self.ends[i])
    }
}

/// What a thread needs for a tile.
#[derive(Debug)]
pub struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// The weighted sums, one every [`PlaneLayout::value_stride`].
    sums: Vec<f32>,
    /// The greatest score and the sum of the weights, for each row and head.
    state: Vec<(f32, f32)>,
}

impl Scratch {
    /// For tiles of heads up to `head_dim` wide, in groups up to `group`.
    pub fn new(head_dim: usize, group: usize) -> Self {
        let stride = head_dim.next_multiple_of(LANES);
        Self {
            keys: vec![0.0; head_dim * BLOCK_LEN],
            values: vec![0.0; stride * BLOCK_LEN],
            sums: vec![0.0; stride * group * TILE_ROWS],
            state: vec![(0.0, 0.0); group * TILE_ROWS],
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.keys.len() + self.values.len() + self.sums.len() + 2 * self.state.len()) * 4
    }
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
    mut out: impl FnMut(usize, usize, &[f32]),
    scratch: &mut Scratch,
) {
    let rows = tile.ends.len();
    let stride = spec.layout.value_stride();
    let Scratch { keys, values, sums, state } = scratch;
    let sums = &mut sums[..rows * spec.group * stride];
    sums.fill(0.0);
    for (i, state) in state[..rows * spec.group].iter_mut().enumerate() {
        // a sink is a token that came first and whose value is zero
        *state = tile.sinks.map_or((f32::NEG_INFINITY, 0.0), |sinks| (sinks[i % spec.group], 1.0));
    }
    let visible = (0..rows).map(|i| tile.sees(i, spec.window));
    let (first, last) =
        visible.fold((usize::MAX, 0), |(first, last), (lo, hi)| (first.min(lo), last.max(hi)));
    for block in first / BLOCK_LEN..last.div_ceil(BLOCK_LEN) {
        let (key_plane, value_plane) = planes(block);
        spec.layout.read_keys(isa, key_plane, keys);
        spec.layout.read_values(isa, value_plane, values);
        isa.run(Step { spec, tile, block, keys, values, sums, state });
    }
    for row in 0..rows {
        for head in 0..spec.group {
            let at = row * spec.group + head;
            let sums = &mut sums[at * stride..][..spec.layout.head_dim];
            for x in &mut *sums {
                *x /= state[at].1;
            }
            out(row, head, sums);
        }
    }
}

/// One block for all rows and heads of a tile.
struct Step<'a> {
    spec: &'a HeadSpec,
    tile: &'a QueryTile<'a>,
    block: usize,
    keys: &'a [f32],
    values: &'a [f32],
    sums: &'a mut [f32],
    state: &'a mut [(f32, f32)],
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { spec, tile, block, keys, values, sums, state } = self;
        let (head_dim, stride) = (spec.layout.head_dim, spec.layout.value_stride());
        let begin = block * BLOCK_LEN;
        for row in 0..tile.ends.len() {
            let (lo, hi) = tile.sees(row, spec.window);
            let (lo, hi) = (lo.saturating_sub(begin), hi.saturating_sub(begin).min(BLOCK_LEN));
            if lo >= hi {
                continue;
            }
            for head in 0..spec.group {
                let query = &tile.queries[row * tile.stride + head * head_dim..][..head_dim];
                let mut weights = scores(s, query, keys);
                for w in &mut weights {
                    *w *= spec.scale;
                }
                if let Some(cap) = spec.softcap {
                    for w in &mut weights {
                        *w = soft_cap(s, *w, cap);
                    }
                }
                let at = row * spec.group + head;
                let before = state[at].0;
                let mut most = before;
                for w in &weights[lo..hi] {
                    // false for NaN, whose weight is NaN all the same
                    most = if *w > most { *w } else { most };
                }
                for (slot, w) in weights.iter_mut().enumerate() {
                    *w = exp(s, *w - most);
                    if slot < lo || slot >= hi {
                        *w = 0.0;
                    }
                }
                let rescale = exp(s, before - most);
                let sum = fold(s, &weights);
                state[at] = (most, s.mul_add_scalar(state[at].1, rescale, sum));
                add_values(s, &mut sums[at * stride..][..stride], rescale, &weights, (lo, hi), values);
            }
        }
    }
}

/// The products of a query with a block's keys. Even and odd coordinates are summed apart, so that
/// one addition need not wait for the last.
#[inline(always)]
fn scores<S: Simd>(s: S, query: &[f32], keys: &[f32]) -> [f32; BLOCK_LEN] {
    let mut even = [s.splat(0.0); VECTORS];
    let mut odd = [s.splat(0.0); VECTORS];
    let rows = keys.as_chunks::<BLOCK_LEN>().0;
    let (pairs, rest) = query.as_chunks::<2>();
    for (q, rows) in pairs.iter().zip(rows.as_chunks::<2>().0) {
        let (q0, q1) = (s.splat(q[0]), s.splat(q[1]));
        let (k0, k1) = (rows[0].as_chunks::<LANES>().0, rows[1].as_chunks::<LANES>().0);
        for v in 0..VECTORS {
            even[v] = s.mul_add(q0, s.load(&k0[v]), even[v]);
            odd[v] = s.mul_add(q1, s.load(&k1[v]), odd[v]);
        }
    }
    if let [q] = rest {
        let k = rows[query.len() - 1].as_chunks::<LANES>().0;
        for v in 0..VECTORS {
            even[v] = s.mul_add(s.splat(*q), s.load(&k[v]), even[v]);
        }
    }
    let mut out = [0.0; BLOCK_LEN];
    for (v, lanes) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        s.store(s.add(even[v], odd[v]), lanes);
    }
    out
}

/// The sum of a block's weights.
#[inline(always)]
fn fold<S: Simd>(s: S, weights: &[f32; BLOCK_LEN]) -> f32 {
    let mut sum = s.splat(0.0);
    for lanes in weights.as_chunks::<LANES>().0 {
        sum = s.add(sum, s.load(lanes));
    }
    s.sum(sum)
}

/// `sums = sums * rescale + weights * values`, over the slots from `lo` to `hi`.
#[inline(always)]
fn add_values<S: Simd>(
    s: S,
    sums: &mut [f32],
    rescale: f32,
    weights: &[f32; BLOCK_LEN],
    (lo, hi): (usize, usize),
    values: &[f32],
) {
    let stride = sums.len();
    let sums = sums.as_chunks_mut::<LANES>().0;
    let values = values.as_chunks::<LANES>().0;
    let vectors = stride / LANES;
    let mut first = 0;
    while first < vectors {
        match vectors - first {
            4.. => {
                add_columns::<S, 4>(
                    s,
                    &mut sums[first..],
                    rescale,
                    &weights[lo..hi],
                    &values[lo * vectors + first..],
                    vectors,
                );
                first += 4;
            }
            _ => {
                add_columns::<S, 1>(
                    s,
                    &mut sums[first..],
                    rescale,
                    &weights[lo..hi],
                    &values[lo * vectors + first..],
                    vectors,
                );
                first += 1;
            }
        }
    }
}

/// [`add_values`] of `N` vectors side by side, whose tokens stand `step` vectors apart.
#[inline(always)]
fn add_columns<S: Simd, const N: usize>(
    s: S,
    sums: &mut [[f32; LANES]],
    rescale: f32,
    weights: &[f32],
    values: &[[f32; LANES]],
    step: usize,
) {
    let rescale = s.splat(rescale);
    let mut acc = [rescale; N];
    for n in 0..N {
        acc[n] = s.mul(s.load(&sums[n]), rescale);
    }
    for (w, row) in weights.iter().zip(values.chunks(step)) {
        let w = s.splat(*w);
        for n in 0..N {
            acc[n] = s.mul_add(w, s.load(&row[n]), acc[n]);
        }
    }
    for n in 0..N {
        s.store(acc[n], &mut sums[n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use alloyforge_types::KvType;
    use proptest::prelude::*;

    fn wave(seed: usize, i: usize) -> f32 {
        ((seed % 9973) as f32 * 0.37 + i as f32 * 1.618).sin() * 1.5
    }

    /// A sequence's cache and queries.
    struct Case {
        spec: HeadSpec,
        keys: Vec<Vec<f32>>,
        values: Vec<Vec<f32>>,
        planes: Vec<(Vec<u8>, Vec<u8>)>,
        queries: Vec<f32>,
        ends: Vec<usize>,
        sinks: Option<Vec<f32>>,
    }

    impl Case {
        fn new(spec: HeadSpec, len: usize, ends: Vec<usize>, sinks: Option<Vec<f32>>, seed: usize) -> Self {
            let dim = spec.layout.head_dim;
            let vectors = |salt: usize| -> Vec<Vec<f32>> {
                (0..len).map(|t| (0..dim).map(|d| wave(seed + salt, t * dim + d)).collect()).collect()
            };
            let (keys, values) = (vectors(1), vectors(2));
            // stale numbers where no token was written yet
            let bytes = spec.layout.plane_bytes();
            let mut planes = vec![(vec![0xff; bytes], vec![0xff; bytes]); len.div_ceil(BLOCK_LEN)];
            for t in 0..len {
                let (k, v) = &mut planes[t / BLOCK_LEN];
                spec.layout.write_key(k, t % BLOCK_LEN, &keys[t]);
                spec.layout.write_value(v, t % BLOCK_LEN, &values[t]);
            }
            let queries = (0..len * spec.group * dim).map(|i| wave(seed + 3, i)).collect();
            Self { spec, keys, values, planes, queries, ends, sinks }
        }

        /// The rows from `start` on, in tiles of `rows`.
        fn run(&self, isa: Isa, start: usize, rows: usize) -> Vec<f32> {
            let HeadSpec { layout, group, .. } = self.spec;
            let stride = group * layout.head_dim;
            let mut out = vec![0.0; (self.ends.len() - start) * stride];
            let mut scratch = Scratch::new(layout.head_dim, group);
            for first in (start..self.ends.len()).step_by(rows) {
                let tile = QueryTile {
                    queries: &self.queries[first * stride..],
                    stride,
                    start: first,
                    ends: &self.ends[first..self.ends.len().min(first + rows)],
                    sinks: self.sinks.as_deref(),
                };
                attend(
                    isa,
                    &self.spec,
                    &tile,
                    |block| (&self.planes[block].0, &self.planes[block].1),
                    |row, head, values| {
                        out[(first - start + row) * stride + head * layout.head_dim..][..layout.head_dim]
                            .copy_from_slice(values);
                    },
                    &mut scratch,
                );
            }
            out
        }

        fn want(&self, row: usize, head: usize) -> Vec<f64> {
            let HeadSpec { layout, group, scale, softcap, window } = self.spec;
            let from = window.map_or(0, |w| (row + 1).saturating_sub(w));
            let query = &self.queries[(row * group + head) * layout.head_dim..][..layout.head_dim];
            let sink = self.sinks.as_ref().map(|s| s[head]);
            let seen = from..self.ends[row];
            reference::attend(query, &self.keys[seen.clone()], &self.values[seen], scale, softcap, sink)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn attention_is_the_reference_whatever_the_tile(
            head_dim in prop::sample::select(vec![1usize, 7, 16, 32, 40, 64, 80, 128]),
            group in 1usize..4,
            len in 1usize..150,
            ahead in 0usize..20,
            window in prop::option::of(1usize..100),
            softcap in prop::option::of(2.0f32..30.0),
            has_sinks in any::<bool>(),
            rows in 1usize..=TILE_ROWS,
            seed in any::<u16>(),
        ) {
            let layout = PlaneLayout { ty: KvType::F32, head_dim };
            let spec = HeadSpec { layout, group, scale: 1.0 / (head_dim as f32).sqrt(), softcap, window };
            // a picture near the middle, whose tokens see each other
            let picture = len / 2..len.min(len / 2 + ahead);
            let ends = (0..len).map(|t| if picture.contains(&t) { picture.end } else { t + 1 }).collect();
            let sinks = has_sinks.then(|| (0..group).map(|h| wave(h, 5)).collect());
            let case = Case::new(spec, len, ends, sinks, usize::from(seed));
            for isa in Isa::available() {
                let out = case.run(isa, 0, rows);
                for row in 0..len {
                    for head in 0..group {
                        let got = &out[(row * group + head) * head_dim..][..head_dim];
                        for (g, w) in got.iter().zip(case.want(row, head)) {
                            prop_assert!((f64::from(*g) - w).abs() < 2e-5, "{} row {row}: {g}, not {w}", isa.name());
                        }
                    }
                }
                // other tiles, a later start: the same bits
                prop_assert_eq!(&case.run(isa, 0, 1), &out);
                let start = len / 3;
                prop_assert_eq!(&case.run(isa, start, TILE_ROWS)[..], &out[start * group * head_dim..]);
            }
        }
    }

    #[test]
    fn narrower_sets_agree_with_wider_ones() {
        let layout = PlaneLayout { ty: KvType::F16, head_dim: 40 };
        let spec = HeadSpec { layout, group: 2, scale: 0.2, softcap: Some(9.0), window: Some(50) };
        let case = Case::new(spec, 90, (1..=90).collect(), Some(vec![0.5, -0.5]), 3);
        let results: Vec<Vec<f32>> = Isa::available()
            .into_iter()
            .filter(|isa| isa.name().starts_with("avx"))
            .map(|isa| case.run(isa, 0, 16))
            .collect();
        assert!(results.windows(2).all(|w| w[0] == w[1]));
    }

    #[test]
    fn a_nan_key_reaches_the_rows_that_see_it() {
        let layout = PlaneLayout { ty: KvType::F32, head_dim: 8 };
        let spec = HeadSpec { layout, group: 1, scale: 0.3, softcap: None, window: Some(10) };
        let mut case = Case::new(spec, 70, (1..=70).collect(), None, 3);
        layout.write_key(&mut case.planes[1].0, 3, &[f32::NAN; 8]);
        for isa in Isa::available() {
            for (row, out) in case.run(isa, 0, 16).chunks_exact(8).enumerate() {
                assert!(out.iter().all(|v| v.is_nan() == (35..45).contains(&row)), "row {row}");
            }
        }
    }
}

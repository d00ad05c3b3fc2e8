//! One block of the cache for all rows and heads of a tile, and sums joined to sums.
//!
//! Rows and heads are taken in strips that the registers hold, so that what is loaded of keys and values
//! serves several; each line's own chain of operations is the same in every strip. There are loops in
//! place of closures here: only what is inlined for certain may use a set's instructions.

use alloyforge_types::BLOCK_LEN;

use super::HeadSpec;
use super::cells::Cells;
use crate::isa::{Kernel, LANES, Simd};
use crate::math::soft_cap;
use crate::plane::GROUP;

/// Vectors that the scores of a block take.
const VECTORS: usize = BLOCK_LEN / LANES;

/// One query head of one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Where its query begins.
    pub(super) query: usize,
    /// Where its sums begin.
    pub(super) sums: usize,
    /// The slots of the block that it sees: from here,
    pub(super) lo: usize,
    /// to before here.
    pub(super) hi: usize,
}

/// One block for all lines that see something of it.
pub(super) struct Step<'a, C> {
    pub(super) spec: &'a HeadSpec,
    pub(super) queries: &'a [f32],
    pub(super) lines: &'a [Line],
    /// The block's keys and values, of the layout's width.
    pub(super) cells: C,
    pub(super) sums: &'a mut [f32],
}

impl<C: Cells> Kernel for Step<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut first = 0;
        while first < self.lines.len() {
            let left = self.lines.len() - first;
            first += if S::REGISTERS >= 8 && left >= 6 {
                self.strip::<S, 6>(s, first)
            } else if S::REGISTERS >= 8 && left >= 4 {
                self.strip::<S, 4>(s, first)
            } else if S::REGISTERS >= 8 && left >= 3 {
                self.strip::<S, 3>(s, first)
            } else if left >= 2 {
                self.strip::<S, 2>(s, first)
            } else {
                self.strip::<S, 1>(s, first)
            };
        }
    }
}

impl<C: Cells> Step<'_, C> {
    /// Lines `first .. first + L`; gives `L`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "lines and vectors at once")]
    fn strip<S: Simd, const L: usize>(&mut self, s: S, first: usize) -> usize {
        let head_dim = self.spec.layout.head_dim;
        let mut lines = [self.lines[first]; L];
        lines.copy_from_slice(&self.lines[first..first + L]);
        let mut queries = [std::ptr::null::<f32>(); L];
        for l in 0..L {
            queries[l] = self.queries[lines[l].query..][..head_dim].as_ptr();
        }
        // SAFETY: each query has `head_dim` numbers, and the keys as many rows of a block.
        let mut scores = unsafe { scores::<S, C, L>(s, queries, self.cells, head_dim) };
        let scale = s.splat(self.spec.scale);
        let width = head_dim.next_multiple_of(LANES);
        let (mut greatest, mut rescale) = ([0.0; L], [0.0; LANES]);
        for l in 0..L {
            let (lo, hi) = (lines[l].lo, lines[l].hi);
            let before = self.sums[lines[l].sums + width + LANES];
            let mut most = s.splat(before);
            for v in 0..VECTORS {
                scores[l][v] = s.mul(scores[l][v], scale);
                if let Some(cap) = self.spec.softcap {
                    let mut lanes = [0.0; LANES];
                    s.store(scores[l][v], &mut lanes);
                    for x in &mut lanes {
                        *x = soft_cap(s, *x, cap);
                    }
                    scores[l][v] = s.load(&lanes);
                }
                if hi - lo < BLOCK_LEN {
                    let (lo, hi) = (lo.saturating_sub(v * LANES), hi.saturating_sub(v * LANES).min(LANES));
                    scores[l][v] = s.keep(scores[l][v], lo.min(LANES), hi, f32::NEG_INFINITY);
                }
                // keeps `most` where a score is NaN, whose weight is NaN all the same
                most = s.max(scores[l][v], most);
            }
            greatest[l] = s.max_lane(most);
            rescale[l] = before - greatest[l];
        }
        if L < 3 {
            for l in 0..L {
                rescale[l] = crate::math::exp(s, rescale[l]);
            }
        } else {
            s.store(s.exp(s.load(&rescale)), &mut rescale);
        }
        let mut weights = [[0.0; BLOCK_LEN]; L];
        for l in 0..L {
            let shift = s.splat(-greatest[l]);
            let mut sum = s.splat(0.0);
            let out = weights[l].as_chunks_mut::<LANES>().0;
            for v in 0..VECTORS {
                let weight = s.exp(s.add(scores[l][v], shift));
                sum = s.add(sum, weight);
                s.store(weight, &mut out[v]);
            }
            let state = self.sums[lines[l].sums + width..].as_chunks_mut::<LANES>().0;
            if let [total, most, ..] = state {
                most[0] = greatest[l];
                s.store(s.mul_add(s.load(total), s.splat(rescale[l]), sum), total);
            }
        }
        self.add_values::<S, L>(s, &lines, &rescale, &weights);
        L
    }

    /// `sums = sums * rescale + weights * values`, over the slots that each line sees.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "several arrays at once")]
    fn add_values<S: Simd, const L: usize>(
        &mut self,
        s: S,
        lines: &[Line; L],
        rescale: &[f32; LANES],
        weights: &[[f32; BLOCK_LEN]; L],
    ) {
        let vectors = self.spec.layout.head_dim.div_ceil(LANES);
        let mut sums = [std::ptr::null_mut::<f32>(); L];
        let mut rows = [std::ptr::null::<f32>(); L];
        // the slots that all see, together; what one sees before or after them, alone: a weight of zero
        // would let a value that is not finite through
        let (mut lo, mut hi, mut least) = (0, BLOCK_LEN, BLOCK_LEN);
        for l in 0..L {
            sums[l] = self.sums[lines[l].sums..][..vectors * LANES].as_mut_ptr();
            rows[l] = weights[l].as_ptr();
            lo = lo.max(lines[l].lo);
            least = least.min(lines[l].lo);
            hi = hi.min(lines[l].hi);
        }
        hi = hi.max(lo);
        let values = self.cells;
        let mut factors = [1.0; L];
        factors.copy_from_slice(&rescale[..L]);
        // SAFETY: sums and values have `vectors` vectors a line and slot, weights a number a slot.
        unsafe {
            if least < lo {
                for l in 0..L {
                    let before = (lines[l].lo, lo.min(lines[l].hi));
                    columns::<S, C, 1>(s, [sums[l]], [factors[l]], [rows[l]], before, values, vectors);
                }
                factors = [1.0; L];
            }
            columns::<S, C, L>(s, sums, factors, rows, (lo, hi), values, vectors);
            for l in 0..L {
                let after = (hi, lines[l].hi);
                if after.0 < after.1 {
                    columns::<S, C, 1>(s, [sums[l]], [1.0], [rows[l]], after, values, vectors);
                }
            }
        }
    }
}

/// The products of `L` queries with a block's keys. Even and odd coordinates are summed apart, so that
/// one addition need not wait for the last.
///
/// # Safety
/// The queries have `head_dim` numbers, the keys as many rows of a block.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "lines and vectors at once")]
unsafe fn scores<S: Simd, C: Cells, const L: usize>(
    s: S,
    queries: [*const f32; L],
    cells: C,
    head_dim: usize,
) -> [[S::V; VECTORS]; L] {
    let mut scores = [[s.splat(0.0); VECTORS]; L];
    // SAFETY: the caller's promise.
    unsafe {
        if S::REGISTERS >= 32 || L == 1 {
            let [even, odd] = sums::<S, C, L, VECTORS>(s, queries, cells, head_dim, 0);
            for l in 0..L {
                for n in 0..VECTORS {
                    scores[l][n] = s.add(even[l][n], odd[l][n]);
                }
            }
        } else if L <= 3 {
            for n in 0..VECTORS {
                let [even, odd] = sums::<S, C, L, 1>(s, queries, cells, head_dim, n);
                for l in 0..L {
                    scores[l][n] = s.add(even[l][0], odd[l][0]);
                }
            }
        } else {
            // the registers hold one of the two at a time
            for n in 0..VECTORS {
                let even = sums_of_every_other::<S, C, L>(s, queries, cells, (0, head_dim), n);
                let odd = sums_of_every_other::<S, C, L>(s, queries, cells, (1, head_dim), n);
                for l in 0..L {
                    scores[l][n] = s.add(even[l], odd[l]);
                }
            }
        }
    }
    scores
}

/// The sums of even and of odd coordinates, of `N` vectors of tokens from vector `first` on.
///
/// # Safety
/// As [`scores`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "lines and vectors at once")]
unsafe fn sums<S: Simd, C: Cells, const L: usize, const N: usize>(
    s: S,
    queries: [*const f32; L],
    cells: C,
    head_dim: usize,
    first: usize,
) -> [[[S::V; N]; L]; 2] {
    let mut even = [[s.splat(0.0); N]; L];
    let mut odd = [[s.splat(0.0); N]; L];
    let mut group = 0;
    while group * GROUP < head_dim {
        let mut scales = [s.splat(0.0); N];
        for n in 0..N {
            // SAFETY: the caller's promise.
            scales[n] = unsafe { cells.key_scales(s, group, first + n) };
        }
        let end = head_dim.min((group + 1) * GROUP);
        let mut d = group * GROUP;
        while d < end {
            let mut key = [s.splat(0.0); N];
            for n in 0..N {
                // SAFETY: as above.
                key[n] = unsafe { cells.keys(s, d, first + n, scales[n]) };
            }
            for l in 0..L {
                // SAFETY: as above.
                let q = s.splat(unsafe { *queries[l].add(d) });
                for n in 0..N {
                    even[l][n] = s.mul_add(q, key[n], even[l][n]);
                }
            }
            if d + 1 < end {
                for n in 0..N {
                    // SAFETY: as above.
                    key[n] = unsafe { cells.keys(s, d + 1, first + n, scales[n]) };
                }
                for l in 0..L {
                    // SAFETY: as above.
                    let q = s.splat(unsafe { *queries[l].add(d + 1) });
                    for n in 0..N {
                        odd[l][n] = s.mul_add(q, key[n], odd[l][n]);
                    }
                }
            }
            d += 2;
        }
        group += 1;
    }
    [even, odd]
}

/// The sums of every other coordinate from `parity` to before `head_dim`, of vector `n` of tokens.
///
/// # Safety
/// As [`scores`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "lines at once")]
unsafe fn sums_of_every_other<S: Simd, C: Cells, const L: usize>(
    s: S,
    queries: [*const f32; L],
    cells: C,
    (parity, head_dim): (usize, usize),
    n: usize,
) -> [S::V; L] {
    let mut sums = [s.splat(0.0); L];
    let mut group = 0;
    while group * GROUP < head_dim {
        // SAFETY: the caller's promise.
        let scales = unsafe { cells.key_scales(s, group, n) };
        let end = head_dim.min((group + 1) * GROUP);
        let mut d = group * GROUP + parity;
        while d < end {
            // SAFETY: as above.
            let key = unsafe { cells.keys(s, d, n, scales) };
            for l in 0..L {
                // SAFETY: as above.
                let q = s.splat(unsafe { *queries[l].add(d) });
                sums[l] = s.mul_add(q, key, sums[l]);
            }
            d += 2;
        }
        group += 1;
    }
    sums
}

/// `sums = sums * factors + weights * values` for `L` lines, over the slots from the first of `slots` to
/// before the second.
///
/// # Safety
/// The slots lie in a block; sums and every slot's values have `vectors` vectors.
#[inline(always)]
unsafe fn columns<S: Simd, C: Cells, const L: usize>(
    s: S,
    sums: [*mut f32; L],
    factors: [f32; L],
    weights: [*const f32; L],
    slots: (usize, usize),
    cells: C,
    vectors: usize,
) {
    let mut first = 0;
    while first < vectors {
        let left = vectors - first;
        // SAFETY: the caller's promise.
        unsafe {
            first += if left >= 4 && (S::REGISTERS >= 32 || (S::REGISTERS >= 8 && L == 1)) {
                some_columns::<S, C, L, 4>(s, sums, factors, weights, slots, cells, first)
            } else if left >= 2 && (S::REGISTERS >= 32 || L < 3) {
                some_columns::<S, C, L, 2>(s, sums, factors, weights, slots, cells, first)
            } else {
                some_columns::<S, C, L, 1>(s, sums, factors, weights, slots, cells, first)
            };
        }
    }
}

/// [`columns`] of `N` vectors side by side from `first` on; gives `N`.
///
/// # Safety
/// As there.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "lines and vectors at once")]
unsafe fn some_columns<S: Simd, C: Cells, const L: usize, const N: usize>(
    s: S,
    sums: [*mut f32; L],
    factors: [f32; L],
    weights: [*const f32; L],
    (from, to): (usize, usize),
    cells: C,
    first: usize,
) -> usize {
    let mut acc = [[s.splat(0.0); N]; L];
    // SAFETY: the caller's promise.
    unsafe {
        for l in 0..L {
            let factor = s.splat(factors[l]);
            for n in 0..N {
                acc[l][n] = s.mul(s.load(&*sums[l].add((first + n) * LANES).cast()), factor);
            }
        }
        for slot in from..to {
            let mut value = [s.splat(0.0); N];
            for n in 0..N {
                value[n] = cells.values(s, slot, first + n);
            }
            for l in 0..L {
                let weight = s.splat(*weights[l].add(slot));
                for n in 0..N {
                    acc[l][n] = s.mul_add(weight, value[n], acc[l][n]);
                }
            }
        }
        for l in 0..L {
            for n in 0..N {
                s.store(acc[l][n], &mut *sums[l].add((first + n) * LANES).cast());
            }
        }
    }
    N
}

/// Adds the sums of a part to those of the parts before it.
pub(super) struct Join<'a> {
    pub(super) spec: &'a HeadSpec,
    pub(super) total: &'a mut [f32],
    pub(super) partial: &'a [f32],
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.spec.partial_len();
        for (total, partial) in self.total.chunks_exact_mut(len).zip(self.partial.chunks_exact(len)) {
            let (total, partial) = (total.as_chunks_mut::<LANES>().0, partial.as_chunks::<LANES>().0);
            let (greatest, total) = match total.split_last_mut() {
                Some((greatest, total)) if partial.len() == total.len() + 1 => (greatest, total),
                _ => continue,
            };
            let most_of_part = partial[total.len()][0];
            if s.sum(s.load(&partial[total.len() - 1])) == 0.0 {
                // a row that sees nothing of this part
                continue;
            }
            if greatest[0] == f32::NEG_INFINITY && s.sum(s.load(&total[total.len() - 1])) == 0.0 {
                total.copy_from_slice(&partial[..total.len()]);
                greatest[0] = most_of_part;
                continue;
            }
            let most = if most_of_part > greatest[0] { most_of_part } else { greatest[0] };
            let old = s.splat(crate::math::exp(s, greatest[0] - most));
            let new = s.splat(crate::math::exp(s, most_of_part - most));
            greatest[0] = most;
            for (total, partial) in total.iter_mut().zip(partial) {
                s.store(s.mul_add(s.load(partial), new, s.mul(s.load(total), old)), total);
            }
        }
    }
}

/// Divides one line's sums by the sum of its weights.
pub(super) struct Finish<'a> {
    pub(super) sums: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let vectors = self.sums.as_chunks_mut::<LANES>().0;
        let [sums @ .., total, _] = vectors else { return };
        let inverse = s.splat(1.0 / s.sum(s.load(total)));
        for sums in sums {
            s.store(s.mul(s.load(sums), inverse), sums);
        }
    }
}

//! Where in a window each token is heard: dynamic time warping over the attention of the alignment heads.

/// Frames of the median filter.
const MEDIAN: usize = 7;

/// For each token row the state row at which it begins, one more for the end of the last.
///
/// `watched` is `[heads, rows, source]`; the rows `first..last` are aligned with the states before
/// `num_states`. As OpenAI's `timing.py`: probabilities over those states alone, normalised over the
/// rows, smoothed by a median, averaged over the heads, and warped.
pub fn starts(
    watched: &[f32],
    (heads, rows, source): (usize, usize, usize),
    (first, last): (usize, usize),
    num_states: usize,
) -> Vec<usize> {
    let states = num_states.min(source);
    let count = last - first;
    if heads == 0 || states == 0 || count == 0 {
        return vec![0; count + 1];
    }
    let mut cost = vec![0.0f32; count * states];
    let mut head_rows = vec![0.0f32; rows * states];
    let mut smooth = vec![0.0f32; states];
    for head in watched.chunks_exact(rows * source).take(heads) {
        for (from, to) in head.chunks_exact(source).zip(head_rows.chunks_exact_mut(states)) {
            let sum: f32 = from[..states].iter().sum::<f32>().max(f32::MIN_POSITIVE);
            for (f, t) in from.iter().zip(to) {
                *t = f / sum;
            }
        }
        for state in 0..states {
            let column = (0..rows).map(|row| head_rows[row * states + state]);
            let mean = column.clone().sum::<f32>() / rows as f32;
            let variance = column.map(|v| (v - mean).powi(2)).sum::<f32>() / rows as f32;
            let scale = 1.0 / variance.sqrt().max(1e-12);
            for row in 0..rows {
                let value = &mut head_rows[row * states + state];
                *value = (*value - mean) * scale;
            }
        }
        for row in 0..count {
            let from = &head_rows[(first + row) * states..][..states];
            median(from, &mut smooth);
            for (to, value) in cost[row * states..][..states].iter_mut().zip(&smooth) {
                *to -= value / heads as f32;
            }
        }
    }
    let path = warp(&cost, count, states);
    let mut out = vec![states; count + 1];
    for &(row, state) in path.iter().rev() {
        out[row] = state;
    }
    out[count] = path.last().map_or(states, |&(_, state)| state);
    out
}

/// The median of every number and its neighbours, the ends reflected.
fn median(from: &[f32], to: &mut [f32]) {
    let len = from.len();
    let reach = MEDIAN / 2;
    if len <= reach {
        to.copy_from_slice(from);
        return;
    }
    for (i, to) in to.iter_mut().enumerate() {
        let mut around = [0.0; MEDIAN];
        for (k, value) in around.iter_mut().enumerate() {
            let place = (i + k).abs_diff(reach);
            *value = from[if place < len { place } else { 2 * len - 2 - place }];
        }
        around.sort_unstable_by(f32::total_cmp);
        *to = around[reach];
    }
}

/// The cheapest way from the first row and column of `cost`, `[rows, cols]`, to the last.
pub fn warp(cost: &[f32], rows: usize, cols: usize) -> Vec<(usize, usize)> {
    let width = cols + 1;
    let mut total = vec![f32::INFINITY; (rows + 1) * width];
    let mut trace = vec![0u8; (rows + 1) * width];
    total[0] = 0.0;
    for j in 1..=cols {
        for i in 1..=rows {
            let both = total[(i - 1) * width + j - 1];
            let down = total[(i - 1) * width + j];
            let along = total[i * width + j - 1];
            let (least, from) = if both < down && both < along {
                (both, 0)
            } else if down < both && down < along {
                (down, 1)
            } else {
                (along, 2)
            };
            total[i * width + j] = cost[(i - 1) * cols + j - 1] + least;
            trace[i * width + j] = from;
        }
    }
    let (mut i, mut j) = (rows, cols);
    let mut path = Vec::with_capacity(rows + cols);
    while i > 0 || j > 0 {
        path.push((i.saturating_sub(1), j.saturating_sub(1)));
        match (i, j, trace[i * width + j]) {
            (0, ..) => j -= 1,
            (_, 0, _) => i -= 1,
            (_, _, 0) => (i, j) = (i - 1, j - 1),
            (_, _, 1) => i -= 1,
            _ => j -= 1,
        }
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The least cost over all ways, by trying them.
    fn least(cost: &[f32], cols: usize, i: usize, j: usize) -> f32 {
        let here = cost[i * cols + j];
        let before = match (i, j) {
            (0, 0) => 0.0,
            (0, _) => least(cost, cols, 0, j - 1),
            (_, 0) => least(cost, cols, i - 1, 0),
            _ => least(cost, cols, i - 1, j - 1).min(least(cost, cols, i - 1, j)).min(least(
                cost,
                cols,
                i,
                j - 1,
            )),
        };
        here + before
    }

    proptest! {
        #[test]
        fn no_way_is_cheaper(rows in 1usize..5, cols in 1usize..6, seed in any::<u32>()) {
            let mut state = seed | 1;
            let cost: Vec<f32> = (0..rows * cols)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / 16_777_216.0 - 0.5
                })
                .collect();
            let path = warp(&cost, rows, cols);
            prop_assert_eq!((path[0], path[path.len() - 1]), ((0, 0), (rows - 1, cols - 1)));
            for pair in path.windows(2) {
                let (di, dj) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
                prop_assert!(di <= 1 && dj <= 1 && di + dj > 0);
            }
            let sum: f32 = path.iter().map(|&(i, j)| cost[i * cols + j]).sum();
            prop_assert!((sum - least(&cost, cols, rows - 1, cols - 1)).abs() < 1e-4);
        }
    }

    #[test]
    fn tokens_are_found_where_a_head_looks() {
        // three tokens behind two that steer, heard at states 0, 10 and 25 of 40
        let (rows, source) = (6, 50);
        let mut watched = vec![0.01f32; rows * source];
        for (row, range) in [(2usize, 0..10), (3, 10..25), (4, 25..40)] {
            watched[row * source..][range].fill(1.0);
        }
        let found = starts(&watched, (1, rows, source), (2, 5), 40);
        for (found, want) in found.into_iter().zip([0usize, 10, 25, 39]) {
            assert!(found.abs_diff(want) <= 2, "{found}, not {want}");
        }
    }
}

//! From pixels to rows: patches, where they lie, and what that adds to them.

use alloyforge_types::{Error, GridPositions, GridRope, MediaItem, Result};
use candle_core::{Device, Tensor};

/// Patches beyond which no item is looked at, so that no count can overflow.
const MAX_PATCHES: usize = 1 << 20;

/// Frames or tiles of one size, each of `height` by `width` patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) tiles: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Patches along an edge of the squares that they come in; 1: line by line.
    pub(super) merge: usize,
}

impl Grid {
    pub(super) fn tile_len(&self) -> usize {
        self.height * self.width
    }

    pub(super) fn len(&self) -> usize {
        self.tiles * self.tile_len()
    }

    /// Row and column of each patch of a tile, in the order in which they come.
    pub(super) fn places(&self) -> Vec<(usize, usize)> {
        let m = self.merge;
        let mut places = Vec::with_capacity(self.tile_len());
        for block_row in (0..self.height).step_by(m) {
            for block_col in (0..self.width).step_by(m) {
                places.extend((0..m * m).map(|i| (block_row + i / m, block_col + i % m)));
            }
        }
        places
    }

    /// The joined squares of all tiles in the order of windows of `edge` squares, and the patches in
    /// each window.
    pub(super) fn windows(&self, edge: usize) -> (Vec<u32>, Vec<usize>) {
        let (height, width) = (self.height / self.merge, self.width / self.merge);
        let (mut order, mut lens) = (Vec::new(), Vec::new());
        for tile in 0..self.tiles {
            for top in (0..height).step_by(edge) {
                for left in (0..width).step_by(edge) {
                    let before = order.len();
                    for row in top..(top + edge).min(height) {
                        let first = (tile * height + row) * width;
                        order.extend((left..(left + edge).min(width)).map(|col| (first + col) as u32));
                    }
                    lens.push((order.len() - before) * self.merge * self.merge);
                }
            }
        }
        (order, lens)
    }
}

fn wrong(item: &MediaItem, fault: impl Into<String>) -> Error {
    Error::Media { item: item.kind.noun().to_owned(), fault: fault.into() }
}

/// The patches of `item` as rows `[patches, channels * frames * size * size]`, and where they lie:
/// from `pixel_values` of shape `[tiles, 3, height, width]`, or as they are from `patches` with a
/// `grid` of frames, lines and columns.
pub(super) fn read(item: &MediaItem, size: usize, frames: usize, merge: usize) -> Result<(Vec<f32>, Grid)> {
    const CHANNELS: usize = 3;
    let row_len = CHANNELS * frames * size * size;
    if let Some(pixels) = item.tensor("pixel_values") {
        let &[tiles, CHANNELS, height, width] = pixels.shape.as_slice() else {
            return Err(wrong(item, format!("pixel_values of shape {:?}", pixels.shape)));
        };
        let grid = Grid { tiles, height: height / size, width: width / size, merge };
        check(item, &grid)?;
        if frames != 1 || pixels.values.len() != tiles * CHANNELS * height * width {
            return Err(wrong(item, "pixel_values do not fit the encoder's patches"));
        }
        let mut rows = Vec::with_capacity(grid.len() * row_len);
        let places = grid.places();
        for tile in pixels.values.chunks_exact(CHANNELS * height * width) {
            for &(row, col) in &places {
                for channel in tile.chunks_exact(height * width) {
                    for y in row * size..(row + 1) * size {
                        rows.extend_from_slice(&channel[y * width + col * size..][..size]);
                    }
                }
            }
        }
        return Ok((rows, grid));
    }
    let (Some(patches), Some(&[t, h, w])) = (item.tensor("patches"), item.fact("grid")) else {
        return Err(wrong(item, "has neither pixel_values nor patches with a grid"));
    };
    let count = |x: f64| if x >= 1.0 && x <= MAX_PATCHES as f64 { x as usize } else { 0 };
    let grid = Grid { tiles: count(t), height: count(h), width: count(w), merge };
    check(item, &grid)?;
    if patches.values.len() != grid.len() * row_len {
        return Err(wrong(item, format!("{} numbers for a grid of {t} x {h} x {w}", patches.values.len())));
    }
    Ok((patches.values.to_vec(), grid))
}

fn check(item: &MediaItem, grid: &Grid) -> Result<()> {
    let len = grid.tiles.checked_mul(grid.height).and_then(|n| n.checked_mul(grid.width));
    let is_even = grid.height.is_multiple_of(grid.merge) && grid.width.is_multiple_of(grid.merge);
    match len {
        Some(1..=MAX_PATCHES) if is_even => Ok(()),
        _ => Err(wrong(item, format!("{} tiles of {} x {} patches", grid.tiles, grid.height, grid.width))),
    }
}

/// Which rows of a table each patch of a tile takes, and by how much.
pub(super) struct Taps {
    /// As many indices a patch as weights; the first of the table's rows for patches is 0.
    pub(super) indices: Vec<u32>,
    pub(super) weights: Vec<f32>,
    pub(super) per_patch: usize,
}

/// The rows that index `i` of `len` takes of a table of `side`, each with its weight.
type Axis = fn(usize, usize, usize) -> Vec<(usize, f32)>;

/// The taps of `grid` in a table of the kind `positions`; `None` where it adds nothing.
///
/// # Errors
/// `Media` where the table has no rows for such a grid.
pub(super) fn taps(item: &MediaItem, positions: GridPositions, grid: &Grid) -> Result<Option<Taps>> {
    let places = grid.places();
    let (side, axis): (usize, Axis) = match positions {
        GridPositions::None => return Ok(None),
        GridPositions::Table { side } => {
            if (grid.height, grid.width) != (side, side) {
                let fault =
                    format!("{} x {} patches for an encoder of {side} x {side}", grid.height, grid.width);
                return Err(wrong(item, fault));
            }
            (side, |i, _, _| vec![(i, 1.0)])
        }
        GridPositions::Bicubic { side } if (grid.height, grid.width) == (side, side) => {
            (side, |i, _, _| vec![(i, 1.0)])
        }
        GridPositions::Bicubic { side } => (side, cubic),
        GridPositions::Buckets { side } => (side, bucket),
        GridPositions::Bilinear { side } => (side, linear),
    };
    let rows: Vec<_> = (0..grid.height).map(|i| axis(i, grid.height, side)).collect();
    let cols: Vec<_> = (0..grid.width).map(|i| axis(i, grid.width, side)).collect();
    let per_patch = rows[0].len() * cols[0].len();
    let mut taps = Taps { indices: Vec::new(), weights: Vec::new(), per_patch };
    for (row, col) in places {
        for (y, share) in &rows[row] {
            for (x, part) in &cols[col] {
                taps.indices.push((y * side + x) as u32);
                taps.weights.push(share * part);
            }
        }
    }
    Ok(Some(taps))
}

/// Index `i` of `len` in a table of `side`: the nearest row by its share of the edge, in f32 and with
/// the borders of the original (Idefics3's `bucketize`).
fn bucket(i: usize, len: usize, side: usize) -> Vec<(usize, f32)> {
    let step = 1.0 / side as f64;
    let share = (i as f32 * (1.0 / len as f32)).min(1.0 - 1e-6);
    let num_borders = ((1.0 - step) / step).ceil() as usize;
    let below = (0..num_borders).take_while(|&k| (step + k as f64 * step) as f32 <= share).count();
    vec![(below.min(side - 1), 1.0)]
}

/// Linear between two rows, the first and the last kept.
fn linear(i: usize, len: usize, side: usize) -> Vec<(usize, f32)> {
    let at = if len > 1 { i as f32 * ((side - 1) as f32 / (len - 1) as f32) } else { 0.0 };
    let low = (at as usize).min(side - 1);
    let share = at - low as f32;
    vec![(low, 1.0 - share), ((low + 1).min(side - 1), share)]
}

/// Cubic convolution with a = -0.75 and half-pixel centres, as torch's `interpolate` (Keys 1981).
fn cubic(i: usize, len: usize, side: usize) -> Vec<(usize, f32)> {
    const A: f32 = -0.75;
    let at = (i as f32 + 0.5) * (side as f32 / len as f32) - 0.5;
    let low = at.floor();
    let t = at - low;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let place = |k: usize| (low as i64 + k as i64 - 1).clamp(0, side as i64 - 1) as usize;
    weights.iter().enumerate().map(|(k, &w)| (place(k), w)).collect()
}

/// Cosines and sines of all patches of `grid`, each of shape `[patches, 1, head_dim / 2]`.
pub(super) fn turn(
    rope: GridRope,
    head_dim: usize,
    grid: &Grid,
    device: &Device,
) -> candle_core::Result<(Tensor, Tensor)> {
    let half = head_dim / 2;
    let frequency = |theta: f32, i: usize, dim: usize| 1.0 / theta.powf((2 * i) as f32 / dim as f32);
    let quarter = half / 2;
    let frequencies: Vec<f32> = match rope {
        GridRope::Halves { theta } => {
            let part = (0..quarter).map(|i| frequency(theta, i, half));
            part.clone().chain(part).collect()
        }
        GridRope::EvenOdd { theta } | GridRope::Paired { theta } => {
            let every = |from: usize| (from..half).step_by(2).map(move |i| frequency(theta, i, head_dim));
            every(0).chain(every(1)).collect()
        }
    };
    // the first half of the angles takes the row
    let num_rows = frequencies.len().div_ceil(2);
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    for (row, col) in grid.places() {
        for (i, f) in frequencies.iter().enumerate() {
            let angle = (if i < num_rows { row } else { col }) as f32 * f;
            cos.push(angle.cos());
            sin.push(angle.sin());
        }
    }
    let tensor = |v: Vec<f32>| {
        let one = Tensor::from_vec(v, (grid.tile_len(), 1, half), device)?;
        Tensor::cat(&vec![one; grid.tiles], 0)
    };
    Ok((tensor(cos)?, tensor(sin)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_every_square_once() {
        let grid = Grid { tiles: 2, height: 10, width: 6, merge: 2 };
        let (order, lens) = grid.windows(2);
        // 5 x 3 squares a tile in windows of 2 x 2: the last ones are cut
        assert_eq!(order[..4], [0, 1, 3, 4]);
        assert_eq!(order[4..6], [2, 5]);
        assert_eq!(lens[..6], [16, 8, 16, 8, 8, 4]);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..30).collect::<Vec<u32>>());
        assert_eq!(lens.iter().sum::<usize>(), grid.len());
    }

    // numbers: torch 2.13, `interpolate(mode="bicubic", align_corners=False)` of a ramp
    #[test]
    fn resampling_keeps_ramps_and_sums() {
        for axis in [cubic, linear] {
            for (len, side) in [(6, 8), (9, 4), (1, 5), (5, 5)] {
                for i in 0..len {
                    let taps = axis(i, len, side);
                    let sum: f32 = taps.iter().map(|t| t.1).sum();
                    assert!((sum - 1.0).abs() < 1e-6, "{i} of {len}: {taps:?}");
                    assert!(taps.iter().all(|t| t.0 < side));
                }
            }
        }
        // in the middle of a ramp cubic convolution is the ramp itself
        let value: f32 = cubic(3, 6, 12).iter().map(|(i, w)| *i as f32 * w).sum();
        assert!((value - 6.5).abs() < 1e-5, "{value}");
        assert_eq!(linear(2, 5, 9), [(4, 1.0), (5, 0.0)]);
        assert_eq!((0..6).map(|i| bucket(i, 6, 6)[0].0).collect::<Vec<_>>().last(), Some(&5));
    }
}

//! Q2_K to Q6_K.
//!
//! Each finds a scale (and minimum) for every group, quantises those, and then rounds the numbers again
//! by the scales that the block really holds. A group whose scale came to zero keeps its first levels.

use super::search::{AffineFit, Steps, TINY, nearest, symmetric, symmetric_by_moves};
use super::{each_block, put_f16};
use crate::dequant::scale_min;

/// Numbers in a block.
const LEN: usize = 256;

/// The greatest scale and the greatest offset; neither below 0.
fn greatest(scales: &[f32], offsets: &[f32]) -> (f32, f32) {
    let max = |values: &[f32]| values.iter().fold(0.0, |m, &x| if x > m { x } else { m });
    (max(scales), max(offsets))
}

/// Rounds again by `d` and `offset`; `None` where there is no scale.
#[inline(always)]
fn again<const N: usize>(x: &[f32; N], d: f32, offset: f32, most: i32) -> Option<[u8; N]> {
    (d != 0.0).then(|| x.map(|x| nearest((x + offset) / d).clamp(0, most) as u8))
}

/// Two-bit levels, four to a byte: byte `l` of 32 has numbers `l`, `l + 32`, `l + 64`, `l + 96`.
fn pack_two_bits(levels: &[u8; LEN], out: &mut [u8]) {
    for (half, out) in out.chunks_exact_mut(32).enumerate() {
        for (l, out) in out.iter_mut().enumerate() {
            *out = (0..4).fold(0, |byte, run| byte | (levels[half * 128 + run * 32 + l] & 3) << (2 * run));
        }
    }
}

/// Q2_K.
pub(super) fn q2_k(values: &[f32], out: &mut [u8]) {
    let fit = AffineFit { most: 3, steps: Steps { first: -0.5, step: 0.1, count: 15 }, is_absolute: true };
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 84]| {
        let (groups, _) = x.as_chunks::<16>();
        let (mut scales, mut offsets, mut levels) = ([0.0; 16], [0.0; 16], [0; LEN]);
        for (i, group) in groups.iter().enumerate() {
            let fitted;
            (scales[i], offsets[i], fitted) = fit.run(group, &group.map(f32::abs));
            levels[i * 16..][..16].copy_from_slice(&fitted);
        }
        let (max_scale, max_offset) = greatest(&scales, &offsets);
        let part = |value: f32, max: f32| if max > 0.0 { nearest(15.0 / max * value) as u8 & 15 } else { 0 };
        for i in 0..16 {
            block[i] = part(scales[i], max_scale) | part(offsets[i], max_offset) << 4;
        }
        let d = put_f16(block, 80, max_scale / 15.0);
        let dmin = put_f16(block, 82, max_offset / 15.0);
        for (i, group) in groups.iter().enumerate() {
            let (scale, min) = (f32::from(block[i] & 15), f32::from(block[i] >> 4));
            if let Some(rounded) = again(group, d * scale, dmin * min, 3) {
                levels[i * 16..][..16].copy_from_slice(&rounded);
            }
        }
        pack_two_bits(&levels, &mut block[16..80]);
    });
}

/// Q3_K.
pub(super) fn q3_k(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 110]| {
        let (groups, _) = x.as_chunks::<16>();
        let (mut scales, mut levels) = ([0.0; 16], [0; LEN]);
        for (i, group) in groups.iter().enumerate() {
            let fitted;
            (scales[i], fitted) = symmetric_by_moves(group, 4);
            levels[i * 16..][..16].copy_from_slice(&fitted.map(|l| (l + 4) as u8));
        }
        let max_scale = super::extreme(&scales);
        let inverse = -32.0 / max_scale;
        let packed: [u8; 16] = match max_scale {
            0.0 => [0; 16],
            _ => scales.map(|s| (nearest(inverse * s).clamp(-32, 31) + 32) as u8),
        };
        let d = put_f16(block, 108, if max_scale == 0.0 { 0.0 } else { 1.0 / inverse });
        for i in 0..8 {
            block[96 + i] = (packed[i] & 15) | packed[i + 8] << 4;
        }
        for i in 0..4 {
            block[104 + i] = (0..4).fold(0, |byte, run| byte | packed[run * 4 + i] >> 4 << (2 * run));
        }
        for (i, group) in groups.iter().enumerate() {
            let scale = d * f32::from(packed[i] as i8 - 32);
            if scale != 0.0 {
                let rounded = group.map(|x| (nearest(x / scale).clamp(-4, 3) + 4) as u8);
                levels[i * 16..][..16].copy_from_slice(&rounded);
            }
        }
        for l in 0..32 {
            block[l] = (0..8).fold(0, |byte, run| byte | levels[run * 32 + l] >> 2 << run);
        }
        pack_two_bits(&levels, &mut block[32..96]);
    });
}

/// Scale and minimum of the 8 groups of a Q4_K or Q5_K block, written; then the levels by them.
fn affine_block<const BYTES: usize>(x: &[f32; LEN], block: &mut [u8; BYTES], fit: AffineFit) -> [u8; LEN] {
    let (groups, _) = x.as_chunks::<32>();
    let (mut scales, mut offsets, mut levels) = ([0.0; 8], [0.0; 8], [0; LEN]);
    for (i, group) in groups.iter().enumerate() {
        let mut sum = 0.0;
        for x in group {
            sum += x * x;
        }
        let spread = (sum / 32.0).sqrt();
        let fitted;
        (scales[i], offsets[i], fitted) = fit.run(group, &group.map(|x| spread + x.abs()));
        levels[i * 32..][..32].copy_from_slice(&fitted);
    }
    let (max_scale, max_offset) = greatest(&scales, &offsets);
    let part = |value: f32, max: f32| {
        let inverse = if max > 0.0 { 63.0 / max } else { 0.0 };
        (nearest(inverse * value) as u8).min(63)
    };
    let mut packed = [0u8; 12];
    for i in 0..8 {
        let (scale, min) = (part(scales[i], max_scale), part(offsets[i], max_offset));
        if i < 4 {
            (packed[i], packed[i + 4]) = (scale, min);
        } else {
            packed[i + 4] = (scale & 15) | min << 4;
            packed[i - 4] |= scale >> 4 << 6;
            packed[i] |= min >> 4 << 6;
        }
    }
    let d = put_f16(block, 0, max_scale / 63.0);
    let dmin = put_f16(block, 2, max_offset / 63.0);
    block[4..16].copy_from_slice(&packed);
    for (i, group) in groups.iter().enumerate() {
        let (scale, min) = scale_min(&packed, i);
        if let Some(rounded) = again(group, d * f32::from(scale), dmin * f32::from(min), fit.most) {
            levels[i * 32..][..32].copy_from_slice(&rounded);
        }
    }
    levels
}

/// Nibbles, two to a byte: byte `l` of 32 has numbers `l` and `l + 32`.
fn pack_nibbles(levels: &[u8; LEN], out: &mut [u8]) {
    for (quarter, out) in out.chunks_exact_mut(32).enumerate() {
        for (l, out) in out.iter_mut().enumerate() {
            *out = (levels[quarter * 64 + l] & 15) | levels[quarter * 64 + 32 + l] << 4;
        }
    }
}

/// Q4_K.
pub(super) fn q4_k(values: &[f32], out: &mut [u8]) {
    let fit = AffineFit { most: 15, steps: Steps { first: -1.0, step: 0.1, count: 20 }, is_absolute: false };
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 144]| {
        let levels = affine_block(x, block, fit);
        pack_nibbles(&levels, &mut block[16..]);
    });
}

/// Q5_K.
pub(super) fn q5_k(values: &[f32], out: &mut [u8]) {
    let fit = AffineFit { most: 31, steps: Steps { first: -0.5, step: 0.1, count: 15 }, is_absolute: false };
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 176]| {
        let levels = affine_block(x, block, fit);
        for l in 0..32 {
            block[16 + l] = (0..8).fold(0, |byte, group| byte | levels[group * 32 + l] >> 4 << group);
        }
        pack_nibbles(&levels, &mut block[48..]);
    });
}

/// Q6_K.
pub(super) fn q6_k(values: &[f32], out: &mut [u8]) {
    each_block(values, out, |x: &[f32; LEN], block: &mut [u8; 210]| {
        let (groups, _) = x.as_chunks::<16>();
        let (mut scales, mut levels) = ([0.0; 16], [0; LEN]);
        for (i, group) in groups.iter().enumerate() {
            let fitted;
            (scales[i], fitted) = symmetric(group, 32);
            levels[i * 16..][..16].copy_from_slice(&fitted.map(|l| (l + 32) as u8));
        }
        let max_scale = super::extreme(&scales);
        if max_scale.abs() < TINY {
            *block = [0; 210];
            return;
        }
        let inverse = -128.0 / max_scale;
        let d = put_f16(block, 208, 1.0 / inverse);
        for (i, group) in groups.iter().enumerate() {
            let scale = nearest(inverse * scales[i]).clamp(-128, 127) as i8;
            block[192 + i] = scale as u8;
            let scale = d * f32::from(scale);
            if scale != 0.0 {
                let rounded = group.map(|x| (nearest(x / scale).clamp(-32, 31) + 32) as u8);
                levels[i * 16..][..16].copy_from_slice(&rounded);
            }
        }
        for half in 0..2 {
            let level = |run: usize, l: usize| levels[half * 128 + run * 32 + l];
            for l in 0..32 {
                block[half * 64 + l] = (level(0, l) & 15) | level(2, l) << 4;
                block[half * 64 + 32 + l] = (level(1, l) & 15) | level(3, l) << 4;
                block[128 + half * 32 + l] =
                    (0..4).fold(0, |byte, run| byte | level(run, l) >> 4 << (2 * run));
            }
        }
    });
}

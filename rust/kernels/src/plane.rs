//! Keys and values of one head in one block of the KV cache.
//!
//! A block of [`BLOCK_LEN`] tokens keeps, for every head, a plane of keys and a plane of values, each
//! of `BLOCK_LEN * vector_bytes` bytes:
//!
//! - Keys stand coordinate by coordinate, the block's tokens side by side (`[head_dim, BLOCK_LEN]`):
//!   the scores of all tokens then come out of one pass in the lanes of two vectors, without a
//!   horizontal sum, and every query head of a group reuses what was loaded.
//! - Values stand token by token (`[BLOCK_LEN, head_dim]`), as the weighted sum reads them.
//! - Q8_0 keeps its bytes in the same order, the head padded to whole groups of 32 coordinates, and
//!   behind them the f16 scales: `[groups, BLOCK_LEN]` of keys, `[BLOCK_LEN, groups]` of values.

use alloyforge_types::{BLOCK_LEN, KvType};
use half::{bf16, f16};

use crate::convert;
use crate::isa::{Isa, Kernel, LANES, Simd};

/// Coordinates that share a scale in a Q8_0 cache.
pub(crate) const GROUP: usize = 32;

/// The layout of a head's planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaneLayout {
    /// How numbers are kept.
    pub ty: KvType,
    /// Width of the head.
    pub head_dim: usize,
}

impl PlaneLayout {
    /// Bytes of one plane.
    pub fn plane_bytes(&self) -> usize {
        BLOCK_LEN * self.ty.vector_bytes(self.head_dim)
    }

    /// Whether [attention](crate::attention) can read the planes themselves: where values are whole vectors
    /// and groups.
    pub(crate) fn is_native(&self) -> bool {
        self.head_dim.is_multiple_of(if self.ty == KvType::Q8_0 { GROUP } else { LANES })
    }

    /// From one token's values to the next in [`read_values`](Self::read_values): whole vectors.
    pub fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Writes the key of the token at `slot` of the block.
    ///
    /// # Panics
    /// Where a slice is too short.
    pub fn write_key(&self, isa: Isa, plane: &mut [u8], slot: usize, key: &[f32]) {
        self.write(isa, plane, key, (slot, BLOCK_LEN), (slot, BLOCK_LEN));
    }

    /// Writes the value of the token at `slot` of the block.
    ///
    /// # Panics
    /// Where a slice is too short.
    pub fn write_value(&self, isa: Isa, plane: &mut [u8], slot: usize, value: &[f32]) {
        let groups = self.head_dim.div_ceil(GROUP);
        let width = if self.ty == KvType::Q8_0 { groups * GROUP } else { self.head_dim };
        self.write(isa, plane, value, (slot * width, 1), (slot * groups, 1));
    }

    /// Writes a vector, and the scales of its groups: each from the first place on, one every so many.
    #[inline(always)]
    fn write(
        &self,
        isa: Isa,
        plane: &mut [u8],
        vector: &[f32],
        (first, step): (usize, usize),
        (first_scale, scale_step): (usize, usize),
    ) {
        let vector = &vector[..self.head_dim];
        match self.ty {
            KvType::F32 => {
                let places = plane.as_chunks_mut::<4>().0[first..].iter_mut().step_by(step);
                places.zip(vector).for_each(|(to, x)| *to = x.to_le_bytes());
            }
            KvType::F16 => {
                let plane = plane.as_chunks_mut::<2>().0;
                let mut halves = [0; 64];
                for (i, vector) in vector.chunks(64).enumerate() {
                    convert::f32_to_f16_bits(isa, vector, &mut halves);
                    let places = plane[first + i * 64 * step..].iter_mut().step_by(step);
                    places.zip(&halves[..vector.len()]).for_each(|(to, half)| *to = half.to_le_bytes());
                }
            }
            KvType::BF16 => {
                let places = plane.as_chunks_mut::<2>().0[first..].iter_mut().step_by(step);
                places.zip(vector).for_each(|(to, x)| *to = bf16::from_f32(*x).to_le_bytes());
            }
            KvType::Q8_0 => {
                let groups = self.head_dim.div_ceil(GROUP);
                let (bytes, scales) = plane.split_at_mut(groups * GROUP * BLOCK_LEN);
                let scales = scales.as_chunks_mut::<2>().0;
                for (group, numbers) in vector.chunks(GROUP).enumerate() {
                    let most = numbers.iter().fold(0.0f32, |most, x| {
                        // `max` would pass over NaN
                        if x.is_nan() || most.is_nan() { f32::NAN } else { most.max(x.abs()) }
                    });
                    let scale = f16::from_f32(most / 127.0);
                    scales[first_scale + group * scale_step] = scale.to_le_bytes();
                    let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
                    let numbers = numbers.iter().copied().chain(std::iter::repeat(0.0)).take(GROUP);
                    let places = bytes[first + group * GROUP * step..].iter_mut().step_by(step);
                    places.zip(numbers).for_each(|(to, x)| *to = (x * inverse).round() as i8 as u8);
                }
            }
        }
    }

    /// Reads all keys of a plane as f32, `[head_dim, BLOCK_LEN]`.
    ///
    /// # Panics
    /// Where a slice is too short.
    pub fn read_keys(&self, isa: Isa, plane: &[u8], out: &mut [f32]) {
        let out = &mut out[..self.head_dim * BLOCK_LEN];
        match self.ty {
            KvType::F32 => convert::f32_from_bytes(plane, out),
            KvType::F16 => convert::f16_to_f32(isa, plane, out),
            KvType::BF16 => convert::bf16_to_f32(isa, plane, out),
            KvType::Q8_0 => isa.run(Keys { plane, out }),
        }
    }

    /// Reads all values of a plane as f32, one token every [`value_stride`](Self::value_stride)
    /// numbers. What lies between two is of no account.
    ///
    /// # Panics
    /// Where a slice is too short.
    pub fn read_values(&self, isa: Isa, plane: &[u8], out: &mut [f32]) {
        let stride = self.value_stride();
        let out = &mut out[..BLOCK_LEN * stride];
        if self.ty == KvType::Q8_0 {
            return isa.run(Values { plane, head_dim: self.head_dim, out });
        }
        for (row, bytes) in out.chunks_exact_mut(stride).zip(plane.chunks_exact(plane.len() / BLOCK_LEN)) {
            let row = &mut row[..self.head_dim];
            match self.ty {
                KvType::F16 => convert::f16_to_f32(isa, bytes, row),
                KvType::BF16 => convert::bf16_to_f32(isa, bytes, row),
                KvType::F32 | KvType::Q8_0 => convert::f32_from_bytes(bytes, row),
            }
        }
    }
}

/// Keys of bytes under scales.
struct Keys<'a> {
    plane: &'a [u8],
    /// `[head_dim, BLOCK_LEN]`.
    out: &'a mut [f32],
}

impl Kernel for Keys<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let head_dim = self.out.len() / BLOCK_LEN;
        let (bytes, scales) = self.plane.split_at(head_dim.next_multiple_of(GROUP) * BLOCK_LEN);
        let scales = scales.as_chunks::<2>().0.as_chunks::<LANES>().0;
        let rows = self.out.as_chunks_mut::<LANES>().0.chunks_exact_mut(BLOCK_LEN / LANES);
        let bytes = bytes.as_chunks::<LANES>().0.chunks_exact(BLOCK_LEN / LANES);
        for (d, (row, bytes)) in rows.zip(bytes).enumerate() {
            let scales = &scales[d / GROUP * (BLOCK_LEN / LANES)..];
            for ((out, bytes), scales) in row.iter_mut().zip(bytes).zip(scales) {
                let numbers = s.load_i8(&bytes.map(|byte| byte as i8));
                s.store(s.mul(numbers, s.load_f16(&scales.map(u16::from_le_bytes))), out);
            }
        }
    }
}

/// Values of bytes under scales.
struct Values<'a> {
    plane: &'a [u8],
    head_dim: usize,
    /// One token every so many numbers, in whole vectors.
    out: &'a mut [f32],
}

impl Kernel for Values<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (groups, stride) = (self.head_dim.div_ceil(GROUP), self.out.len() / BLOCK_LEN);
        let (bytes, scales) = self.plane.split_at(groups * GROUP * BLOCK_LEN);
        let rows = self.out.chunks_exact_mut(stride).zip(bytes.chunks_exact(groups * GROUP));
        for ((row, bytes), scales) in rows.zip(scales.as_chunks::<2>().0.chunks_exact(groups)) {
            let vectors = row.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes.as_chunks::<LANES>().0);
            for (n, (out, bytes)) in vectors.enumerate() {
                let scale = u16::from_le_bytes(scales[n * LANES / GROUP]);
                let numbers = s.load_i8(&bytes.map(|byte| byte as i8));
                s.store(s.mul(numbers, s.load_f16(&[scale; LANES])), out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPES: [KvType; 4] = [KvType::F32, KvType::F16, KvType::BF16, KvType::Q8_0];

    /// The most that a number among `vector` may move.
    fn tolerance(ty: KvType, vector: &[f32]) -> f32 {
        let most = vector.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        match ty {
            KvType::F32 => 0.0,
            KvType::F16 => most / 2048.0,
            KvType::BF16 => most / 256.0,
            // half a step, and the rounding of the step to f16
            KvType::Q8_0 => most / 127.0 * 0.5 + most / 2048.0,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(head_dim in 1usize..150, seed in any::<u16>()) {
            let vectors: Vec<Vec<f32>> = (0..BLOCK_LEN)
                .map(|t| (0..head_dim).map(|d| (f32::from(seed) + (t * 151 + d) as f32).sin() * 3.0).collect())
                .collect();
            for ty in TYPES {
                let layout = PlaneLayout { ty, head_dim };
                let (mut keys, mut values) = (vec![0; layout.plane_bytes()], vec![0; layout.plane_bytes()]);
                // backwards: a slot's bytes are its own
                for (slot, vector) in vectors.iter().enumerate().rev() {
                    layout.write_key(Isa::detect(), &mut keys, slot, vector);
                    layout.write_value(Isa::detect(), &mut values, slot, vector);
                }
                for isa in Isa::available() {
                    let mut wide_keys = vec![9.0; head_dim * BLOCK_LEN];
                    let mut wide_values = vec![9.0; layout.value_stride() * BLOCK_LEN];
                    layout.read_keys(isa, &keys, &mut wide_keys);
                    layout.read_values(isa, &values, &mut wide_values);
                    for (slot, vector) in vectors.iter().enumerate() {
                        for (d, x) in vector.iter().enumerate() {
                            let near = tolerance(ty, vector);
                            let (k, v) = (wide_keys[d * BLOCK_LEN + slot], wide_values[slot * layout.value_stride() + d]);
                            prop_assert!((k - x).abs() <= near, "{ty:?}: {x} became {k}");
                            prop_assert_eq!(k, v);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nan_is_kept() {
        for ty in TYPES {
            let layout = PlaneLayout { ty, head_dim: 40 };
            let mut plane = vec![0; layout.plane_bytes()];
            let mut vector = vec![1.0; 40];
            vector[33] = f32::NAN;
            layout.write_key(Isa::detect(), &mut plane, 7, &vector);
            let mut wide = vec![0.0; 40 * BLOCK_LEN];
            for isa in Isa::available() {
                layout.read_keys(isa, &plane, &mut wide);
                assert!(wide[33 * BLOCK_LEN + 7].is_nan());
                assert_eq!(wide[8 * BLOCK_LEN + 7], layout_of_one(ty));
            }
        }
    }

    /// What 1.0 comes back as.
    fn layout_of_one(ty: KvType) -> f32 {
        match ty {
            KvType::Q8_0 => 127.0 * f16::from_f32(1.0 / 127.0).to_f32(),
            _ => 1.0,
        }
    }
}

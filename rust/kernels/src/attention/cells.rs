//! How attention reads the keys and values of one block.
//!
//! Few lines read what the cache holds and widen it on the way, because a copy in f32 would cost more than
//! they do; many lines share such a copy. Both come to the same numbers.

use alloyforge_types::BLOCK_LEN;

use crate::isa::{LANES, Simd};
use crate::plane::GROUP;

/// The keys and values of a block.
pub(super) trait Cells: Copy {
    /// What [`keys`](Self::keys) are multiplied with in group `group` of the coordinates and vector
    /// `vector` of the tokens, if anything.
    ///
    /// # Safety
    /// There is such a group, and such a vector.
    #[inline(always)]
    unsafe fn key_scales<S: Simd>(self, s: S, _group: usize, _vector: usize) -> S::V {
        s.splat(0.0)
    }

    /// Coordinate `d` of the keys of vector `vector` of the tokens.
    ///
    /// # Safety
    /// There is such a coordinate, and such a vector.
    unsafe fn keys<S: Simd>(self, s: S, d: usize, vector: usize, scales: S::V) -> S::V;

    /// Vector `n` of the value at `slot`.
    ///
    /// # Safety
    /// There is such a vector, and such a slot.
    unsafe fn values<S: Simd>(self, s: S, slot: usize, n: usize) -> S::V;
}

/// Sixteen of something.
///
/// # Safety
/// They are there, at any alignment, and every bit pattern is valid.
#[inline(always)]
unsafe fn sixteen<T: Copy>(from: *const T) -> [T; LANES] {
    // SAFETY: the caller's promise.
    unsafe { from.cast::<[T; LANES]>().read_unaligned() }
}

macro_rules! plain {
    ($(#[$doc:meta])* $name:ident $bits:ty, $load:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name {
            /// `[head_dim, BLOCK_LEN]`.
            pub(super) keys: *const $bits,
            /// `[BLOCK_LEN, value_stride]`.
            pub(super) values: *const $bits,
            /// Whole vectors.
            pub(super) value_stride: usize,
        }

        impl Cells for $name {
            #[inline(always)]
            unsafe fn keys<S: Simd>(self, s: S, d: usize, vector: usize, _: S::V) -> S::V {
                // SAFETY: the caller's promise.
                s.$load(&unsafe { sixteen(self.keys.add(d * BLOCK_LEN + vector * LANES)) })
            }

            #[inline(always)]
            unsafe fn values<S: Simd>(self, s: S, slot: usize, n: usize) -> S::V {
                // SAFETY: the caller's promise.
                s.$load(&unsafe { sixteen(self.values.add(slot * self.value_stride + n * LANES)) })
            }
        }
    };
}

plain!(
    /// Numbers.
    Wide f32, load
);
plain!(
    /// IEEE halves.
    Half u16, load_f16
);
plain!(
    /// The upper halves of numbers.
    Brain u16, load_bf16
);

/// Bytes under scales, which have been widened.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    /// `[head_dim, BLOCK_LEN]`.
    pub(super) keys: *const i8,
    /// `[groups, BLOCK_LEN]`.
    pub(super) key_scales: *const f32,
    /// `[BLOCK_LEN, groups * GROUP]`.
    pub(super) values: *const i8,
    /// `[BLOCK_LEN, groups]`.
    pub(super) value_scales: *const f32,
    pub(super) groups: usize,
}

impl Cells for Bytes {
    #[inline(always)]
    unsafe fn key_scales<S: Simd>(self, s: S, group: usize, vector: usize) -> S::V {
        // SAFETY: the caller's promise.
        s.load(&unsafe { sixteen(self.key_scales.add(group * BLOCK_LEN + vector * LANES)) })
    }

    #[inline(always)]
    unsafe fn keys<S: Simd>(self, s: S, d: usize, vector: usize, scales: S::V) -> S::V {
        // SAFETY: the caller's promise.
        s.mul(s.load_i8(&unsafe { sixteen(self.keys.add(d * BLOCK_LEN + vector * LANES)) }), scales)
    }

    #[inline(always)]
    unsafe fn values<S: Simd>(self, s: S, slot: usize, n: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = sixteen(self.values.add(slot * self.groups * GROUP + n * LANES));
            let scale = *self.value_scales.add(slot * self.groups + n * LANES / GROUP);
            s.mul(s.load_i8(&bytes), s.splat(scale))
        }
    }
}

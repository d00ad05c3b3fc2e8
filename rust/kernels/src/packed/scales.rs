//! The scales and minima of one block of a tile.

use crate::dequant::half_of_e8m0;
use crate::isa::{LANES, Simd};

/// What the codes of a block are multiplied with and what is added, by half of the block where the
/// format has scales for 16 columns; otherwise the first alone counts.
#[derive(Clone, Copy)]
pub(crate) struct Factors<V> {
    pub(crate) scales: [V; 2],
    pub(crate) minima: [V; 2],
}

/// How scales lie in memory.
pub(crate) trait Scales {
    /// Bytes of a block.
    const BYTES: usize;

    /// Bytes of 256 columns beside; 0 where there are none.
    const SUPER_BYTES: usize;

    /// Either half of a block has a scale of its own.
    const HAS_HALVES: bool = false;

    /// There are minima.
    const HAS_MINIMA: bool = false;

    /// The factors of a block.
    ///
    /// # Safety
    /// The pointers are to a block's scales and to those of its 256 columns.
    unsafe fn load<S: Simd>(s: S, scales: *const u8, supers: *const u8) -> Factors<S::V>;
}

/// Sixteen of something at a place.
///
/// # Safety
/// They are there, and `T` is bytes of which every pattern is valid, without demands on alignment.
#[inline(always)]
unsafe fn sixteen<T: Copy>(from: *const u8, at: usize) -> [T; LANES] {
    // SAFETY: the caller's promise.
    unsafe { from.add(at).cast::<[T; LANES]>().read_unaligned() }
}

/// Sixteen halves at a place, as numbers.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn halves<S: Simd>(s: S, from: *const u8, at: usize) -> S::V {
    // SAFETY: the caller's promise.
    s.load_f16(&unsafe { sixteen(from, at) })
}

/// With the sign turned.
#[inline(always)]
fn negated<S: Simd>(s: S, v: S::V) -> S::V {
    s.mul(v, s.splat(-1.0))
}

/// One half-precision scale.
pub(crate) struct Half;

impl Scales for Half {
    const BYTES: usize = 32;
    const SUPER_BYTES: usize = 0;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, scales: *const u8, _: *const u8) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        let scale = unsafe { halves(s, scales, 0) };
        Factors { scales: [scale; 2], minima: [s.splat(0.0); 2] }
    }
}

/// Half-precision scale and minimum.
pub(crate) struct HalfMin;

impl Scales for HalfMin {
    const BYTES: usize = 64;
    const SUPER_BYTES: usize = 0;
    const HAS_MINIMA: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, scales: *const u8, _: *const u8) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        let (scale, minimum) = unsafe { (halves(s, scales, 0), halves(s, scales, 32)) };
        Factors { scales: [scale; 2], minima: [minimum; 2] }
    }
}

/// A power of two.
pub(crate) struct Power;

impl Scales for Power {
    const BYTES: usize = 16;
    const SUPER_BYTES: usize = 0;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, scales: *const u8, _: *const u8) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        let exponents: [u8; LANES] = unsafe { sixteen(scales, 0) };
        let mut powers = [0.0; LANES];
        for (power, exponent) in powers.iter_mut().zip(exponents) {
            *power = half_of_e8m0(exponent);
        }
        let scale = s.load(&powers);
        Factors { scales: [scale; 2], minima: [s.splat(0.0); 2] }
    }
}

/// A signed byte, under a half-precision scale of 256 columns.
pub(crate) struct Signed;

impl Scales for Signed {
    const BYTES: usize = 16;
    const SUPER_BYTES: usize = 32;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, scales: *const u8, supers: *const u8) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        let scale = unsafe { s.mul(halves(s, supers, 0), s.load_i8(&sixteen(scales, 0))) };
        Factors { scales: [scale; 2], minima: [s.splat(0.0); 2] }
    }
}

/// A signed byte for either half, under a half-precision scale of 256 columns.
pub(crate) struct SignedPair;

impl Scales for SignedPair {
    const BYTES: usize = 32;
    const SUPER_BYTES: usize = 32;
    const HAS_HALVES: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, scales: *const u8, supers: *const u8) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        unsafe {
            let scale = halves(s, supers, 0);
            let first = s.mul(scale, s.load_i8(&sixteen(scales, 0)));
            let second = s.mul(scale, s.load_i8(&sixteen(scales, 16)));
            Factors { scales: [first, second], minima: [s.splat(0.0); 2] }
        }
    }
}

/// A byte each for scale and minimum, under half-precision ones of 256 columns; the minimum is taken
/// away.
pub(crate) struct ByteMin;

impl Scales for ByteMin {
    const BYTES: usize = 32;
    const SUPER_BYTES: usize = 64;
    const HAS_MINIMA: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, scales: *const u8, supers: *const u8) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        unsafe {
            let scale = s.mul(halves(s, supers, 0), s.load_u8(&sixteen(scales, 0)));
            let minimum = s.mul(halves(s, supers, 32), s.load_u8(&sixteen(scales, 16)));
            Factors { scales: [scale; 2], minima: [negated(s, minimum); 2] }
        }
    }
}

/// Sixteen scales and negated minima from nibbles.
#[inline(always)]
fn nibble_pair<S: Simd>(s: S, d: S::V, dmin: S::V, both: &[u8; LANES]) -> (S::V, S::V) {
    let (mut low, mut high) = ([0; LANES], [0; LANES]);
    for i in 0..LANES {
        (low[i], high[i]) = (both[i] & 15, both[i] >> 4);
    }
    (s.mul(d, s.load_u8(&low)), negated(s, s.mul(dmin, s.load_u8(&high))))
}

/// A nibble each for scale and minimum of either half, under half-precision ones of 256 columns; the
/// minimum is taken away.
pub(crate) struct NibbleMinPair;

impl Scales for NibbleMinPair {
    const BYTES: usize = 32;
    const SUPER_BYTES: usize = 64;
    const HAS_HALVES: bool = true;
    const HAS_MINIMA: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, scales: *const u8, supers: *const u8) -> Factors<S::V> {
        // SAFETY: the caller's promise.
        unsafe {
            let (d, dmin) = (halves(s, supers, 0), halves(s, supers, 32));
            let first = nibble_pair(s, d, dmin, &sixteen(scales, 0));
            let second = nibble_pair(s, d, dmin, &sixteen(scales, 16));
            Factors { scales: [first.0, second.0], minima: [first.1, second.1] }
        }
    }
}

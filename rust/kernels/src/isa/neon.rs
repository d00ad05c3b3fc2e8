//! NEON: numbers on every aarch64, and products of bytes as far as the machine has them.
//!
//! The instructions for products of four bytes, `sdot` of FEAT_DotProd and `usdot` of FEAT_I8MM, have no
//! stable intrinsic and are written out. Widening multiplications do the same on machines without.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Int8, Kernel, LANES, Simd};

/// Proof that the machine has NEON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neon(());

/// Proof that the machine has NEON and FEAT_DotProd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeonDot(());

/// Proof that the machine has NEON and FEAT_I8MM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeonI8mm(());

impl Neon {
    /// The token, where the machine has the instructions.
    pub fn new() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// Runs `kernel`, compiled for NEON.
    #[inline]
    pub fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn compiled<K: Kernel>(token: Neon, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token exists only where the machine has this feature.
        unsafe { compiled(self, kernel) }
    }
}

impl NeonDot {
    /// The token, where the machine has the instructions.
    pub fn new() -> Option<Self> {
        (Neon::new().is_some() && is_aarch64_feature_detected!("dotprod")).then_some(Self(()))
    }

    /// The set without products of bytes.
    pub fn without(self) -> Neon {
        Neon(())
    }

    /// Runs `kernel`, compiled for NEON with dot products.
    #[inline]
    pub fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn compiled<K: Kernel>(token: NeonDot, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token exists only where the machine has these features.
        unsafe { compiled(self, kernel) }
    }
}

impl NeonI8mm {
    /// The token, where the machine has the instructions.
    pub fn new() -> Option<Self> {
        (Neon::new().is_some() && is_aarch64_feature_detected!("i8mm")).then_some(Self(()))
    }

    /// The set without products of bytes.
    pub fn without(self) -> Neon {
        Neon(())
    }

    /// Runs `kernel`, compiled for NEON with dot products of mixed signs.
    #[inline]
    pub fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,i8mm")]
        fn compiled<K: Kernel>(token: NeonI8mm, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token exists only where the machine has these features.
        unsafe { compiled(self, kernel) }
    }
}

/// Four vectors, each made of those of the arguments.
macro_rules! four {
    (|$i:ident| $value:expr) => {
        [
            {
                const $i: usize = 0;
                $value
            },
            {
                const $i: usize = 1;
                $value
            },
            {
                const $i: usize = 2;
                $value
            },
            {
                const $i: usize = 3;
                $value
            },
        ]
    };
}

/// Four halves, widened.
#[inline(always)]
fn widen_halves(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: the instruction is part of NEON, which a caller's token proves.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// The arithmetic of numbers, which all sets have alike.
macro_rules! arithmetic {
    ($($token:ty)*) => { $(
        impl Simd for $token {
            type V = [float32x4_t; 4];

            const REGISTERS: usize = 8;

            #[inline(always)]
            fn splat(self, x: f32) -> Self::V {
                // SAFETY: the token proves NEON.
                unsafe { [vdupq_n_f32(x); 4] }
            }

            #[inline(always)]
            fn load(self, from: &[f32; LANES]) -> Self::V {
                // SAFETY: both are 16 floats, every bit pattern of which is valid.
                unsafe { std::mem::transmute::<[f32; LANES], Self::V>(*from) }
            }

            #[inline(always)]
            fn store(self, v: Self::V, to: &mut [f32; LANES]) {
                // SAFETY: both are 16 floats, every bit pattern of which is valid.
                *to = unsafe { std::mem::transmute::<Self::V, [f32; LANES]>(v) };
            }

            #[inline(always)]
            fn load_f16(self, from: &[u16; LANES]) -> Self::V {
                // SAFETY: both are 16 halves, every bit pattern of which is valid.
                let halves = unsafe { std::mem::transmute::<[u16; LANES], [uint16x4_t; 4]>(*from) };
                four!(|I| widen_halves(halves[I]))
            }

            #[inline(always)]
            fn load_u8(self, from: &[u8; LANES]) -> Self::V {
                // SAFETY: the token proves NEON; both types are 16 bytes, every bit pattern valid.
                unsafe {
                    let bytes = std::mem::transmute::<[u8; LANES], uint8x16_t>(*from);
                    let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
                    [
                        vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                        vcvtq_f32_u32(vmovl_high_u16(low)),
                        vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                        vcvtq_f32_u32(vmovl_high_u16(high)),
                    ]
                }
            }

            #[inline(always)]
            fn load_i8(self, from: &[i8; LANES]) -> Self::V {
                // SAFETY: the token proves NEON; both types are 16 bytes, every bit pattern valid.
                unsafe {
                    let bytes = std::mem::transmute::<[i8; LANES], int8x16_t>(*from);
                    let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
                    [
                        vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                        vcvtq_f32_s32(vmovl_high_s16(low)),
                        vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                        vcvtq_f32_s32(vmovl_high_s16(high)),
                    ]
                }
            }

            #[inline(always)]
            fn sums_to_f32(self, sums: [int32x4_t; 4]) -> Self::V {
                // SAFETY: the token proves NEON.
                unsafe { four!(|I| vcvtq_f32_s32(sums[I])) }
            }

            #[inline(always)]
            fn add(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: the token proves NEON.
                unsafe { four!(|I| vaddq_f32(a[I], b[I])) }
            }

            #[inline(always)]
            fn mul(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: the token proves NEON.
                unsafe { four!(|I| vmulq_f32(a[I], b[I])) }
            }

            #[inline(always)]
            fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // SAFETY: the token proves NEON.
                unsafe { four!(|I| vfmaq_f32(c[I], a[I], b[I])) }
            }

            #[inline(always)]
            fn mul_add_scalar(self, a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }
        }
    )* };
}

arithmetic!(Neon NeonDot NeonI8mm);

/// What all sets do with bytes alike.
macro_rules! bytes {
    () => {
        type Bytes = [uint8x16_t; 4];
        type Sums = [int32x4_t; 4];
        type Partial = [int32x4_t; 4];

        #[inline(always)]
        fn load_bytes(self, from: &[u8; 64]) -> Self::Bytes {
            // SAFETY: both are 64 bytes, every bit pattern of which is valid.
            unsafe { std::mem::transmute::<[u8; 64], Self::Bytes>(*from) }
        }

        #[inline(always)]
        fn store_bytes(self, bytes: Self::Bytes, to: &mut [u8; 64]) {
            // SAFETY: both are 64 bytes, every bit pattern of which is valid.
            *to = unsafe { std::mem::transmute::<Self::Bytes, [u8; 64]>(bytes) };
        }

        #[inline(always)]
        fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            // SAFETY: the token proves NEON.
            unsafe { four!(|I| vandq_u8(a[I], b[I])) }
        }

        #[inline(always)]
        fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            // SAFETY: the token proves NEON.
            unsafe { four!(|I| vorrq_u8(a[I], b[I])) }
        }

        #[inline(always)]
        fn splat_byte(self, byte: u8) -> Self::Bytes {
            // SAFETY: the token proves NEON.
            unsafe { [vdupq_n_u8(byte); 4] }
        }

        #[inline(always)]
        fn up(self, bytes: Self::Bytes, bits: u32) -> Self::Bytes {
            // SAFETY: the token proves NEON.
            unsafe {
                let bits = vdupq_n_s8(bits as i8);
                four!(|I| vshlq_u8(bytes[I], bits))
            }
        }

        #[inline(always)]
        fn down(self, bytes: Self::Bytes, bits: u32) -> Self::Bytes {
            // SAFETY: the token proves NEON.
            unsafe {
                let bits = vdupq_n_s8(-(bits as i8));
                four!(|I| vshlq_u8(bytes[I], bits))
            }
        }

        #[inline(always)]
        fn look_up(self, table: &[u8; 16], places: Self::Bytes) -> Self::Bytes {
            // SAFETY: the token proves NEON; both types are 16 bytes.
            unsafe {
                let table = std::mem::transmute::<[u8; 16], uint8x16_t>(*table);
                four!(|I| vqtbl1q_u8(table, places[I]))
            }
        }

        #[inline(always)]
        fn splat_sum(self, x: i32) -> Self::Sums {
            // SAFETY: the token proves NEON.
            unsafe { [vdupq_n_s32(x); 4] }
        }

        #[inline(always)]
        fn open(self, sums: Self::Sums) -> Self::Partial {
            sums
        }

        #[inline(always)]
        fn settle(self, _: Self::Sums, partial: Self::Partial) -> Self::Sums {
            partial
        }
    };
}

/// Products of signed bytes: weights less than 128 are such, and others less 128 are.
macro_rules! signed_products {
    ($product:ident) => {
        #[inline(always)]
        fn dot(self, sums: Self::Partial, weights: Self::Bytes, activations: [i8; 4]) -> Self::Partial {
            // SAFETY: the token proves NEON.
            unsafe {
                let a = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_ne_bytes(activations.map(|x| x as u8))));
                four!(|I| $product(sums[I], vreinterpretq_s8_u8(weights[I]), a))
            }
        }

        #[inline(always)]
        fn start_biased(self, _: i32) -> Self::Sums {
            self.splat_sum(0)
        }

        #[inline(always)]
        fn dot_biased(self, sums: Self::Sums, weights: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
            // SAFETY: the token proves NEON.
            let weights = unsafe {
                let sign = vdupq_n_u8(128);
                four!(|I| veorq_u8(weights[I], sign))
            };
            self.dot(sums, weights, activations)
        }
    };
}

/// Four products of signed bytes added to each sum, two and two in 16 bits first: 2 * 128 * 127 is below
/// 2^15.
///
/// # Safety
/// The machine has NEON.
#[inline(always)]
unsafe fn widening_product(sums: int32x4_t, weights: int8x16_t, activations: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's condition.
    unsafe {
        let low = vmull_s8(vget_low_s8(weights), vget_low_s8(activations));
        let high = vmull_high_s8(weights, activations);
        vpadalq_s16(sums, vpaddq_s16(low, high))
    }
}

/// Four products of signed bytes added to each sum.
///
/// # Safety
/// The machine has FEAT_DotProd.
#[inline(always)]
unsafe fn sdot(sums: int32x4_t, weights: int8x16_t, activations: int8x16_t) -> int32x4_t {
    let mut out = sums;
    // SAFETY: the caller's condition.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) out, in(vreg) weights, in(vreg) activations,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Four products of an unsigned byte with a signed one added to each sum.
///
/// # Safety
/// The machine has FEAT_I8MM.
#[inline(always)]
unsafe fn usdot(sums: int32x4_t, weights: uint8x16_t, activations: int8x16_t) -> int32x4_t {
    let mut out = sums;
    // SAFETY: the caller's condition.
    unsafe {
        asm!(".arch_extension i8mm", "usdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) out, in(vreg) weights, in(vreg) activations,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

impl Int8 for Neon {
    bytes!();
    signed_products!(widening_product);
}

impl Int8 for NeonDot {
    bytes!();
    signed_products!(sdot);
}

impl Int8 for NeonI8mm {
    bytes!();

    #[inline(always)]
    fn dot(self, sums: Self::Partial, weights: Self::Bytes, activations: [i8; 4]) -> Self::Partial {
        // SAFETY: the token proves NEON and FEAT_I8MM.
        unsafe {
            let a = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_ne_bytes(activations.map(|x| x as u8))));
            four!(|I| usdot(sums[I], weights[I], a))
        }
    }

    #[inline(always)]
    fn start_biased(self, negated_sum: i32) -> Self::Sums {
        self.splat_sum(negated_sum << 7)
    }

    #[inline(always)]
    fn dot_biased(self, sums: Self::Sums, weights: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
        self.dot(sums, weights, activations)
    }
}

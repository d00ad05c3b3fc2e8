//! AVX2 with FMA, and AVX-512.
//!
//! Vectors and arrays of as many numbers are turned into each other by value: the compiler makes the
//! same loads and stores of that as of the intrinsics for them, and a build with debug assertions does
//! not check every one.

mod int8;

use std::arch::x86_64::*;

use super::{Int8, Kernel, LANES, Simd};

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that the machine has AVX-512 F, BW, DQ and VL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512(());

/// Proof that the machine has AVX2, FMA, F16C and AVX-VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2Vnni(Avx2);

/// Proof that the machine has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512Vnni(Avx512);

impl Avx2 {
    /// The token, where the machine has the instructions.
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Self(()))
    }

    /// Runs `kernel`, compiled for AVX2.
    #[inline]
    pub fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<K: Kernel>(token: Avx2, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token exists only where the machine has these features.
        unsafe { compiled(self, kernel) }
    }
}

impl Avx512 {
    /// The token, where the machine has the instructions.
    pub fn new() -> Option<Self> {
        (Avx2::new().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl"))
        .then_some(Self(()))
    }

    /// Runs `kernel`, compiled for AVX-512.
    #[inline]
    pub fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        fn compiled<K: Kernel>(token: Avx512, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token exists only where the machine has these features.
        unsafe { compiled(self, kernel) }
    }
}

impl Avx2Vnni {
    /// The set without products of bytes.
    pub fn without(self) -> Avx2 {
        self.0
    }

    /// The token, where the machine has the instructions.
    pub fn new() -> Option<Self> {
        Avx2::new().filter(|_| is_x86_feature_detected!("avxvnni")).map(Self)
    }

    /// Runs `kernel`, compiled for AVX2 with AVX-VNNI.
    #[inline]
    pub fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn compiled<K: Kernel>(token: Avx2Vnni, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token exists only where the machine has these features.
        unsafe { compiled(self, kernel) }
    }
}

impl Avx512Vnni {
    /// The set without products of bytes.
    pub fn without(self) -> Avx512 {
        self.0
    }

    /// The token, where the machine has the instructions.
    pub fn new() -> Option<Self> {
        Avx512::new().filter(|_| is_x86_feature_detected!("avx512vnni")).map(Self)
    }

    /// Runs `kernel`, compiled for AVX-512 with VNNI.
    #[inline]
    pub fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn compiled<K: Kernel>(token: Avx512Vnni, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: the token exists only where the machine has these features.
        unsafe { compiled(self, kernel) }
    }
}

impl Simd for Avx2 {
    type V = [__m256; 2];

    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        // SAFETY: both are 16 floats, every bit pattern of which is valid.
        unsafe { std::mem::transmute::<[f32; LANES], [__m256; 2]>(*from) }
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        // SAFETY: both are 16 floats, every bit pattern of which is valid.
        *to = unsafe { std::mem::transmute::<[__m256; 2], [f32; LANES]>(v) };
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::V {
        // SAFETY: the token proves F16C; both types are 32 bytes, every bit pattern of which is valid.
        unsafe {
            let [low, high] = std::mem::transmute::<[u16; LANES], [__m128i; 2]>(*from);
            [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)]
        }
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::V {
        // SAFETY: the token proves AVX2; both types are 16 bytes, every bit pattern of which is valid.
        unsafe {
            let bytes = std::mem::transmute::<[u8; LANES], __m128i>(*from);
            let (low, high) = (_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes)));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        // SAFETY: the token proves AVX2; both types are 16 bytes, every bit pattern of which is valid.
        unsafe {
            let bytes = std::mem::transmute::<[i8; LANES], __m128i>(*from);
            let (low, high) = (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }

    #[inline(always)]
    fn sums_to_f32(self, sums: [__m256i; 2]) -> Self::V {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])] }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token proves FMA.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn mul_add_scalar(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::V {
        // SAFETY: the token proves AVX2; both types are 32 bytes, every bit pattern of which is valid.
        unsafe {
            let [low, high] = std::mem::transmute::<[u16; LANES], [__m128i; 2]>(*from);
            let low = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(low));
            let high = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(high));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }

    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let v = _mm256_max_ps(v[0], v[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }

    #[inline(always)]
    fn keep(self, v: Self::V, from: usize, to: usize, other: f32) -> Self::V {
        // SAFETY: the token proves AVX2.
        unsafe {
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let lanes = [low, _mm256_add_epi32(low, _mm256_set1_epi32(8))];
            let (from, to) = (_mm256_set1_epi32(from as i32), _mm256_set1_epi32(to as i32));
            let mut kept = v;
            for i in 0..2 {
                let is_before = _mm256_cmpgt_epi32(from, lanes[i]);
                let is_in = _mm256_andnot_si256(is_before, _mm256_cmpgt_epi32(to, lanes[i]));
                kept[i] = _mm256_blendv_ps(_mm256_set1_ps(other), v[i], _mm256_castsi256_ps(is_in));
            }
            kept
        }
    }

    #[inline(always)]
    fn magnitude(self, numbers: &[f32; 2 * LANES]) -> u32 {
        // SAFETY: the token proves AVX2; both types are 128 bytes.
        unsafe {
            let [a, b, c, d] = std::mem::transmute::<[f32; 2 * LANES], [__m256i; 4]>(*numbers);
            let mask = _mm256_set1_epi32(0x7fff_ffff);
            let ab = _mm256_max_epu32(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask));
            let cd = _mm256_max_epu32(_mm256_and_si256(c, mask), _mm256_and_si256(d, mask));
            let v = _mm256_max_epu32(ab, cd);
            let v = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            let v = _mm_max_epu32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
            let v = _mm_max_epu32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v));
            _mm_cvtsi128_si32(v) as u32
        }
    }

    #[inline(always)]
    fn nearest_bytes(self, numbers: &[f32; 2 * LANES], factor: f32) -> ([i8; 2 * LANES], [i32; 2]) {
        // SAFETY: the token proves AVX2; the types are 128 and 32 bytes. The processor rounds to nearest,
        // ties to even, as every Rust program has it.
        unsafe {
            let [a, b, c, d] = std::mem::transmute::<[f32; 2 * LANES], [__m256; 4]>(*numbers);
            let factor = _mm256_set1_ps(factor);
            let (a, b) =
                (_mm256_cvtps_epi32(_mm256_mul_ps(a, factor)), _mm256_cvtps_epi32(_mm256_mul_ps(b, factor)));
            let (c, d) =
                (_mm256_cvtps_epi32(_mm256_mul_ps(c, factor)), _mm256_cvtps_epi32(_mm256_mul_ps(d, factor)));
            // packing goes by halves of the registers; the last step puts them in order
            let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            let both = [_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)];
            let mut sums = [0; 2];
            for i in 0..2 {
                let v =
                    _mm_add_epi32(_mm256_castsi256_si128(both[i]), _mm256_extracti128_si256::<1>(both[i]));
                let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
                sums[i] = _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)));
            }
            (std::mem::transmute::<__m256i, [i8; 2 * LANES]>(bytes), sums)
        }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, to: &mut [u16; LANES]) {
        // SAFETY: the token proves F16C; both types are 32 bytes.
        unsafe {
            let halves = [_mm256_cvtps_ph::<0>(v[0]), _mm256_cvtps_ph::<0>(v[1])];
            *to = std::mem::transmute::<[__m128i; 2], [u16; LANES]>(halves);
        }
    }
}

impl Simd for Avx512 {
    type V = __m512;

    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        // SAFETY: both are 16 floats, every bit pattern of which is valid.
        unsafe { std::mem::transmute::<[f32; LANES], __m512>(*from) }
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        // SAFETY: both are 16 floats, every bit pattern of which is valid.
        *to = unsafe { std::mem::transmute::<__m512, [f32; LANES]>(v) };
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::V {
        // SAFETY: the token proves AVX-512 F; both types are 32 bytes, every bit pattern of which is valid.
        unsafe { _mm512_cvtph_ps(std::mem::transmute::<[u16; LANES], __m256i>(*from)) }
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::V {
        // SAFETY: the token proves AVX-512 F; both types are 16 bytes, every bit pattern of which is valid.
        unsafe {
            let bytes = std::mem::transmute::<[u8; LANES], __m128i>(*from);
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        // SAFETY: the token proves AVX-512 F; both types are 16 bytes, every bit pattern of which is valid.
        unsafe {
            let bytes = std::mem::transmute::<[i8; LANES], __m128i>(*from);
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
        }
    }

    #[inline(always)]
    fn sums_to_f32(self, sums: __m512i) -> Self::V {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_cvtepi32_ps(sums) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_add_scalar(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn magnitude(self, numbers: &[f32; 2 * LANES]) -> u32 {
        // SAFETY: the token proves AVX-512 F; both types are 128 bytes.
        unsafe {
            let [a, b] = std::mem::transmute::<[f32; 2 * LANES], [__m512i; 2]>(*numbers);
            let mask = _mm512_set1_epi32(0x7fff_ffff);
            _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(a, mask), _mm512_and_si512(b, mask)))
        }
    }

    #[inline(always)]
    fn nearest_bytes(self, numbers: &[f32; 2 * LANES], factor: f32) -> ([i8; 2 * LANES], [i32; 2]) {
        // SAFETY: the token proves AVX-512 F; the types are 128 and 32 bytes. The processor rounds to
        // nearest, ties to even, as every Rust program has it.
        unsafe {
            let [a, b] = std::mem::transmute::<[f32; 2 * LANES], [__m512; 2]>(*numbers);
            let factor = _mm512_set1_ps(factor);
            let a = _mm512_cvtps_epi32(_mm512_mul_ps(a, factor));
            let b = _mm512_cvtps_epi32(_mm512_mul_ps(b, factor));
            let bytes = [_mm512_cvtepi32_epi8(a), _mm512_cvtepi32_epi8(b)];
            let bytes = std::mem::transmute::<[__m128i; 2], [i8; 2 * LANES]>(bytes);
            (bytes, [_mm512_reduce_add_epi32(a), _mm512_reduce_add_epi32(b)])
        }
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        // SAFETY: the token proves AVX-512 DQ.
        unsafe {
            let v = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: the token proves AVX-512 DQ.
        unsafe {
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }

    #[inline(always)]
    fn keep(self, v: Self::V, from: usize, to: usize, other: f32) -> Self::V {
        let below = |n: usize| ((1u32 << n) - 1) as u16;
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_mask_blend_ps(below(to) & !below(from), _mm512_set1_ps(other), v) }
    }

    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        // The steps of `math::exp`, each on sixteen lanes; the power of two is multiplied in exactly, so
        // that one instruction for it gives the same number as two factors.
        // SAFETY: the token proves AVX-512 F.
        unsafe {
            let (lowest, shift) = (_mm512_set1_ps(-87.33), _mm512_set1_ps(12_582_912.0));
            // both give the second operand where it is NaN
            let bounded = _mm512_max_ps(lowest, _mm512_min_ps(_mm512_set1_ps(89.0), x));
            let shifted = _mm512_fmadd_ps(bounded, _mm512_set1_ps(std::f32::consts::LOG2_E), shift);
            let n = _mm512_sub_ps(shifted, shift);
            let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693_359_4), bounded);
            let r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.121_944_4e-4), r);
            let mut p = _mm512_set1_ps(1.987_569_1e-4);
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.398_199_9e-3));
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.333_452e-3));
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.166_579_6e-2));
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.666_666_5e-1));
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5));
            let e = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0)));
            let e = _mm512_scalef_ps(e, n);
            let is_tiny = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, lowest);
            _mm512_mask_blend_ps(is_tiny, e, _mm512_setzero_ps())
        }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, to: &mut [u16; LANES]) {
        // SAFETY: the token proves AVX-512 F; both types are 32 bytes.
        unsafe { *to = std::mem::transmute::<__m256i, [u16; LANES]>(_mm512_cvtps_ph::<0>(v)) };
    }
}

/// The arithmetic of a set that has another's and products of bytes beside.
macro_rules! with_arithmetic_of {
    ($base:ty, $token:ty) => {
        impl Simd for $token {
            type V = <$base as Simd>::V;

            const REGISTERS: usize = <$base as Simd>::REGISTERS;

            #[inline(always)]
            fn splat(self, x: f32) -> Self::V {
                self.0.splat(x)
            }

            #[inline(always)]
            fn load(self, from: &[f32; LANES]) -> Self::V {
                self.0.load(from)
            }

            #[inline(always)]
            fn store(self, v: Self::V, to: &mut [f32; LANES]) {
                self.0.store(v, to);
            }

            #[inline(always)]
            fn load_f16(self, from: &[u16; LANES]) -> Self::V {
                self.0.load_f16(from)
            }

            #[inline(always)]
            fn load_bf16(self, from: &[u16; LANES]) -> Self::V {
                self.0.load_bf16(from)
            }

            #[inline(always)]
            fn load_u8(self, from: &[u8; LANES]) -> Self::V {
                self.0.load_u8(from)
            }

            #[inline(always)]
            fn load_i8(self, from: &[i8; LANES]) -> Self::V {
                self.0.load_i8(from)
            }

            #[inline(always)]
            fn sums_to_f32(self, sums: <Self as Int8>::Sums) -> Self::V {
                self.0.sums_to_f32(sums)
            }

            #[inline(always)]
            fn add(self, a: Self::V, b: Self::V) -> Self::V {
                self.0.add(a, b)
            }

            #[inline(always)]
            fn mul(self, a: Self::V, b: Self::V) -> Self::V {
                self.0.mul(a, b)
            }

            #[inline(always)]
            fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                self.0.mul_add(a, b, c)
            }

            #[inline(always)]
            fn mul_add_scalar(self, a: f32, b: f32, c: f32) -> f32 {
                self.0.mul_add_scalar(a, b, c)
            }

            #[inline(always)]
            fn div(self, a: Self::V, b: Self::V) -> Self::V {
                self.0.div(a, b)
            }

            #[inline(always)]
            fn magnitude(self, numbers: &[f32; 2 * LANES]) -> u32 {
                self.0.magnitude(numbers)
            }

            #[inline(always)]
            fn nearest_bytes(self, numbers: &[f32; 2 * LANES], factor: f32) -> ([i8; 2 * LANES], [i32; 2]) {
                self.0.nearest_bytes(numbers, factor)
            }

            #[inline(always)]
            fn max(self, a: Self::V, b: Self::V) -> Self::V {
                self.0.max(a, b)
            }

            #[inline(always)]
            fn max_lane(self, v: Self::V) -> f32 {
                self.0.max_lane(v)
            }

            #[inline(always)]
            fn sum(self, v: Self::V) -> f32 {
                self.0.sum(v)
            }

            #[inline(always)]
            fn keep(self, v: Self::V, from: usize, to: usize, other: f32) -> Self::V {
                self.0.keep(v, from, to, other)
            }

            #[inline(always)]
            fn exp(self, v: Self::V) -> Self::V {
                self.0.exp(v)
            }

            #[inline(always)]
            fn store_f16(self, v: Self::V, to: &mut [u16; LANES]) {
                self.0.store_f16(v, to);
            }
        }
    };
}

with_arithmetic_of!(Avx2, Avx2Vnni);
with_arithmetic_of!(Avx512, Avx512Vnni);

//! Products of bytes: VNNI, or pairs multiplied into 16 bits and added up.

use std::arch::x86_64::*;

use super::super::Int8;
use super::{Avx2, Avx2Vnni, Avx512, Avx512Vnni};

/// What all sets with 512-bit registers do alike.
macro_rules! bytes_512 {
    () => {
        type Bytes = __m512i;
        type Sums = __m512i;
        type Partial = __m512i;

        #[inline(always)]
        fn load_bytes(self, from: &[u8; 64]) -> __m512i {
            // SAFETY: both are 64 bytes, every bit pattern of which is valid.
            unsafe { std::mem::transmute::<[u8; 64], __m512i>(*from) }
        }

        #[inline(always)]
        fn store_bytes(self, bytes: __m512i, to: &mut [u8; 64]) {
            // SAFETY: both are 64 bytes, every bit pattern of which is valid.
            *to = unsafe { std::mem::transmute::<__m512i, [u8; 64]>(bytes) };
        }

        #[inline(always)]
        fn and(self, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_and_si512(a, b) }
        }

        #[inline(always)]
        fn or(self, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_or_si512(a, b) }
        }

        #[inline(always)]
        fn splat_byte(self, byte: u8) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_set1_epi8(byte as i8) }
        }

        #[inline(always)]
        fn up(self, bytes: __m512i, bits: u32) -> __m512i {
            // SAFETY: the token proves AVX-512 BW.
            unsafe { _mm512_sll_epi16(bytes, _mm_cvtsi32_si128(bits as i32)) }
        }

        #[inline(always)]
        fn down(self, bytes: __m512i, bits: u32) -> __m512i {
            // SAFETY: the token proves AVX-512 BW.
            unsafe { _mm512_srl_epi16(bytes, _mm_cvtsi32_si128(bits as i32)) }
        }

        #[inline(always)]
        fn look_up(self, table: &[u8; 16], places: __m512i) -> __m512i {
            // SAFETY: the token proves AVX-512 BW; both types are 16 bytes.
            unsafe {
                let table = std::mem::transmute::<[u8; 16], __m128i>(*table);
                _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), places)
            }
        }

        #[inline(always)]
        fn splat_sum(self, x: i32) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_set1_epi32(x) }
        }

        #[inline(always)]
        fn start_biased(self, negated_sum: i32) -> __m512i {
            // SAFETY: the token proves AVX-512 F.
            unsafe { _mm512_slli_epi32::<7>(_mm512_set1_epi32(negated_sum)) }
        }
    };
}

impl Int8 for Avx512Vnni {
    bytes_512!();

    #[inline(always)]
    fn open(self, sums: __m512i) -> __m512i {
        sums
    }

    #[inline(always)]
    fn settle(self, _: __m512i, partial: __m512i) -> __m512i {
        partial
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, weights: __m512i, activations: [i8; 4]) -> __m512i {
        // SAFETY: the token proves AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(word(activations))) }
    }

    #[inline(always)]
    fn dot_biased(self, sums: __m512i, weights: __m512i, activations: [i8; 4]) -> __m512i {
        self.dot(sums, weights, activations)
    }
}

impl Int8 for Avx512 {
    bytes_512!();

    #[inline(always)]
    fn open(self, _: __m512i) -> __m512i {
        self.splat_sum(0)
    }

    #[inline(always)]
    fn settle(self, sums: __m512i, partial: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512 BW.
        unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(partial, _mm512_set1_epi16(1))) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, weights: __m512i, activations: [i8; 4]) -> __m512i {
        // SAFETY: the token proves AVX-512 BW.
        unsafe {
            let pairs = _mm512_maddubs_epi16(weights, _mm512_set1_epi32(word(activations)));
            _mm512_add_epi16(sums, pairs)
        }
    }

    #[inline(always)]
    fn dot_biased(self, sums: __m512i, weights: __m512i, activations: [i8; 4]) -> __m512i {
        // There is no product of signed bytes, so the halves of each byte are multiplied one by one.
        // SAFETY: the token proves AVX-512 BW. No pair saturates: 2 * 15 * 127 is below 2^15.
        unsafe {
            let (a, mask) = (_mm512_set1_epi32(word(activations)), _mm512_set1_epi8(15));
            let low = _mm512_maddubs_epi16(_mm512_and_si512(weights, mask), a);
            let high = _mm512_maddubs_epi16(_mm512_and_si512(_mm512_srli_epi16::<4>(weights), mask), a);
            let low = _mm512_madd_epi16(low, _mm512_set1_epi16(1));
            let high = _mm512_madd_epi16(high, _mm512_set1_epi16(16));
            _mm512_add_epi32(sums, _mm512_add_epi32(low, high))
        }
    }
}

/// What all sets with 256-bit registers do alike.
macro_rules! bytes_256 {
    () => {
        type Bytes = [__m256i; 2];
        type Sums = [__m256i; 2];
        type Partial = [__m256i; 2];

        #[inline(always)]
        fn load_bytes(self, from: &[u8; 64]) -> [__m256i; 2] {
            // SAFETY: both are 64 bytes, every bit pattern of which is valid.
            unsafe { std::mem::transmute::<[u8; 64], [__m256i; 2]>(*from) }
        }

        #[inline(always)]
        fn store_bytes(self, bytes: [__m256i; 2], to: &mut [u8; 64]) {
            // SAFETY: both are 64 bytes, every bit pattern of which is valid.
            *to = unsafe { std::mem::transmute::<[__m256i; 2], [u8; 64]>(bytes) };
        }

        #[inline(always)]
        fn and(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])] }
        }

        #[inline(always)]
        fn or(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
        }

        #[inline(always)]
        fn splat_byte(self, byte: u8) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_set1_epi8(byte as i8); 2] }
        }

        #[inline(always)]
        fn up(self, bytes: [__m256i; 2], bits: u32) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe {
                let bits = _mm_cvtsi32_si128(bits as i32);
                [_mm256_sll_epi16(bytes[0], bits), _mm256_sll_epi16(bytes[1], bits)]
            }
        }

        #[inline(always)]
        fn down(self, bytes: [__m256i; 2], bits: u32) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe {
                let bits = _mm_cvtsi32_si128(bits as i32);
                [_mm256_srl_epi16(bytes[0], bits), _mm256_srl_epi16(bytes[1], bits)]
            }
        }

        #[inline(always)]
        fn look_up(self, table: &[u8; 16], places: [__m256i; 2]) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2; both types are 16 bytes.
            unsafe {
                let table = std::mem::transmute::<[u8; 16], __m128i>(*table);
                let table = _mm256_broadcastsi128_si256(table);
                [_mm256_shuffle_epi8(table, places[0]), _mm256_shuffle_epi8(table, places[1])]
            }
        }

        #[inline(always)]
        fn splat_sum(self, x: i32) -> [__m256i; 2] {
            // SAFETY: the token proves AVX2.
            unsafe { [_mm256_set1_epi32(x); 2] }
        }
    };
}

impl Int8 for Avx2Vnni {
    bytes_256!();

    #[inline(always)]
    fn open(self, sums: [__m256i; 2]) -> [__m256i; 2] {
        sums
    }

    #[inline(always)]
    fn settle(self, _: [__m256i; 2], partial: [__m256i; 2]) -> [__m256i; 2] {
        partial
    }

    #[inline(always)]
    fn dot(self, sums: [__m256i; 2], weights: [__m256i; 2], activations: [i8; 4]) -> [__m256i; 2] {
        // SAFETY: the token proves AVX-VNNI.
        unsafe {
            let a = _mm256_set1_epi32(word(activations));
            [_mm256_dpbusd_avx_epi32(sums[0], weights[0], a), _mm256_dpbusd_avx_epi32(sums[1], weights[1], a)]
        }
    }

    #[inline(always)]
    fn start_biased(self, negated_sum: i32) -> [__m256i; 2] {
        self.splat_sum(negated_sum << 7)
    }

    #[inline(always)]
    fn dot_biased(self, sums: [__m256i; 2], weights: [__m256i; 2], activations: [i8; 4]) -> [__m256i; 2] {
        self.dot(sums, weights, activations)
    }
}

impl Int8 for Avx2 {
    bytes_256!();

    const HAS_WORDS: bool = true;

    #[inline(always)]
    fn words(self, bytes: [__m256i; 2]) -> [[__m256i; 2]; 2] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let first = _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1);
            let first = _mm256_broadcastsi128_si256(first);
            let other = _mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1);
            let other = _mm256_broadcastsi128_si256(other);
            let bias = _mm256_set1_epi16(128);
            let mut words = [bytes; 2];
            for i in 0..2 {
                words[0][i] = _mm256_sub_epi16(_mm256_shuffle_epi8(bytes[i], first), bias);
                words[1][i] = _mm256_sub_epi16(_mm256_shuffle_epi8(bytes[i], other), bias);
            }
            words
        }
    }

    #[inline(always)]
    fn dot_words(self, mut sums: [__m256i; 2], words: [__m256i; 2], activations: i32) -> [__m256i; 2] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let pair = _mm256_set1_epi32(activations);
            for i in 0..2 {
                sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(words[i], pair));
            }
        }
        sums
    }

    #[inline(always)]
    fn open(self, _: [__m256i; 2]) -> [__m256i; 2] {
        self.splat_sum(0)
    }

    #[inline(always)]
    fn settle(self, mut sums: [__m256i; 2], partial: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the token proves AVX2.
        unsafe {
            for i in 0..2 {
                let added = _mm256_madd_epi16(partial[i], _mm256_set1_epi16(1));
                sums[i] = _mm256_add_epi32(sums[i], added);
            }
        }
        sums
    }

    #[inline(always)]
    fn dot(self, mut sums: [__m256i; 2], weights: [__m256i; 2], activations: [i8; 4]) -> [__m256i; 2] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let a = _mm256_set1_epi32(word(activations));
            for i in 0..2 {
                sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(weights[i], a));
            }
        }
        sums
    }

    #[inline(always)]
    fn start_biased(self, _: i32) -> [__m256i; 2] {
        // the products below are of the signed weights
        self.splat_sum(0)
    }

    #[inline(always)]
    fn dot_biased(self, mut sums: [__m256i; 2], weights: [__m256i; 2], activations: [i8; 4]) -> [__m256i; 2] {
        // The sign of the weight goes to the activation, whose own is never the lowest byte.
        // SAFETY: the token proves AVX2. No pair saturates: 2 * 128 * 127 is below 2^15.
        unsafe {
            let (a, ones) = (_mm256_set1_epi32(word(activations)), _mm256_set1_epi16(1));
            for i in 0..2 {
                let signed = _mm256_xor_si256(weights[i], _mm256_set1_epi8(i8::MIN));
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(a, signed));
                sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(pairs, ones));
            }
        }
        sums
    }
}

/// Four bytes as the number that they are in memory. Written out, because `map` over an array is a chain
/// of functions that a compiler may leave as calls, inside the innermost loop.
#[inline(always)]
fn word([a, b, c, d]: [i8; 4]) -> i32 {
    i32::from_ne_bytes([a as u8, b as u8, c as u8, d as u8])
}

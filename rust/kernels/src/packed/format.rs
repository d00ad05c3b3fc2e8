//! The block types of files, as the codes and scales of tiles.

use alloyforge_types::QuantType;

use super::codes::{Bytes, Chosen, Codes, Fives, Nibbles, Sixes, Table, Threes, Twos};
use super::scales::{ByteMin, Half, HalfMin, NibbleMinPair, Power, Scales, Signed, SignedPair};
use crate::dequant::codebooks::{IQ4NL_VALUES, MXFP4_VALUES};
use crate::dequant::scale_min;

/// A block type.
pub(crate) trait Format {
    type Codes: Codes;
    type Scales: Scales;

    /// What is taken off each code: less than 64, or 128 where codes have all 8 bits.
    const OFFSET: u8;

    /// Columns of a file's block.
    const LEN: usize;

    /// Bytes of a file's block.
    const BYTES: usize;

    /// The codes of a file's block.
    fn codes(block: &[u8], to: &mut [u8]);

    /// Puts the scales of a file's block in their places for row `row` of a tile: `scales` are those of
    /// all blocks that lie in it, `supers` those of its 256 columns.
    fn scales(block: &[u8], row: usize, scales: &mut [u8], supers: &mut [u8]);
}

/// Calls a macro-like body with `$format` bound to the format of `$ty`; `$other` for types that have
/// none.
macro_rules! with_format {
    ($ty:expr, $format:ident => $body:expr, $other:expr) => {
        match $ty {
            QuantType::Q4_0 => with_format!(@ $format Q4_0 $body),
            QuantType::Q4_1 => with_format!(@ $format Q4_1 $body),
            QuantType::Q5_0 => with_format!(@ $format Q5_0 $body),
            QuantType::Q5_1 => with_format!(@ $format Q5_1 $body),
            QuantType::Q8_0 => with_format!(@ $format Q8_0 $body),
            QuantType::Q2K => with_format!(@ $format Q2K $body),
            QuantType::Q3K => with_format!(@ $format Q3K $body),
            QuantType::Q4K => with_format!(@ $format Q4K $body),
            QuantType::Q5K => with_format!(@ $format Q5K $body),
            QuantType::Q6K => with_format!(@ $format Q6K $body),
            QuantType::IQ4NL => with_format!(@ $format Iq4Nl $body),
            QuantType::IQ4XS => with_format!(@ $format Iq4Xs $body),
            QuantType::MXFP4 => with_format!(@ $format Mxfp4 $body),
            _ => $other,
        }
    };
    (@ $format:ident $name:ident $body:expr) => {{
        type $format = crate::packed::format::$name;
        $body
    }};
}
pub(crate) use with_format;

/// Whether there is a format for `ty`.
pub(crate) fn is_known(ty: QuantType) -> bool {
    with_format!(ty, F => F::LEN > 0, false)
}

/// Nibbles of 16 bytes: byte `i` has codes `i` and `i + 16`.
#[inline(always)]
fn nibbles(from: &[u8], to: &mut [u8]) {
    let (low, high) = to.split_at_mut(16);
    for ((q, low), high) in from[..16].iter().zip(low).zip(high) {
        (*low, *high) = (q & 15, q >> 4);
    }
}

/// As [`nibbles`], with a fifth bit of each in `fifths`.
#[inline(always)]
fn fives(fifths: &[u8], from: &[u8], to: &mut [u8]) {
    nibbles(from, to);
    let fifths = u32::from_le_bytes([fifths[0], fifths[1], fifths[2], fifths[3]]);
    for (i, code) in to[..32].iter_mut().enumerate() {
        *code |= ((fifths >> i) as u8 & 1) << 4;
    }
}

/// Two bytes of a block into the two of row `row`.
#[inline(always)]
fn half(block: &[u8], at: usize, row: usize, to: &mut [u8]) {
    to[2 * row..2 * row + 2].copy_from_slice(&block[at..at + 2]);
}

/// Nibbles with an offset.
pub(crate) struct Q4_0;

impl Format for Q4_0 {
    type Codes = Nibbles;
    type Scales = Half;
    const OFFSET: u8 = 8;
    const LEN: usize = 32;
    const BYTES: usize = 18;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        nibbles(&block[2..], to);
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], _: &mut [u8]) {
        half(block, 0, row, scales);
    }
}

/// Nibbles with a minimum.
pub(crate) struct Q4_1;

impl Format for Q4_1 {
    type Codes = Nibbles;
    type Scales = HalfMin;
    const OFFSET: u8 = 0;
    const LEN: usize = 32;
    const BYTES: usize = 20;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        nibbles(&block[4..], to);
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], _: &mut [u8]) {
        half(block, 0, row, scales);
        half(block, 2, row, &mut scales[32..]);
    }
}

/// Five bits with an offset.
pub(crate) struct Q5_0;

impl Format for Q5_0 {
    type Codes = Fives;
    type Scales = Half;
    const OFFSET: u8 = 16;
    const LEN: usize = 32;
    const BYTES: usize = 22;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        fives(&block[2..], &block[6..], to);
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], _: &mut [u8]) {
        half(block, 0, row, scales);
    }
}

/// Five bits with a minimum.
pub(crate) struct Q5_1;

impl Format for Q5_1 {
    type Codes = Fives;
    type Scales = HalfMin;
    const OFFSET: u8 = 0;
    const LEN: usize = 32;
    const BYTES: usize = 24;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        fives(&block[4..], &block[8..], to);
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], _: &mut [u8]) {
        half(block, 0, row, scales);
        half(block, 2, row, &mut scales[32..]);
    }
}

/// Signed bytes.
pub(crate) struct Q8_0;

impl Format for Q8_0 {
    type Codes = Bytes;
    type Scales = Half;
    const OFFSET: u8 = 128;
    const LEN: usize = 32;
    const BYTES: usize = 34;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        for (code, q) in to.iter_mut().zip(&block[2..34]) {
            *code = q ^ 128;
        }
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], _: &mut [u8]) {
        half(block, 0, row, scales);
    }
}

/// Pairs of bits: byte `l` of 32 bytes has codes `l`, `l + 32`, `l + 64`, `l + 96` of 128.
#[inline(always)]
fn twos(from: &[u8], to: &mut [u8]) {
    for (group, to) in to[..256].chunks_exact_mut(32).enumerate() {
        for (code, q) in to.iter_mut().zip(&from[group / 4 * 32..][..32]) {
            *code = (q >> (group % 4 * 2)) & 3;
        }
    }
}

/// 16 columns under a scale and a minimum of four bits.
pub(crate) struct Q2K;

impl Format for Q2K {
    type Codes = Twos;
    type Scales = NibbleMinPair;
    const OFFSET: u8 = 0;
    const LEN: usize = 256;
    const BYTES: usize = 84;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        twos(&block[16..], to);
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], supers: &mut [u8]) {
        for (i, both) in block[..16].iter().enumerate() {
            scales[16 * i + row] = *both;
        }
        half(block, 80, row, supers);
        half(block, 82, row, &mut supers[32..]);
    }
}

/// 16 columns of three bits under a signed scale of six.
pub(crate) struct Q3K;

impl Format for Q3K {
    type Codes = Threes;
    type Scales = SignedPair;
    const OFFSET: u8 = 4;
    const LEN: usize = 256;
    const BYTES: usize = 110;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        twos(&block[32..], to);
        for (group, to) in to[..256].chunks_exact_mut(32).enumerate() {
            for (code, high) in to.iter_mut().zip(&block[..32]) {
                *code |= ((high >> group) & 1) << 2;
            }
        }
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], supers: &mut [u8]) {
        let packed = &block[96..108];
        for i in 0..16 {
            // the low nibbles stand in two runs of 8, the upper two bits in four runs of 4
            let low = (packed[i % 8] >> (i / 8 * 4)) & 15;
            let high = (packed[8 + i % 4] >> (i / 4 * 2)) & 3;
            scales[16 * i + row] = (low | high << 4).wrapping_sub(32);
        }
        half(block, 108, row, supers);
    }
}

/// The scales and minima of Q4_K and Q5_K.
#[inline(always)]
fn k_scales(block: &[u8], row: usize, scales: &mut [u8], supers: &mut [u8]) {
    let packed: [u8; 12] = std::array::from_fn(|i| block[4 + i]);
    for i in 0..8 {
        let (scale, minimum) = scale_min(&packed, i);
        (scales[32 * i + row], scales[32 * i + 16 + row]) = (scale, minimum);
    }
    half(block, 0, row, supers);
    half(block, 2, row, &mut supers[32..]);
}

/// Nibbles: byte `l` of 32 bytes has codes `l` and `l + 32` of 64.
#[inline(always)]
fn k_nibbles(from: &[u8], to: &mut [u8]) {
    for (from, to) in from[..128].chunks_exact(32).zip(to.chunks_exact_mut(64)) {
        let (low, high) = to.split_at_mut(32);
        for ((q, low), high) in from.iter().zip(low).zip(high) {
            (*low, *high) = (q & 15, q >> 4);
        }
    }
}

/// 32 columns of four bits under a scale and a minimum of six.
pub(crate) struct Q4K;

impl Format for Q4K {
    type Codes = Nibbles;
    type Scales = ByteMin;
    const OFFSET: u8 = 0;
    const LEN: usize = 256;
    const BYTES: usize = 144;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        k_nibbles(&block[16..], to);
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], supers: &mut [u8]) {
        k_scales(block, row, scales, supers);
    }
}

/// As Q4_K, with five bits.
pub(crate) struct Q5K;

impl Format for Q5K {
    type Codes = Fives;
    type Scales = ByteMin;
    const OFFSET: u8 = 0;
    const LEN: usize = 256;
    const BYTES: usize = 176;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        k_nibbles(&block[48..], to);
        for (group, to) in to[..256].chunks_exact_mut(32).enumerate() {
            for (code, high) in to.iter_mut().zip(&block[16..48]) {
                *code |= ((high >> group) & 1) << 4;
            }
        }
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], supers: &mut [u8]) {
        k_scales(block, row, scales, supers);
    }
}

/// 16 columns of six bits under a signed scale.
pub(crate) struct Q6K;

impl Format for Q6K {
    type Codes = Sixes;
    type Scales = SignedPair;
    const OFFSET: u8 = 32;
    const LEN: usize = 256;
    const BYTES: usize = 210;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        for (group, to) in to[..256].chunks_exact_mut(32).enumerate() {
            // Of 128 codes, nibbles: 64 bytes, the first 64 codes low; two bits: 32 bytes.
            let (part, within) = (group / 4, group % 4);
            let lows = &block[part * 64 + within % 2 * 32..][..32];
            let highs = &block[128 + part * 32..][..32];
            for ((code, low), high) in to.iter_mut().zip(lows).zip(highs) {
                *code = ((low >> (within / 2 * 4)) & 15) | (((high >> (within * 2)) & 3) << 4);
            }
        }
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], supers: &mut [u8]) {
        for (i, scale) in block[192..208].iter().enumerate() {
            scales[16 * i + row] = *scale;
        }
        half(block, 208, row, supers);
    }
}

/// `values` with `offset` added.
const fn raised(values: &[i8; 16], offset: u8) -> [u8; 16] {
    let mut out = [0; 16];
    let mut i = 0;
    while i < 16 {
        out[i] = (values[i] as u8).wrapping_add(offset);
        i += 1;
    }
    out
}

/// The values of IQ4_NL and IQ4_XS.
pub(crate) struct Iq4Values;

impl Table for Iq4Values {
    const VALUES: [u8; 16] = raised(&IQ4NL_VALUES, 128);
}

/// The values of MXFP4, doubled.
pub(crate) struct Mxfp4Values;

impl Table for Mxfp4Values {
    const VALUES: [u8; 16] = raised(&MXFP4_VALUES, 16);
}

/// Places in a table.
pub(crate) struct Iq4Nl;

impl Format for Iq4Nl {
    type Codes = Chosen<Iq4Values>;
    type Scales = Half;
    const OFFSET: u8 = 128;
    const LEN: usize = 32;
    const BYTES: usize = 18;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        nibbles(&block[2..], to);
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], _: &mut [u8]) {
        half(block, 0, row, scales);
    }
}

/// As IQ4_NL, with signed scales of six bits.
pub(crate) struct Iq4Xs;

impl Format for Iq4Xs {
    type Codes = Chosen<Iq4Values>;
    type Scales = Signed;
    const OFFSET: u8 = 128;
    const LEN: usize = 256;
    const BYTES: usize = 136;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        for (from, to) in block[8..136].chunks_exact(16).zip(to.chunks_exact_mut(32)) {
            nibbles(from, to);
        }
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], supers: &mut [u8]) {
        let upper = u16::from_le_bytes([block[2], block[3]]);
        for i in 0..8 {
            let low = (block[4 + i / 2] >> (i % 2 * 4)) & 15;
            let high = ((upper >> (2 * i)) & 3) as u8;
            scales[16 * i + row] = (low | high << 4).wrapping_sub(32);
        }
        half(block, 0, row, supers);
    }
}

/// Places in a table, under a power of two.
pub(crate) struct Mxfp4;

impl Format for Mxfp4 {
    type Codes = Chosen<Mxfp4Values>;
    type Scales = Power;
    const OFFSET: u8 = 16;
    const LEN: usize = 32;
    const BYTES: usize = 17;

    #[inline(always)]
    fn codes(block: &[u8], to: &mut [u8]) {
        nibbles(&block[1..], to);
    }

    #[inline(always)]
    fn scales(block: &[u8], row: usize, scales: &mut [u8], _: &mut [u8]) {
        scales[row] = block[0];
    }
}

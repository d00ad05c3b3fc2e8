//! Block types against ggml's reference, over bytes that both make from the same seeds; see
//! `tests/data/make_quant_cases.py`.

use alloyforge_kernels::dequant::{SizeMismatch, dequantize, dequantize_row, row_fn};
use alloyforge_types::QuantType;
use proptest::prelude::*;

const CASES: &str = include_str!("../../../tests/data/quant/dequantize.txt");

fn splitmix64(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// The upper bytes of a block's half-precision scales, in which the script clears a bit so that none is
/// infinite or no number.
fn scale_bytes(ty: QuantType) -> &'static [usize] {
    match ty {
        QuantType::Q4_1 | QuantType::Q5_1 | QuantType::Q4K | QuantType::Q5K => &[1, 3],
        QuantType::Q2K => &[81, 83],
        QuantType::Q3K => &[109],
        QuantType::Q6K => &[209],
        QuantType::IQ1M => &[55],
        QuantType::TQ1_0 => &[53],
        QuantType::TQ2_0 => &[65],
        QuantType::F32 | QuantType::MXFP4 => &[],
        _ => &[1],
    }
}

fn blocks(ty: QuantType, count: usize) -> Vec<u8> {
    let size = ty.block_bytes();
    let mut data: Vec<u8> =
        splitmix64(ty.ggml_id().into()).flat_map(u64::to_le_bytes).take(count * size).collect();
    for block in data.chunks_exact_mut(size) {
        scale_bytes(ty).iter().for_each(|&at| block[at] &= 0xbf);
    }
    data
}

#[test]
fn numbers_are_those_of_ggml() {
    let mut seen = Vec::new();
    for line in CASES.lines() {
        let mut fields = line.split(' ');
        let ty = QuantType::from_name(fields.next().unwrap()).unwrap();
        let count: usize = fields.next().unwrap().parse().unwrap();
        let hash = u64::from_str_radix(fields.next().unwrap(), 16).unwrap();
        let first: Vec<u32> = fields.map(|f| u32::from_str_radix(f, 16).unwrap()).collect();

        let data = blocks(ty, count);
        let mut out = vec![f32::NAN; count * ty.block_len()];
        dequantize(ty, &data, &mut out).unwrap();
        let got: Vec<u32> = out[..8].iter().map(|x| x.to_bits()).collect();
        assert_eq!(got, first, "{}", ty.name());
        assert_eq!(fnv1a(out.iter().flat_map(|x| x.to_le_bytes())), hash, "{}", ty.name());
        seen.push(ty);
    }
    let missing: Vec<_> = QuantType::ALL.iter().filter(|t| !seen.contains(t)).collect();
    assert_eq!(missing, [&QuantType::F32]);
}

#[test]
fn f32_is_copied() {
    let numbers = [1.5f32, -0.0, f32::MIN_POSITIVE / 2.0, f32::INFINITY];
    let data: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out = [0.0; 4];
    dequantize(QuantType::F32, &data, &mut out).unwrap();
    assert_eq!(out.map(f32::to_bits), numbers.map(f32::to_bits));
}

#[test]
fn lengths_are_checked() {
    for &ty in QuantType::ALL {
        let (bytes, len) = (ty.block_bytes(), ty.block_len());
        let wrong = [(bytes, 2 * len), (2 * bytes, len), (bytes - 1, len), (0, len), (bytes + 1, len)];
        for (data_len, num_values) in wrong {
            let error = dequantize(ty, &vec![0; data_len], &mut vec![0.0; num_values]).unwrap_err();
            assert_eq!(error, SizeMismatch { ty, data_len, num_values });
            assert!(error.to_string().contains(ty.name()));
        }
        if len > 1 {
            assert!(dequantize(ty, &vec![0; bytes], &mut vec![0.0; len - 1]).is_err());
        }
        dequantize(ty, &[], &mut []).unwrap();
    }
}

proptest! {
    /// Blocks do not depend on their neighbours, and any bytes are some numbers.
    #[test]
    fn a_row_is_its_blocks(
        ty in prop::sample::select(QuantType::ALL),
        seed: u64,
        count in 1usize..5,
    ) {
        let (bytes, len) = (ty.block_bytes(), ty.block_len());
        let data: Vec<u8> = splitmix64(seed).flat_map(u64::to_le_bytes).take(count * bytes).collect();
        let mut row = vec![0.0; count * len];
        dequantize_row(ty, &data, &mut row);
        for (block, want) in data.chunks_exact(bytes).zip(row.chunks_exact(len)) {
            let mut one = vec![0.0; len];
            row_fn(ty)(block, &mut one);
            prop_assert!(one.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}

//! Quantising against ggml's reference, over numbers that both make from the same seeds; see
//! `tests/data/make_quant_cases.py`.

use alloyforge_kernels::dequant::dequantize;
use alloyforge_kernels::quantize::{quantize, row_fn};
use alloyforge_types::{Error, QuantType};
use proptest::collection::vec;
use proptest::prelude::*;

const CASES: &str = include_str!("../../../tests/data/quant/quantize.txt");

fn splitmix64(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// `floats` of the script.
fn floats(ty: QuantType, count: usize) -> Vec<f32> {
    let draws = splitmix64(u64::from(ty.ggml_id()) + 1000).take(count);
    let number = |(i, draw): (usize, u64)| {
        let sum: i64 = (0..4).map(|quarter| i64::from((draw >> (16 * quarter)) as u16)).sum();
        (sum - 2 * 65535) as f32 * 0.5f32.powi(17 + (i / 256 % 8) as i32)
    };
    draws.enumerate().map(number).collect()
}

fn packed(ty: QuantType, values: &[f32]) -> Vec<u8> {
    let mut out = vec![0xaa; values.len() / ty.block_len() * ty.block_bytes()];
    quantize(ty, values, &mut out).unwrap();
    out
}

#[test]
fn blocks_are_those_of_ggml() {
    for line in CASES.lines() {
        let mut fields = line.split(' ');
        let ty = QuantType::from_name(fields.next().unwrap()).unwrap();
        let count: usize = fields.next().unwrap().parse().unwrap();
        let hash = u64::from_str_radix(fields.next().unwrap(), 16).unwrap();
        let first: Vec<u8> = fields.map(|f| u8::from_str_radix(f, 16).unwrap()).collect();
        let data = packed(ty, &floats(ty, count * ty.block_len()));
        assert_eq!(data[..8], first, "{}", ty.name());
        assert_eq!(fnv1a(&data), hash, "{}", ty.name());
    }
}

#[test]
fn every_writable_type_but_f32_has_a_case() {
    let cases: Vec<&str> = CASES.lines().map(|l| l.split(' ').next().unwrap()).collect();
    for ty in QuantType::ALL.iter().filter(|&&t| t != QuantType::F32) {
        assert_eq!(row_fn(*ty).is_some(), cases.contains(&ty.name()), "{}", ty.name());
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    for &ty in QuantType::ALL {
        let (len, bytes) = (ty.block_len(), ty.block_bytes());
        let result = quantize(ty, &vec![0.0; len], &mut vec![0; bytes]);
        match row_fn(ty) {
            Some(_) => assert_eq!(result, Ok(())),
            None => assert!(matches!(result, Err(Error::InvalidRequest { name, .. }) if name == "type")),
        }
        let result = quantize(ty, &vec![0.0; len], &mut vec![0; bytes + 1]);
        assert!(matches!(result, Err(Error::InvalidRequest { name, .. }) if name == "data"));
    }
}

#[test]
fn zeros_stay_zeros() {
    for &ty in QuantType::ALL.iter().filter(|&&t| row_fn(t).is_some()) {
        let mut out = vec![f32::NAN; 256];
        dequantize(ty, &packed(ty, &[0.0; 256]), &mut out).unwrap();
        assert!(out.iter().all(|&x| x == 0.0), "{}", ty.name());
    }
}

/// Evenly spaced levels that a format has, about.
fn levels(ty: QuantType) -> f64 {
    match ty {
        QuantType::F32 => f64::INFINITY,
        QuantType::F16 => 2048.0,
        QuantType::BF16 => 256.0,
        QuantType::Q8_0 => 255.0,
        QuantType::Q6K => 64.0,
        QuantType::Q5_0 | QuantType::Q5_1 | QuantType::Q5K => 32.0,
        QuantType::Q4_0 | QuantType::Q4_1 | QuantType::Q4K => 16.0,
        QuantType::Q3K => 8.0,
        // Sixteen, unevenly spaced and the zero twice.
        QuantType::MXFP4 => 7.0,
        QuantType::Q2K => 4.0,
        // Three, of which the outer two reach half a step beyond the numbers.
        QuantType::TQ1_0 | QuantType::TQ2_0 => 2.0,
        _ => unreachable!("not written"),
    }
}

/// Rounding evenly spread numbers to n levels leaves 1/n of their root mean square.
#[test]
fn the_error_is_that_of_the_levels() {
    for &ty in QuantType::ALL.iter().filter(|&&t| row_fn(t).is_some()) {
        let x: Vec<f32> =
            splitmix64(7).take(1 << 16).map(|n| (n >> 40) as f32 / (1 << 23) as f32 - 1.0).collect();
        let mut out = vec![f32::NAN; x.len()];
        dequantize(ty, &packed(ty, &x), &mut out).unwrap();
        let mean_square = |f: &dyn Fn(f32, f32) -> f32| {
            x.iter().zip(&out).map(|(&x, &y)| f64::from(f(x, y)).powi(2)).sum::<f64>() / x.len() as f64
        };
        let ratio = (mean_square(&|x, y| x - y) / mean_square(&|x, _| x)).sqrt();
        assert!(ratio <= 1.15 / levels(ty), "{}: {ratio} of {}", ty.name(), 1.0 / levels(ty));
    }
}

proptest! {
    /// Any numbers are some block: infinities, numbers that are none, the smallest and the largest.
    #[test]
    fn nothing_panics(bits in vec(prop_oneof![any::<u32>(), Just(0x7f80_0000), Just(0x7f7f_ffff), Just(1)], 256)) {
        let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        for &ty in QuantType::ALL.iter().filter(|&&t| row_fn(t).is_some()) {
            packed(ty, &x);
        }
    }
}

//! The backend against the plain decoder, over random models on every axis of the spec.

mod common;

use alloyforge_backend_cpu::CpuBackend;
use alloyforge_interfaces::LoadOptions;
use alloyforge_kernels::isa::Isa;
use alloyforge_types::{DType, KvType, QuantType};
use common::{Runner, options, oracle, random};
use proptest::prelude::*;

/// The largest difference of any logit.
fn difference(got: &[Vec<f32>], want: &[Vec<f64>]) -> f64 {
    assert_eq!(got.len(), want.len());
    let pairs = got.iter().flatten().zip(want.iter().flatten());
    pairs.map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, |a, b| if b.is_nan() { b } else { a.max(b) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn logits_are_the_plain_decoders(
        seed in any::<u64>(),
        len in 1usize..100,
        ty in prop::sample::select(vec![
            QuantType::F32, QuantType::F16, QuantType::BF16, QuantType::Q8_0, QuantType::Q4_0, QuantType::Q4_1,
        ]),
    ) {
        let spec = random::spec(seed);
        let stock = random::weights(&spec, ty, seed ^ 1);
        let text = random::text(&spec, len, seed ^ 2);
        let want = oracle::forward(&spec, &stock, &text);
        for isa in Isa::available() {
            let options = LoadOptions { dtype: Some(DType::F32), ..options(KvType::F32, 2) };
            let backend = CpuBackend::load_for(&spec, &stock, &options, isa).expect("loads");
            let got = Runner::new(&spec, backend, 8, seed).alone(&text, &[len]);
            let worst = difference(&got, &want);
            prop_assert!(worst < 2e-5, "{}: off by {worst}: {spec:?}", isa.name());
        }
    }
}

/// Rounding activations to bytes moves logits a little, and not more: in the middle of many models, as
/// some make much of a little, by a choice of experts for one.
#[test]
fn products_of_bytes_are_near() {
    let types = [QuantType::Q4_0, QuantType::Q4_1, QuantType::Q8_0];
    for isa in Isa::available() {
        let mut shares = Vec::new();
        for (seed, ty) in (0..21).zip(types.into_iter().cycle()) {
            let spec = random::spec(seed);
            let stock = random::weights(&spec, ty, seed ^ 1);
            let text = random::text(&spec, 40, seed ^ 2);
            let want: Vec<f64> = oracle::forward(&spec, &stock, &text).into_iter().flatten().collect();
            let backend = CpuBackend::load_for(&spec, &stock, &options(KvType::F32, 2), isa).expect("loads");
            let got = Runner::new(&spec, backend, 8, seed).alone(&text, &[40]);
            let off: f64 = got.iter().flatten().zip(&want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
            shares.push((off / want.iter().map(|x| x * x).sum::<f64>()).sqrt());
        }
        shares.sort_by(f64::total_cmp);
        assert!(shares[10] < 0.02 && shares[20] < 0.3, "{}: {shares:?}", isa.name());
    }
}

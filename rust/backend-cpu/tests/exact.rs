//! The backend against the plain decoder, over random models on every axis of the spec.

mod common;

use alloyforge_backend_cpu::CpuBackend;
use alloyforge_kernels::isa::Isa;
use alloyforge_types::{KvType, QuantType};
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
            let backend = CpuBackend::load_for(&spec, &stock, &options(KvType::F32, 2), isa).expect("loads");
            let got = Runner::new(&spec, backend, 8, seed).alone(&text, &[len]);
            let worst = difference(&got, &want);
            prop_assert!(worst < 2e-5, "{}: off by {worst}: {spec:?}", isa.name());
        }
    }
}

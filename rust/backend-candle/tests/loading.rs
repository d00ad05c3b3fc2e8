//! Options, memory and devices.

mod common;

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use alloyforge_backend_candle::{CandleBackend, devices};
use alloyforge_interfaces::{Backend as _, LoadOptions, WeightSource};
use alloyforge_types::{
    Activation, DType, Error, KvType, MlpSpec, ModelSpec, QkNorm, QuantMix, QuantType, Role, RopeScaling,
    RopeSections, Weight,
};
use common::{RandomWeights, Runner, Text, distance, naive_logits, options, spec, spec_with};

fn load(spec: &ModelSpec, device: &str, options: &LoadOptions) -> Result<CandleBackend, Error> {
    CandleBackend::load(spec, &RandomWeights::new(spec), device, options)
}

#[test]
fn the_cpu_is_always_there() {
    let all = devices();
    assert_eq!((all[0].name.as_str(), all[0].kind.as_str()), ("cpu", "cpu"));
    let backend = load(&spec(), "cpu", &options()).expect("loads");
    assert_eq!((backend.device(), backend.threads()), ("cpu", 2));
}

#[test]
fn a_missing_device_says_what_is_missing() {
    let mut cases =
        vec![("tpu", "no such device"), ("cpu:1", "no such device"), ("cuda:x", "no such device")];
    if cfg!(not(feature = "cuda")) {
        cases.extend([("cuda", "this build has no CUDA"), ("cuda:1", "this build has no CUDA")]);
    }
    if cfg!(not(feature = "metal")) {
        cases.push(("metal", "this build has no Metal"));
    }
    for (name, says) in cases {
        match load(&spec(), name, &options()) {
            Err(Error::Device { device, fault }) => {
                assert!(device == name && fault.contains(says), "{fault}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn memory_is_counted() {
    let spec = spec();
    let mut backend = load(&spec, "cpu", &options()).expect("loads");
    // embedding and head; per layer q, o, k, v, three MLP matrices and two norms; the last norm
    let layer = 2 * 32 * 24 + 2 * 16 * 24 + 3 * 20 * 24 + 2 * 24;
    assert_eq!(backend.memory().weights, 4 * (2 * 40 * 24 + 2 * layer + 24));
    assert_eq!(backend.memory().kv, 0);
    backend.reserve_kv(&[3]).expect("fits");
    assert_eq!(backend.memory().kv, 3 * 32 * (2 * 2 * 16 * 4));
    assert!(matches!(backend.reserve_kv(&[3]), Err(Error::Internal { .. })));
}

#[test]
fn too_large_a_cache_is_refused_with_the_figures() {
    let mut backend = load(&spec(), "cpu", &options()).expect("loads");
    for blocks in [1 << 26, usize::MAX / 2] {
        match backend.reserve_kv(&[blocks]) {
            Err(Error::OutOfMemory { needed, available, .. }) => assert!(needed > available),
            other => panic!("{other:?}"),
        }
    }
    backend.reserve_kv(&[1]).expect("nothing was taken");
}

#[test]
fn too_large_a_model_is_refused_before_loading() {
    let spec = spec_with(|spec| {
        spec.hidden_dim = 1 << 22;
        spec.vocab_size = 1 << 22;
    });
    // the plan needs types only: a weight that is there in name
    struct Huge;
    impl WeightSource for Huge {
        fn weight(&self, role: Role) -> alloyforge_types::Result<Weight<'_>> {
            let name = format!("{role:?}");
            Ok(Weight { name, ty: QuantType::Q4K, rows: 1, cols: 256, data: Cow::Borrowed(&[]) })
        }
    }
    match CandleBackend::load(&spec, &Huge, "cpu", &options()) {
        Err(Error::OutOfMemory { needed, available, .. }) => {
            // embedding and head alone
            assert!(needed > available && needed > 2 * (1u64 << 44) * 144 / 256, "{needed}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn progress_rises_to_one() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let progress: alloyforge_interfaces::Progress = Arc::new(move |p| told.lock().expect("no panic").push(p));
    load(&spec(), "cpu", &LoadOptions { progress: Some(progress), ..options() }).expect("loads");
    let seen = seen.lock().expect("no panic");
    assert!(seen.is_sorted() && seen.last() == Some(&1.0), "{seen:?}");
}

#[test]
fn kv_types() {
    let default = load(&spec(), "cpu", &LoadOptions { kv_type: None, ..options() }).expect("loads");
    assert_eq!(default.kv_type(), KvType::F16);
    let q8_0 = load(&spec(), "cpu", &LoadOptions { kv_type: Some(KvType::Q8_0), ..options() });
    assert!(matches!(q8_0, Err(Error::InvalidRequest { name, .. }) if name == "kv_dtype"));
}

/// Logits of 20 tokens with `options`, and their distance from the exact ones.
fn off(options: &LoadOptions, weights: &RandomWeights) -> f64 {
    let spec = &weights.spec;
    let text = Text::random(2, 20, spec);
    let found = Runner::with_weights(spec, 1, 20, options, weights).step(&[(0, &text, 0..20)]);
    distance(&found, &naive_logits(weights, &text))
}

#[test]
fn weights_are_rounded_only_where_asked() {
    let weights = RandomWeights::new(&spec());
    assert!(off(&LoadOptions { dtype: Some(DType::F32), ..options() }, &weights) < 1e-4);
    for dtype in [DType::F16, DType::BF16] {
        let off = off(&LoadOptions { dtype: Some(dtype), ..options() }, &weights);
        assert!(1e-4 < off && off < 0.2, "{dtype:?}: {off}");
    }
}

#[test]
fn matrices_can_be_quantised() {
    // widths of 256, so that every type fits
    let spec = spec_with(|spec| {
        spec.hidden_dim = 256;
        for layer in &mut spec.layers {
            layer.attention.num_heads = 32;
            layer.mlp = MlpSpec::Dense { ff_dim: 256, activation: Activation::Silu, has_bias: false };
        }
    });
    let weights = RandomWeights::new(&spec);
    let of = |ty| off(&LoadOptions { quantize: Some(QuantMix::from(ty)), ..options() }, &weights);
    let (q8_0, q4_k) = (of(QuantType::Q8_0), of(QuantType::Q4K));
    assert!(1e-3 < q8_0 && q8_0 < 0.2, "{q8_0}");
    assert!(q8_0 < q4_k && q4_k < 3.0, "{q4_k}");
    let iq = load(&spec, "cpu", &LoadOptions { quantize: Some(QuantType::IQ2S.into()), ..options() });
    assert!(matches!(iq, Err(Error::InvalidRequest { name, .. }) if name == "quantize"));
}

#[test]
fn a_spec_without_sense_is_refused() {
    let faults: [fn(&mut ModelSpec); 9] = [
        |s| s.layers[0].attention.num_kv_heads = 3,
        |s| s.layers[0].attention.num_heads = 0,
        |s| s.layers[1].attention.head_dim = usize::MAX,
        |s| s.layers[0].attention.rope = Some(1),
        |s| s.ropes[0].dim = 10,
        |s| s.ropes[0].dim = 3,
        |s| s.ropes[0].sections = Some(RopeSections::Contiguous([1, 1, usize::MAX])),
        |s| s.ropes[0].scaling = RopeScaling::Divisors(vec![1.0]),
        |s| s.hidden_dim = 0,
    ];
    for (i, fault) in faults.iter().enumerate() {
        let spec = spec_with(fault);
        assert!(matches!(load(&spec, "cpu", &options()), Err(Error::Unsupported { .. })), "fault {i}");
    }
}

#[test]
fn a_weight_of_another_shape_is_an_error() {
    let (narrow, wide) = (spec(), spec_with(|spec| spec.layers[0].attention.qk_norm = QkNorm::FullWidth));
    let per_head = spec_with(|spec| spec.layers[0].attention.qk_norm = QkNorm::PerHead);
    CandleBackend::load(&narrow, &RandomWeights::new(&wide), "cpu", &options())
        .expect("norms are not asked for");
    let loaded = CandleBackend::load(&wide, &RandomWeights::new(&per_head), "cpu", &options());
    assert!(matches!(loaded, Err(Error::Internal { .. })), "{loaded:?}");
}

//! What a row comes to depends on its own sequence alone, bit for bit.

mod common;

use alloyforge_backend_cpu::CpuBackend;
use alloyforge_interfaces::Backend;
use alloyforge_kernels::isa::Isa;
use alloyforge_types::{BLOCK_LEN, KvType, MlpSpec, ModelSpec, QuantType};
use common::random::Random;
use common::{Cursor, Runner, options, random};
use proptest::prelude::*;

const KV_TYPES: [KvType; 4] = [KvType::F32, KvType::F16, KvType::BF16, KvType::Q8_0];

/// The bits of every logit, so that NaN and zero are compared too.
fn bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    logits.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn batches_chunks_threads_and_blocks_change_no_bit(
        seed in any::<u64>(),
        threads in 1usize..5,
        ty in prop::sample::select(vec![QuantType::F32, QuantType::Q4_1]),
        kv_type in prop::sample::select(KV_TYPES.to_vec()),
    ) {
        let r = &mut Random(seed ^ 3);
        let spec = random::spec(seed);
        let stock = random::weights(&spec, ty, seed ^ 1);
        let texts: Vec<_> =
            (0..3).map(|i| random::text(&spec, 1 + r.below(110), seed ^ (100 + i))).collect();
        // each alone, at once, on one thread
        let backend = CpuBackend::load(&spec, &stock, &options(kv_type, 1)).expect("loads");
        let mut alone = Runner::new(&spec, backend, 16, seed);
        let want: Vec<_> = texts.iter().map(|t| bits(&alone.alone(t, &[t.tokens.len()]))).collect();
        // together, in chunks, on several threads, in other blocks
        let backend = CpuBackend::load(&spec, &stock, &options(kv_type, threads)).expect("loads");
        let mut together = Runner::new(&spec, backend, 40, seed ^ 4);
        let mut chunks: Vec<_> = texts.iter().map(|t| random::whole_chunks(r, t)).collect();
        let mut cursors = vec![Cursor::default(); texts.len()];
        let mut got = vec![Vec::new(); texts.len()];
        while chunks.iter().any(|c| !c.is_empty()) {
            // any of those that are not done, and at least one
            let open: Vec<usize> = (0..texts.len()).filter(|&i| !chunks[i].is_empty()).collect();
            let must = open[r.below(open.len())];
            let now: Vec<usize> = open.into_iter().filter(|&i| i == must || r.coin()).collect();
            let mut parts: Vec<_> = cursors
                .iter_mut()
                .enumerate()
                .filter(|(i, _)| now.contains(i))
                .map(|(i, cursor)| (&texts[i], cursor, chunks[i].remove(0)))
                .collect();
            let logits = together.step(&mut parts).expect("a step");
            for (i, logits) in now.into_iter().zip(logits) {
                got[i].extend(bits(&logits));
            }
        }
        prop_assert!(got == want, "{threads} threads: {spec:?}");
    }
}

/// A sequence that goes on from copied blocks is the sequence itself.
#[test]
fn copied_blocks_are_the_blocks() {
    for (seed, kv_type) in (0..8).zip(KV_TYPES.into_iter().cycle()) {
        let spec = random::spec(seed);
        let stock = random::weights(&spec, QuantType::F32, seed);
        let mut text = random::text(&spec, 90, seed);
        text.attend_end.clear();
        let backend = CpuBackend::load(&spec, &stock, &options(kv_type, 2)).expect("loads");
        let mut runner = Runner::new(&spec, backend, 16, seed);
        let want = runner.alone(&text, &[50, 40]);
        let mut first = Cursor::default();
        runner.step(&mut [(&text, &mut first, 50)]).expect("a step");
        // a fork: its own copy of every block, and the old one written over
        let mut fork = Cursor::default();
        runner.cover(&mut fork, 50);
        fork.done = 50;
        for (group, (from, to)) in first.tables.iter().zip(&fork.tables).enumerate() {
            let pairs: Vec<_> = from.iter().zip(to).map(|(&a, &b)| (a, b)).collect();
            runner.backend.copy_blocks(group, &pairs).expect("sound pairs");
        }
        let mut over = random::text(&spec, 50, seed + 1000);
        over.attend_end.clear();
        first.done = 0;
        runner.step(&mut [(&over, &mut first, 50)]).expect("a step");
        let got = runner.step(&mut [(&text, &mut fork, 40)]).expect("a step").remove(0);
        assert_eq!(bits(&got), bits(&want[50..]), "seed {seed}, {kv_type:?}");
    }
}

/// Sets with registers of other widths add in the same order.
#[test]
fn avx2_and_avx512_agree() {
    let sets: Vec<Isa> = Isa::available().into_iter().filter(|isa| isa.name().starts_with("avx")).collect();
    for seed in 0..12 {
        let spec = random::spec(seed);
        let stock = random::weights(&spec, QuantType::Q8_0, seed);
        let text = random::text(&spec, 40, seed);
        let mut results = sets.iter().map(|&isa| {
            let backend = CpuBackend::load_for(&spec, &stock, &options(KvType::F16, 2), isa).expect("loads");
            bits(&Runner::new(&spec, backend, 4, seed).alone(&text, &[40]))
        });
        if let Some(first) = results.next() {
            assert!(results.all(|other| other == first), "seed {seed}");
        }
    }
}

/// Rounding the cache moves logits a little, and not more.
#[test]
fn narrower_caches_are_near() {
    // another choice of experts is no small change
    let is_dense = |spec: &ModelSpec| spec.layers.iter().all(|l| matches!(l.mlp, MlpSpec::Dense { .. }));
    let specs = (0..60).map(|seed| (seed, random::spec(seed))).filter(|(_, spec)| is_dense(spec));
    for (seed, spec) in specs {
        let stock = random::weights(&spec, QuantType::F32, seed);
        let text = random::text(&spec, 70, seed);
        let run = |kv_type| {
            let backend = CpuBackend::load(&spec, &stock, &options(kv_type, 2)).expect("loads");
            Runner::new(&spec, backend, 8, seed).alone(&text, &[70])
        };
        let exact = run(KvType::F32);
        let size = exact.iter().flatten().map(|x| x.abs()).fold(0.0, f32::max);
        for (kv_type, near) in [(KvType::F16, 4e-3), (KvType::BF16, 3e-2), (KvType::Q8_0, 5e-2)] {
            let logits = run(kv_type);
            let pairs = exact.iter().flatten().zip(logits.iter().flatten());
            let squares: f32 = pairs.map(|(a, b)| (a - b).powi(2)).sum();
            let off = (squares / (70 * spec.vocab_size) as f32).sqrt();
            assert!(off > 0.0 && off < near * size, "{kv_type:?}, seed {seed}: {off} of {size}");
        }
    }
}

/// One sequence's NaN is its own, from the row on that has it.
#[test]
fn nan_stays_in_its_sequence() {
    for seed in 0..12 {
        let spec = random::spec(seed);
        let stock = random::weights(&spec, QuantType::F32, seed);
        let mut texts: Vec<_> = (0..3).map(|i| random::text(&spec, 40, seed + i)).collect();
        for text in &mut texts {
            text.embeds.clear();
            text.attend_end.clear();
            text.tokens = (0..40).map(|i| (i * 7 + 3) % spec.vocab_size as u32).collect();
        }
        let mut values = vec![0.1; spec.hidden_dim];
        values[3] = f32::NAN;
        texts[1].embeds = vec![alloyforge_types::EmbedSpan {
            first_row: 25,
            values: values.into(),
            rows: 0..1,
            deeper: vec![],
        }];
        let backend = CpuBackend::load(&spec, &stock, &options(KvType::F32, 2)).expect("loads");
        let mut runner = Runner::new(&spec, backend, 3 * 40usize.div_ceil(BLOCK_LEN), seed);
        let mut cursors = vec![Cursor::default(); 3];
        let mut parts: Vec<_> = texts.iter().zip(&mut cursors).map(|(t, c)| (t, c, 40)).collect();
        let logits = runner.step(&mut parts).expect("a step");
        for (i, rows) in logits.iter().enumerate() {
            for (at, row) in rows.iter().enumerate() {
                if i == 1 && at == 25 {
                    assert!(row.iter().all(|x| x.is_nan()), "seed {seed}");
                } else if i != 1 || at < 25 {
                    assert!(row.iter().all(|x| x.is_finite()), "seed {seed}: sequence {i}, row {at}");
                }
            }
        }
    }
}

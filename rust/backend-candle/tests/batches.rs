//! What a row comes to does not depend on its company, its chunks or its blocks.

mod common;

use alloyforge_interfaces::Backend as _;
use alloyforge_types::{Batch, EmbedSpan, Error, KvType, ModelSpec, QkNorm, SequenceStep};
use common::{RandomWeights, Runner, Text, distance, naive_logits, options, spec_with};
use proptest::prelude::*;

/// A layer that sees all and one with a window, in two KV groups.
fn mixed() -> ModelSpec {
    spec_with(|spec| {
        spec.layers[1].attention.window = Some(20);
        spec.layers[1].attention.qk_norm = QkNorm::PerHead;
        spec.layers[0].attention.has_sinks = true;
    })
}

#[test]
fn a_ragged_batch_is_its_sequences() {
    let spec = mixed();
    let weights = RandomWeights::new(&spec);
    let texts = [Text::random(1, 90, &spec), Text::random(2, 40, &spec), Text::random(3, 65, &spec)];
    let alone: Vec<_> = texts.iter().map(|text| naive_logits(&weights, text)).collect();
    let mut runner = Runner::new(&spec, 3, 90, &options());
    // prompts of different lengths, then prefill beside decoding, then decoding alone in another order
    let steps: [&[(usize, std::ops::Range<usize>)]; 4] = [
        &[(0, 0..50), (1, 0..39)],
        &[(1, 39..40), (2, 0..64), (0, 50..51)],
        &[(2, 64..65), (0, 51..52)],
        &[(0, 52..90)],
    ];
    for step in steps {
        let parts: Vec<_> = step.iter().map(|(s, range)| (*s, &texts[*s], range.clone())).collect();
        let mut found = runner.step(&parts).into_iter();
        for (s, range) in step {
            let rows: Vec<_> = found.by_ref().take(range.len()).collect();
            let worst = distance(&rows, &alone[*s][range.clone()]);
            assert!(worst < 2e-4, "sequence {s}, {range:?}: off by {worst}");
        }
    }
}

#[test]
fn many_sequences_decode_together() {
    // more than the runs that are written one by one
    let spec = mixed();
    let weights = RandomWeights::new(&spec);
    let texts: Vec<_> = (0..12).map(|i| Text::random(i, 34 + i as usize, &spec)).collect();
    let mut runner = Runner::new(&spec, 12, 46, &options());
    let last = |text: &Text| text.tokens.len() - 1;
    let parts: Vec<_> = texts.iter().enumerate().map(|(s, t)| (s, t, 0..last(t))).collect();
    runner.step(&parts);
    let parts: Vec<_> = texts.iter().enumerate().map(|(s, t)| (s, t, last(t)..last(t) + 1)).collect();
    for (row, text) in runner.step(&parts).into_iter().zip(&texts) {
        let all = naive_logits(&weights, text);
        assert!(distance(&[row], &all[last(text)..]) < 2e-4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Blocks behind the window are taken away as soon as no row of the step sees them.
    #[test]
    fn chunks_do_not_show(cuts in prop::collection::btree_set(1usize..100, 0..8), seed: u64) {
        let spec = mixed();
        let text = Text::random(seed, 100, &spec);
        let whole = Runner::new(&spec, 1, 100, &options()).step(&[(0, &text, 0..100)]);
        let mut runner = Runner::new(&spec, 1, 100, &options());
        runner.forgets = true;
        let mut from = 0;
        for to in cuts.into_iter().chain([100]) {
            let found = runner.step(&[(0, &text, from..to)]);
            let worst = distance(&found, &whole[from..to]);
            prop_assert!(worst < 2e-4, "{from}..{to}: off by {worst}");
            from = to;
        }
    }
}

#[test]
fn spans_of_embeddings_may_be_spread_over_steps() {
    let spec = mixed();
    let mut random = common::Random::new(8);
    let embeds = vec![(5, (0..30 * 24).map(|_| random.unit()).collect::<Vec<_>>())];
    let text = Text { embeds, ..Text::random(6, 45, &spec) };
    let whole = naive_logits(&RandomWeights::new(&spec), &text);
    let mut runner = Runner::new(&spec, 1, 45, &options());
    for range in [0..12, 12..20, 20..45] {
        assert!(distance(&runner.step(&[(0, &text, range.clone())]), &whole[range]) < 2e-4);
    }
}

#[test]
fn narrower_caches_cost_little() {
    let spec = mixed();
    let text = Text::random(1, 70, &spec);
    let exact = naive_logits(&RandomWeights::new(&spec), &text);
    for (kv_type, within) in [(KvType::F16, 1e-2), (KvType::BF16, 1e-1)] {
        let options = alloyforge_interfaces::LoadOptions { kv_type: Some(kv_type), ..options() };
        let mut runner = Runner::new(&spec, 1, 70, &options);
        assert_eq!(runner.backend.kv_type(), kv_type);
        let worst = distance(&runner.step(&[(0, &text, 0..70)]), &exact);
        assert!(1e-5 < worst && worst < within, "{kv_type:?}: off by {worst}");
    }
}

#[test]
fn copied_blocks_hold_the_same_tokens() {
    let spec = mixed();
    let text = Text::random(1, 64, &spec);
    let mut runner = Runner::new(&spec, 2, 64, &options());
    runner.step(&[(0, &text, 0..63)]);
    // the second sequence takes over the first one's blocks
    for group in 0..spec.kv_groups.len() {
        let pairs = runner.pairs(group, 0, 1);
        runner.backend.copy_blocks(group, &pairs).expect("copies");
    }
    let both = runner.step(&[(0, &text, 63..64), (1, &text, 63..64)]);
    assert!(distance(&both[..1], &both[1..]) < 1e-6);
    assert!(matches!(runner.backend.copy_blocks(0, &[(0, 5)]), Err(Error::Internal { .. })));
}

#[test]
fn only_asked_rows_get_logits() {
    let spec = mixed();
    let text = Text::random(1, 20, &spec);
    let all = naive_logits(&RandomWeights::new(&spec), &text);
    let mut runner = Runner::new(&spec, 1, 20, &options());
    let mut batch = Batch {
        tokens: text.tokens.clone(),
        sequences: vec![SequenceStep { num_rows: 20, tables: vec![vec![0]; 2], ..SequenceStep::default() }],
        logit_rows: vec![3, 19],
        ..Batch::default()
    };
    let found = runner.forward(&batch).expect("runs");
    assert!(distance(&found, &[all[3].clone(), all[19].clone()]) < 2e-4);
    batch.logit_rows.clear();
    assert_eq!(runner.forward(&batch).expect("runs"), Vec::<Vec<f32>>::new());
    assert_eq!(runner.forward(&Batch::default()).expect("runs"), Vec::<Vec<f32>>::new());
}

#[test]
fn a_batch_that_contradicts_itself_is_an_error() {
    let spec = mixed();
    let mut runner = Runner::new(&spec, 1, 40, &options());
    let good = Batch {
        tokens: vec![1; 10],
        sequences: vec![SequenceStep { num_rows: 10, tables: vec![vec![0]; 2], ..SequenceStep::default() }],
        logit_rows: vec![9],
        ..Batch::default()
    };
    runner.forward(&good).expect("runs");
    let faults: [fn(&mut Batch); 13] = [
        |b| b.tokens[3] = 40,
        |b| b.tokens.push(0),
        |b| b.logit_rows = vec![10],
        |b| b.logit_rows = vec![4, 4],
        |b| b.sequences[0].start = 30,
        |b| b.sequences[0].start = usize::MAX,
        |b| b.sequences[0].tables[1] = vec![],
        |b| b.sequences[0].tables[1] = vec![alloyforge_types::NO_BLOCK],
        |b| b.sequences[0].tables[0] = vec![3],
        |b| b.sequences[0].tables.truncate(1),
        |b| b.sequences[0].attend_end = vec![11; 10],
        |b| b.sequences[0].rope_positions = vec![[0; 3]; 9],
        |b| {
            b.embeds =
                vec![EmbedSpan { first_row: 9, values: vec![0.0; 48].into(), rows: 0..2, deeper: vec![] }];
        },
    ];
    for (i, fault) in faults.iter().enumerate() {
        let mut batch = good.clone();
        fault(&mut batch);
        assert!(matches!(runner.forward(&batch), Err(Error::Internal { .. })), "fault {i}");
    }
    // the step was given up
    assert!(matches!(runner.backend.embed(), Err(Error::Internal { .. })));
    runner.forward(&good).expect("still runs");
    assert!(matches!(runner.backend.attend(0), Err(Error::Internal { .. })), "without queries");
}

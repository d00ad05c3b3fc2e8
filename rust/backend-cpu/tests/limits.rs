//! Loading, memory, and everything that is refused.

mod common;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use alloyforge_backend_cpu::CpuBackend;
use alloyforge_interfaces::{Backend, LoadOptions};
use alloyforge_kernels::quantize::quantize;
use alloyforge_types::{
    BLOCK_LEN, Batch, DType, EmbedSpan, Error, KvType, LayerRole, MlpSpec, ModelSpec, NO_BLOCK, QuantMix,
    QuantType, Role, RopeSections, SequenceStep,
};
use common::{Runner, Stock, options, random};

/// A model with a window and without, and its weights.
fn model(ty: QuantType) -> (ModelSpec, Stock) {
    let seed = (0..)
        .find(|&seed| {
            let spec = random::spec(seed);
            spec.kv_groups.len() == 2 && spec.has_tied_head && !spec.ropes.is_empty()
        })
        .expect("some seed");
    let spec = random::spec(seed);
    let stock = random::weights(&spec, ty, 1);
    (spec, stock)
}

fn load(spec: &ModelSpec, stock: &Stock, options: &LoadOptions) -> Result<CpuBackend, Error> {
    CpuBackend::load(spec, stock, options)
}

/// The bytes of a matrix whose rows lie in sixteens.
fn padded(w: &common::Stored) -> usize {
    w.rows.next_multiple_of(16) * (w.data.len() / w.rows)
}

#[test]
fn weights_stay_as_compact_as_the_file_has_them() {
    for ty in [QuantType::Q4_0, QuantType::Q4_1, QuantType::F16, QuantType::F32] {
        let (spec, stock) = model(ty);
        let stored: u64 = stock.0.values().map(|w| w.data.len() as u64).sum();
        let backend = load(&spec, &stock, &options(KvType::F16, 2)).expect("loads");
        // rows lie in sixteens, and the scales of blocks end at a line
        let padding = |w: &common::Stored| {
            let scales = if w.ty.is_plain() { 0 } else { w.rows.div_ceil(16) * 64 };
            padded(w) + scales - w.data.len()
        };
        let matrices = stock.0.iter().filter(|(role, _)| !role.is_vector());
        let padding: u64 = matrices.map(|(_, w)| padding(w) as u64).sum();
        let weights = backend.memory().weights;
        assert!((stored..=stored + padding).contains(&weights), "{weights} for {stored}");
        assert_eq!(backend.memory().kv, 0);
        assert!(backend.memory().workspace > 0);
        assert_eq!((backend.device(), backend.kv_type(), backend.threads()), ("cpu", KvType::F16, 2));
    }
}

#[test]
fn the_asked_type_is_kept() {
    let (spec, stock) = model(QuantType::F32);
    let size = |dtype| {
        let options = LoadOptions { dtype, ..options(KvType::F32, 1) };
        load(&spec, &stock, &options).expect("loads").memory().weights
    };
    let vectors = stock.0.iter().filter(|(role, _)| role.is_vector());
    let vectors: u64 = vectors.map(|(_, w)| w.data.len() as u64).sum();
    let routers: u64 = stock
        .0
        .iter()
        .filter(|(role, _)| matches!(role, Role::Layer(_, LayerRole::Router)))
        .map(|(_, w)| padded(w) as u64)
        .sum();
    let whole = size(Some(DType::F32));
    assert_eq!(size(None), whole);
    for narrow in [DType::F16, DType::BF16] {
        // norms, biases and routers stay
        assert_eq!(size(Some(narrow)) * 2, whole + vectors + routers);
    }
}

/// Quantising at load gives what a file quantised before would have given.
#[test]
fn quantising_at_load_is_quantising_before() {
    let (spec, stock) = model(QuantType::F32);
    let text = random::text(&spec, 20, 3);
    let run = |stock: &Stock, quantize: Option<QuantMix>| {
        let backend =
            load(&spec, stock, &LoadOptions { quantize, ..options(KvType::F32, 2) }).expect("loads");
        let weights = backend.memory().weights;
        (weights, Runner::new(&spec, backend, 4, 1).alone(&text, &[20]))
    };
    // rows here are too short for blocks of 256, and some for blocks of 32
    for (asked, small) in [
        (QuantType::Q8_0, QuantType::Q8_0),
        (QuantType::Q4_0, QuantType::Q4_0),
        (QuantType::Q4K, QuantType::Q5_0),
        (QuantType::Q6K, QuantType::Q8_0),
    ] {
        let mut before = Stock::default();
        for (&role, weight) in &stock.0 {
            let is_kept = role.is_vector() || matches!(role, Role::Layer(_, LayerRole::Router));
            let ty = match small.row_bytes(weight.cols) {
                _ if is_kept => QuantType::F32,
                Some(_) => small,
                None => QuantType::F16,
            };
            let row_bytes = ty.row_bytes(weight.cols).expect("whole blocks");
            let mut data = vec![0; weight.rows * row_bytes];
            for (row, out) in weight.numbers.chunks_exact(weight.cols).zip(data.chunks_exact_mut(row_bytes)) {
                quantize(ty, row, out).expect("fits");
            }
            before.0.insert(role, common::Stored { ty, data, numbers: vec![], ..*weight });
        }
        assert!(run(&stock, Some(asked.into())) == run(&before, None), "{asked:?}");
    }
    let options = LoadOptions { quantize: Some(QuantType::IQ2XS.into()), ..options(KvType::F32, 1) };
    let Err(Error::InvalidRequest { name, .. }) = load(&spec, &stock, &options) else { panic!("quantised") };
    assert_eq!(name, "quantize");
}

#[test]
fn the_cache_takes_what_the_spec_says() {
    let (spec, stock) = model(QuantType::F32);
    for kv_type in [KvType::F32, KvType::F16, KvType::BF16, KvType::Q8_0] {
        let mut backend = load(&spec, &stock, &options(kv_type, 1)).expect("loads");
        backend.reserve_kv(&[3, 5]).expect("fits");
        let tokens = [3, 5].map(|n| (n * BLOCK_LEN) as u64);
        let bytes = |g: usize| spec.kv_token_bytes(g, kv_type) as u64;
        assert_eq!(backend.memory().kv, tokens[0] * bytes(0) + tokens[1] * bytes(1));
    }
}

#[test]
fn too_much_memory_is_refused_and_nothing_taken() {
    let (spec, stock) = model(QuantType::F32);
    let mut backend = load(&spec, &stock, &options(KvType::F32, 1)).expect("loads");
    for blocks in [[usize::MAX, 1], [1, 1 << 45], [usize::MAX / 4096, usize::MAX / 4096]] {
        let Err(Error::OutOfMemory { what, needed, .. }) = backend.reserve_kv(&blocks) else {
            panic!("{blocks:?} taken")
        };
        assert_eq!(what, "the KV cache");
        assert!(needed > 1 << 45);
        assert_eq!(backend.memory().kv, 0);
    }
    assert!(matches!(backend.reserve_kv(&[1]), Err(Error::Internal { .. })));
    for max_rows in [usize::MAX, 1 << 50] {
        let options = LoadOptions { max_rows, ..options(KvType::F32, 1) };
        assert!(matches!(load(&spec, &stock, &options), Err(Error::OutOfMemory { .. })), "{max_rows} rows");
    }
}

#[test]
fn options_out_of_range_are_named() {
    let (spec, stock) = model(QuantType::F32);
    for threads in [0, 1 << 20] {
        let Err(Error::InvalidRequest { name, .. }) = load(&spec, &stock, &options(KvType::F32, threads))
        else {
            panic!("{threads} threads")
        };
        assert_eq!(name, "threads");
    }
}

#[test]
fn progress_rises_to_one() {
    let (spec, stock) = model(QuantType::F32);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let progress = seen.clone();
    let options = LoadOptions {
        progress: Some(Arc::new(move |p| progress.lock().expect("no panic").push(p))),
        ..options(KvType::F32, 2)
    };
    load(&spec, &stock, &options).expect("loads");
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.len(), spec.layers.len() + 2);
    assert!(seen[0] > 0.0 && seen.is_sorted_by(|a, b| a < b));
    assert_eq!(seen.last(), Some(&1.0));
}

#[test]
fn weights_that_lack_or_do_not_fit_are_errors() {
    let (spec, mut stock) = model(QuantType::F32);
    let roles: Vec<Role> = stock.0.keys().copied().collect();
    for role in roles {
        let weight = stock.0.remove(&role).expect("it was there");
        assert!(load(&spec, &stock, &options(KvType::F32, 1)).is_err(), "without {role:?}");
        let mut short = common::Stored { data: weight.data.clone(), numbers: vec![], ..weight };
        short.data.pop();
        stock.0.insert(role, short);
        assert!(load(&spec, &stock, &options(KvType::F32, 1)).is_err(), "with a short {role:?}");
        stock.0.insert(role, weight);
    }
    assert!(load(&spec, &stock, &options(KvType::F32, 1)).is_ok());
}

#[test]
fn specs_that_contradict_themselves_are_errors() {
    let (spec, stock) = model(QuantType::F32);
    type Break = fn(&mut ModelSpec);
    let breaks: [(&str, Break); 14] = [
        ("no vocabulary", |s| s.vocab_size = 0),
        ("no width", |s| s.hidden_dim = 0),
        ("no key head", |s| s.layers[0].attention.num_kv_heads = 0),
        ("heads that do not divide", |s| s.layers[0].attention.num_kv_heads = 1000),
        ("no head width", |s| s.layers[0].attention.head_dim = 0),
        ("heads past all bounds", |s| s.layers[0].attention.num_heads = usize::MAX),
        ("an odd rope", |s| s.ropes[0].dim = 3),
        ("a rope wider than a head", |s| s.ropes[0].dim = 4096),
        ("a rope that is not there", |s| s.layers[0].attention.rope = Some(9)),
        ("a window of nothing", |s| s.layers[0].attention.window = Some(0)),
        ("a KV group that is not there", |s| s.layers[0].kv_group = 9),
        ("a window larger than its group's", |s| s.kv_groups.iter_mut().for_each(|g| g.window = Some(1))),
        ("sections past the angles", |s| {
            s.ropes[0].sections = Some(RopeSections::Contiguous([usize::MAX, 1, 1]))
        }),
        ("an MLP of nothing", |s| {
            s.layers[0].mlp =
                MlpSpec::Dense { ff_dim: 0, activation: alloyforge_types::Activation::Silu, has_bias: false };
        }),
    ];
    for (what, damage) in breaks {
        let mut damaged = spec.clone();
        damage(&mut damaged);
        assert!(load(&damaged, &stock, &options(KvType::F32, 1)).is_err(), "{what}");
    }
}

/// A batch that contradicts itself must neither run nor touch memory that is not its own.
#[test]
fn batches_that_contradict_themselves_are_errors() {
    let (spec, stock) = model(QuantType::F32);
    let options = LoadOptions { max_rows: 64, max_logit_rows: 2, ..options(KvType::F32, 2) };
    let backend = load(&spec, &stock, &options).expect("loads");
    let mut runner = Runner::new(&spec, backend, 6, 1);
    let sound = || Batch {
        tokens: vec![1; 40],
        sequences: vec![
            SequenceStep { num_rows: 36, tables: vec![vec![0, 1]; 2], ..SequenceStep::default() },
            SequenceStep {
                num_rows: 4,
                start: 62,
                tables: vec![vec![2, 3, 4]; 2],
                ..SequenceStep::default()
            },
        ],
        logit_rows: vec![35, 39],
        embeds: vec![],
        watched_heads: vec![],
    };
    assert!(runner.forward(&sound()).is_ok());
    type Break = fn(&mut Batch);
    let span = |first_row: usize, rows: std::ops::Range<usize>| EmbedSpan {
        first_row,
        values: vec![0.0; 1000].into(),
        rows,
        deeper: vec![],
    };
    let spans = [span(39, 0..2), span(0, 0..10_000), span(usize::MAX, 0..1), span(0, 0..usize::MAX)];
    let breaks: Vec<(&str, Break)> = vec![
        ("too many rows", |b| b.tokens = vec![1; 65]),
        ("rows of no sequence", |b| b.tokens.push(1)),
        ("sequences of no rows", |b| b.tokens.truncate(39)),
        ("a count past all bounds", |b| b.sequences[0].num_rows = usize::MAX),
        ("a start past all bounds", |b| b.sequences[1].start = usize::MAX),
        ("a start past 32 bits", |b| b.sequences[1].start = u32::MAX as usize),
        ("a start past the table", |b| b.sequences[1].start = 93),
        ("a token past the vocabulary", |b| b.tokens[5] = u32::MAX),
        ("too many logits", |b| b.logit_rows = vec![1, 2, 3]),
        ("logits of no row", |b| b.logit_rows = vec![40]),
        ("a block that is not there", |b| b.sequences[0].tables[1][1] = 6),
        ("no block where one is needed", |b| b.sequences[0].tables[0][1] = NO_BLOCK),
        ("one block for two sequences", |b| b.sequences[0].tables[0][1] = 3),
        ("one block twice", |b| b.sequences[0].tables[0][1] = 0),
        ("no tables", |b| b.sequences[0].tables.clear()),
        ("an end before the row", |b| b.sequences[1].attend_end = vec![63, 64, 65, 65]),
        ("an end past the sequence", |b| b.sequences[1].attend_end = vec![67; 4]),
        ("too few ends", |b| b.sequences[1].attend_end = vec![66; 3]),
        ("too few positions", |b| b.sequences[1].rope_positions = vec![[0; 3]; 3]),
    ];
    for (what, damage) in breaks {
        let mut batch = sound();
        damage(&mut batch);
        assert!(matches!(runner.forward(&batch), Err(Error::Internal { .. })), "{what}");
    }
    for span in spans {
        let mut batch = sound();
        batch.embeds.push(span);
        assert!(matches!(runner.forward(&batch), Err(Error::Internal { .. })), "{:?}", batch.embeds);
    }
    let mut logits = vec![0.0; spec.vocab_size];
    runner.backend.begin(&sound()).expect("sound");
    assert!(runner.backend.logits(&mut logits).is_err(), "room for one row of two");
    assert!(runner.backend.qkv(spec.layers.len()).is_err(), "one layer too many");
    assert!(runner.backend.copy_blocks(0, &[(0, 6)]).is_err() && runner.backend.copy_blocks(2, &[]).is_err());
    // and it still works
    assert!(runner.forward(&sound()).is_ok());
}

#[test]
fn a_step_without_logits_or_rows_is_a_step() {
    let (spec, stock) = model(QuantType::F32);
    let backend = load(&spec, &stock, &options(KvType::F32, 2)).expect("loads");
    let mut runner = Runner::new(&spec, backend, 0, 1);
    assert_eq!(runner.forward(&Batch::default()), Ok(vec![]));
    runner.backend.reserve_kv(&[6, 6]).expect("fits");
    let batch = Batch {
        tokens: vec![1; 3],
        sequences: vec![SequenceStep { num_rows: 3, tables: vec![vec![0]; 2], ..SequenceStep::default() }],
        ..Batch::default()
    };
    assert_eq!(runner.forward(&batch), Ok(vec![]));
}

/// Sessions in one process share threads and do not wait for each other for ever.
#[test]
fn several_backends_run_at_once() {
    let (spec, stock) = model(QuantType::Q4_0);
    let text = random::text(&spec, 60, 9);
    let results: HashSet<Vec<u32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|i| {
                let (spec, stock, text) = (&spec, &stock, &text);
                scope.spawn(move || {
                    let backend = load(spec, stock, &options(KvType::F16, 1 + i % 3)).expect("loads");
                    let logits = Runner::new(spec, backend, 6, i as u64).alone(text, &[60]);
                    logits.iter().flatten().map(|x| x.to_bits()).collect()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    assert_eq!(results.len(), 1);
}

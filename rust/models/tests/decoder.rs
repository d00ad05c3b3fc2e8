//! The decoder's order of phases and what it refuses.

mod support;

use std::ops::Range;
use std::sync::Arc;

use alloyforge_interfaces::{Backend, MemoryUse, Model};
use alloyforge_models::{Config, Decoder};
use alloyforge_types::{
    BLOCK_LEN, Batch, BlockId, EmbedSpan, Error, KvType, ModelSpec, NO_BLOCK, Result, SequenceStep,
};
use proptest::prelude::*;

/// Writes down what it is told.
#[derive(Debug, Default)]
struct Recorder {
    calls: Vec<String>,
    fails_at: Option<&'static str>,
}

impl Recorder {
    fn note(&mut self, call: String) -> Result<()> {
        let fails = self.fails_at.is_some_and(|name| call.starts_with(name));
        self.calls.push(call);
        if fails { Err(Error::Device { device: "fake".into(), fault: "failed".into() }) } else { Ok(()) }
    }
}

impl Backend for Recorder {
    fn device(&self) -> &str {
        "fake"
    }

    fn kv_type(&self) -> KvType {
        KvType::F16
    }

    fn threads(&self) -> usize {
        3
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { weights: 1, kv: 2, workspace: 3 }
    }

    fn reserve_kv(&mut self, blocks: &[usize]) -> Result<()> {
        self.note(format!("reserve {blocks:?}"))
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.note(format!("begin {}", batch.tokens.len()))
    }

    fn embed(&mut self) -> Result<()> {
        self.note("embed".into())
    }

    fn qkv(&mut self, layer: usize) -> Result<()> {
        self.note(format!("qkv {layer}"))
    }

    fn attend(&mut self, layer: usize) -> Result<()> {
        self.note(format!("attend {layer}"))
    }

    fn output(&mut self, layer: usize) -> Result<()> {
        self.note(format!("output {layer}"))
    }

    fn mlp(&mut self, layer: usize) -> Result<()> {
        self.note(format!("mlp {layer}"))
    }

    fn final_norm(&mut self) -> Result<()> {
        self.note("final_norm".into())
    }

    fn logits(&mut self, out: &mut [f32]) -> Result<()> {
        out.fill(7.0);
        self.note(format!("logits {}", out.len()))
    }

    fn copy_blocks(&mut self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        self.note(format!("copy {group} {pairs:?}"))
    }
}

/// Gemma 2's reference: two layers, one with a window of 8, so two KV groups; 320 tokens, width 64.
fn spec() -> ModelSpec {
    let folder = support::reference("gemma2");
    let config = support::json(folder.join("config.json"));
    let store = alloyforge_formats::safetensors::SafetensorsStore::open(&folder).unwrap();
    alloyforge_models::resolve(Config::HuggingFace(&config), Arc::new(store)).unwrap().spec
}

fn decoder() -> Decoder<Recorder> {
    let mut decoder = Decoder::new(spec(), Recorder::default()).with_limits(64, 8);
    decoder.reserve_kv(&[10, 20]).unwrap();
    decoder
}

/// Tokens `start..start + rows` of a sequence whose blocks are `first`, `first + 1`, ….
fn sequence(start: usize, rows: usize, first: BlockId) -> SequenceStep {
    let blocks = (start + rows).div_ceil(BLOCK_LEN) as BlockId;
    let table: Vec<BlockId> = (first..first + blocks).collect();
    SequenceStep {
        num_rows: rows,
        start,
        rope_len: start + rows,
        tables: vec![table.clone(), table],
        ..Default::default()
    }
}

fn batch(sequences: Vec<SequenceStep>, logit_rows: Vec<usize>) -> Batch {
    let rows = sequences.iter().map(|s| s.num_rows).sum();
    Batch { tokens: vec![5; rows], sequences, logit_rows, ..Batch::default() }
}

fn mixed() -> Batch {
    batch(vec![sequence(0, 40, 0), sequence(70, 1, 4)], vec![39, 40])
}

#[test]
fn phases_come_in_their_order() {
    let mut decoder = decoder();
    let mut logits = vec![1.0; 3];
    decoder.forward(&mixed(), &mut logits).unwrap();
    assert_eq!(logits, vec![7.0; 640]);
    let expected = [
        "reserve [10, 20]",
        "begin 41",
        "embed",
        "qkv 0",
        "attend 0",
        "output 0",
        "mlp 0",
        "qkv 1",
        "attend 1",
        "output 1",
        "mlp 1",
        "final_norm",
        "logits 640",
    ];
    assert_eq!(decoder.backend().calls, expected);
    assert_eq!((decoder.device(), decoder.kv_type(), decoder.threads()), ("fake", KvType::F16, 3));
    assert_eq!(decoder.memory().kv, 2);
}

#[test]
fn a_chunk_that_asks_for_no_logits_ends_before_the_head() {
    let mut decoder = decoder();
    let mut logits = vec![1.0; 3];
    decoder.forward(&batch(vec![sequence(0, 40, 0)], vec![]), &mut logits).unwrap();
    assert!(logits.is_empty());
    assert_eq!(decoder.backend().calls.last().map(String::as_str), Some("mlp 1"));
    // and no rows are no step at all
    let before = decoder.backend().calls.len();
    decoder.forward(&Batch::default(), &mut logits).unwrap();
    assert_eq!(decoder.backend().calls.len(), before);
}

#[test]
fn a_failing_phase_ends_the_step() {
    for phase in ["begin", "embed", "qkv 1", "attend 0", "output 1", "mlp 1", "final_norm", "logits"] {
        let backend = Recorder { fails_at: Some(phase), ..Recorder::default() };
        let mut decoder = Decoder::new(spec(), backend);
        decoder.reserve_kv(&[10, 20]).unwrap();
        let error = decoder.forward(&mixed(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{phase}");
        assert!(decoder.backend().calls.last().unwrap().starts_with(phase), "{phase}");
    }
}

#[test]
fn blocks_are_copied_within_their_pool() {
    let mut decoder = decoder();
    decoder.copy_blocks(1, &[(0, 19)]).unwrap();
    decoder.copy_blocks(0, &[]).unwrap();
    assert_eq!(decoder.backend().calls.last().map(String::as_str), Some("copy 1 [(0, 19)]"));
    for (group, pair) in [(0, (0, 10)), (0, (10, 0)), (1, (NO_BLOCK, 0)), (2, (0, 0))] {
        assert!(
            matches!(decoder.copy_blocks(group, &[pair]), Err(Error::Internal { .. })),
            "{group} {pair:?}"
        );
    }
    assert!(matches!(decoder.reserve_kv(&[1]), Err(Error::Internal { .. })));
}

#[test]
fn blocks_behind_a_window_may_be_gone() {
    // token 70 sees 63..=70 in the windowed group: the second block of 32 on
    let mut step = sequence(70, 1, 0);
    step.tables[0][0] = NO_BLOCK;
    decoder().forward(&batch(vec![step.clone()], vec![0]), &mut Vec::new()).unwrap();
    step.tables[0][1] = NO_BLOCK;
    assert!(decoder().forward(&batch(vec![step.clone()], vec![0]), &mut Vec::new()).is_err());
    // the other group sees everything
    let mut step = sequence(70, 1, 0);
    step.tables[1][0] = NO_BLOCK;
    assert!(decoder().forward(&batch(vec![step], vec![0]), &mut Vec::new()).is_err());
}

#[test]
fn sequences_may_share_what_they_read_and_not_what_they_write() {
    // both begin with block 0 and write blocks of their own
    let (mut a, mut b) = (sequence(32, 3, 0), sequence(40, 1, 0));
    (a.tables[0][1], a.tables[1][1]) = (3, 3);
    (b.tables[0][1], b.tables[1][1]) = (4, 4);
    decoder().forward(&batch(vec![a.clone(), b.clone()], vec![]), &mut Vec::new()).unwrap();
    b.tables[1][1] = 3;
    assert!(decoder().forward(&batch(vec![a, b], vec![]), &mut Vec::new()).is_err());
}

#[test]
fn spliced_rows_and_wide_attention() {
    let values: Arc<[f32]> = vec![0.0; 64 * 10].into();
    let mut good = batch(vec![sequence(0, 20, 0)], vec![19]);
    good.embeds = vec![
        EmbedSpan { first_row: 12, values: values.clone(), rows: 5..10, deeper: Vec::new() },
        EmbedSpan { first_row: 2, values: values.clone(), rows: 0..10, deeper: Vec::new() },
    ];
    good.sequences[0].attend_end = (0..20).map(|i| if i < 10 { 10 } else { i + 1 }).collect();
    good.sequences[0].rope_positions = vec![[1, 2, 3]; 20];
    decoder().forward(&good, &mut Vec::new()).unwrap();
}

type Change = fn(&mut Batch);

#[test]
fn contradictions_are_refused() {
    let cases: Vec<(&str, Change)> = vec![
        ("too few tokens", |b| b.tokens.truncate(40)),
        ("too many tokens", |b| b.tokens.push(1)),
        ("no sequences", |b| b.sequences.clear()),
        ("too many rows", |b| *b = batch(vec![sequence(0, 65, 0)], vec![])),
        ("too many logits", |b| b.logit_rows = (0..9).collect()),
        ("logit row past the end", |b| b.logit_rows = vec![41]),
        ("logit rows twice", |b| b.logit_rows = vec![3, 3]),
        ("logit rows descend", |b| b.logit_rows = vec![4, 3]),
        ("an empty sequence", |b| b.sequences.push(sequence(0, 0, 9))),
        ("rows overflow", |b| b.sequences[0].num_rows = usize::MAX),
        ("start overflows", |b| b.sequences[1].start = usize::MAX),
        ("start past all positions", |b| b.sequences[1].start = 1 << 40),
        ("a table missing", |b| b.sequences[0].tables.truncate(1)),
        ("a table too many", |b| b.sequences[0].tables.push(vec![0, 1])),
        ("a table too short", |b| b.sequences[0].tables[1].truncate(1)),
        ("a block past the pool", |b| b.sequences[0].tables[0][1] = 10),
        ("no block to write", |b| b.sequences[0].tables[0][1] = NO_BLOCK),
        ("two writers", |b| b.sequences[1].tables[0][2] = 0),
        ("ends for other rows", |b| b.sequences[0].attend_end = vec![1]),
        ("a row that does not see itself", |b| b.sequences[1].attend_end = vec![70]),
        ("a row that sees past the end", |b| b.sequences[1].attend_end = vec![72]),
        ("positions for other rows", |b| b.sequences[1].rope_positions = vec![[0; 3]; 2]),
        ("spliced past the end", |b| b.embeds = vec![span(39, 4, 0..3)]),
        ("spliced rows that are not there", |b| b.embeds = vec![span(0, 4, 3..5)]),
        ("nothing spliced", |b| b.embeds = vec![span(0, 4, 2..2)]),
        ("spliced backwards", |b| {
            b.embeds = vec![EmbedSpan { rows: Range { start: 3, end: 1 }, ..span(0, 4, 0..1) }]
        }),
        ("spliced twice", |b| b.embeds = vec![span(0, 4, 0..3), span(2, 4, 0..1)]),
        ("spliced part of a row", |b| {
            b.embeds = vec![EmbedSpan { values: vec![0.0; 63].into(), ..span(0, 4, 0..1) }]
        }),
    ];
    for (name, change) in cases {
        let mut changed = mixed();
        change(&mut changed);
        let mut decoder = decoder();
        let error = decoder.forward(&changed, &mut Vec::new()).expect_err(name);
        assert!(matches!(error, Error::Internal { .. }), "{name}: {error:?}");
        assert_eq!(decoder.backend().calls.len(), 1, "{name}: the backend was called");
    }
}

fn span(first_row: usize, rows: usize, taken: Range<usize>) -> EmbedSpan {
    EmbedSpan { first_row, values: vec![0.0; rows * 64].into(), rows: taken, deeper: Vec::new() }
}

#[test]
fn a_token_outside_the_vocabulary_is_the_callers_fault() {
    let mut changed = mixed();
    changed.tokens[40] = 320;
    let error = decoder().forward(&changed, &mut Vec::new()).unwrap_err();
    let Error::InvalidRequest { name, fault } = error else { panic!("{error:?}") };
    assert_eq!(name, "tokens");
    assert!(fault.contains("320"), "{fault}");
}

#[test]
fn nothing_runs_before_blocks_are_reserved() {
    let mut decoder = Decoder::new(spec(), Recorder::default());
    assert!(matches!(decoder.forward(&mixed(), &mut Vec::new()), Err(Error::Internal { .. })));
}

proptest! {
    /// Sequences of any length side by side run, as long as each has its own blocks.
    #[test]
    fn any_ragged_batch_runs(lengths in prop::collection::vec((0usize..90, 1usize..9), 1..5)) {
        let mut first = 0;
        let sequences: Vec<SequenceStep> = lengths
            .into_iter()
            .map(|(start, rows)| {
                let step = sequence(start, rows, first);
                first += step.tables[0].len() as BlockId;
                step
            })
            .collect();
        let mut decoder = Decoder::new(spec(), Recorder::default());
        decoder.reserve_kv(&[first as usize, first as usize]).unwrap();
        let rows: usize = sequences.iter().map(|s| s.num_rows).sum();
        let mut logits = Vec::new();
        decoder.forward(&batch(sequences, (0..rows).collect()), &mut logits).unwrap();
        prop_assert_eq!(logits.len(), rows * 320);
    }
}

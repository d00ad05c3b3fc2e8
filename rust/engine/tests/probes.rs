//! Reading out logits and scores.

mod common;

use std::time::Duration;

use alloyforge_engine::{EngineOptions, ProbeKind};
use alloyforge_types::Error;
use common::{HashLm, NAN, PANIC, Rope, drawn, engine, options};

fn tokens(n: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 37 % 256) as u32).collect()
}

#[test]
fn logits_are_the_models_own_however_the_text_is_cut() {
    for rope in [Rope::Plain, Rope::Long(60), Rope::Dynamic(60)] {
        for windows in [vec![None], vec![None, Some(40)]] {
            let want = HashLm::new(&windows, rope).plainly(&tokens(200));
            for options in [options(), EngineOptions { max_batch: 3, max_rows: 7, ..options() }] {
                let engine = engine(HashLm::new(&windows, rope), &options);
                let neighbours: Vec<_> =
                    (0..3).map(|i| engine.submit(drawn("beside", 60, i)).unwrap()).collect();
                let got = engine.probe(tokens(200), ProbeKind::Logits).unwrap().wait(None).unwrap().unwrap();
                assert_eq!(got, want);
                assert!(neighbours.iter().all(|h| h.wait().is_ok()));
            }
        }
    }
}

#[test]
fn a_text_as_long_as_the_context() {
    let options = EngineOptions { context_len: Some(64), ..options() };
    let engine = engine(HashLm::new(&[None], Rope::Plain), &options);
    let got = engine.probe(tokens(64), ProbeKind::Score).unwrap().wait(None).unwrap().unwrap();
    assert_eq!(got.len(), 63);
    let refused = engine.probe(tokens(65), ProbeKind::Score).err();
    assert_eq!(refused, Some(Error::ContextLength { tokens: 65, limit: 64 }));
}

#[test]
fn scores_are_the_log_probabilities_of_what_came() {
    let tokens = tokens(150);
    let engine = engine(HashLm::new(&[None], Rope::Plain), &options());
    let vocab_size = engine.facts().spec.vocab_size;
    let logits = HashLm::new(&[None], Rope::Plain).plainly(&tokens);
    let got = engine.probe(tokens.clone(), ProbeKind::Score).unwrap().wait(None).unwrap().unwrap();
    assert_eq!(got.len(), tokens.len() - 1);
    for (i, score) in got.iter().enumerate() {
        let row = &logits[i * vocab_size..(i + 1) * vocab_size];
        let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
        let want = f64::from(row[tokens[i + 1] as usize]) - sum.ln();
        assert!((f64::from(*score) - want).abs() < 1e-5, "{score} {want}");
    }
    assert_eq!(engine.stats().kv_blocks_used, 0);
}

#[test]
fn one_token_has_logits_and_no_score() {
    let engine = engine(HashLm::new(&[None], Rope::Plain), &options());
    let score = engine.probe(vec![7], ProbeKind::Score).unwrap().wait(None).unwrap().unwrap();
    assert!(score.is_empty());
    let logits = engine.probe(vec![7], ProbeKind::Logits).unwrap().wait(None).unwrap().unwrap();
    assert_eq!(logits, HashLm::new(&[None], Rope::Plain).plainly(&[7]));
}

#[test]
fn faults_are_told_and_leave_nothing_behind() {
    let engine = engine(HashLm::new(&[None], Rope::Plain), &options());
    assert!(matches!(engine.probe(vec![], ProbeKind::Score).err(), Some(Error::InvalidRequest { .. })));
    assert!(matches!(engine.probe(vec![280], ProbeKind::Score).err(), Some(Error::InvalidRequest { .. })));
    for (bad, kind) in [(PANIC, ProbeKind::Logits), (NAN, ProbeKind::Score)] {
        let got = engine.probe(vec![1, bad, 2], kind).unwrap().wait(None).unwrap();
        assert!(matches!(got, Err(Error::Internal { .. })), "{got:?}");
    }
    assert_eq!(engine.stats().kv_blocks_used, 0);
}

#[test]
fn a_read_out_that_nobody_waits_for_ends() {
    let mut model = HashLm::new(&[None], Rope::Plain);
    model.row_time = Duration::from_millis(1);
    let engine = engine(model, &options());
    let probe = engine.probe(tokens(500), ProbeKind::Score).unwrap();
    assert_eq!(probe.wait(Some(Duration::from_millis(30))), None);
    drop(probe);
    let begin = std::time::Instant::now();
    while engine.stats().kv_blocks_used > 0 {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
}

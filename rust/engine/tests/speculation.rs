//! Guessing changes how many steps an answer takes and nothing else.

mod common;

use std::sync::Arc;
use std::time::Duration;

use alloyforge_engine::{Draft, Engine, EngineOptions, Handle, Output, Request};
use alloyforge_types::{Mirostat, SamplingParams};
use common::{ByteTokenizer, HashLm, Rope, drawn, engine, essence, greedy, options};
use proptest::prelude::*;

/// A model whose steps cost the same however many rows they have, so that guesses always pay.
fn flat(windows: &[Option<usize>], rope: Rope) -> HashLm {
    let mut model = HashLm::new(windows, rope);
    model.step_time = Duration::from_micros(300);
    model
}

/// A quick model that says the same, but for one row in some.
fn draft(windows: &[Option<usize>], rope: Rope, wrong_in: u64) -> Draft {
    let mut model = HashLm::new(windows, rope);
    model.wrong_in = wrong_in;
    Draft::Model(Box::new(model))
}

fn drafting(model: HashLm, draft: Draft, options: &EngineOptions) -> Engine {
    let tokenizer = Arc::new(ByteTokenizer { panics: true });
    Engine::start_drafting(Box::new(model), draft, tokenizer, options).unwrap()
}

fn together(engine: &Engine, requests: &[Request]) -> Vec<Output> {
    let handles: Vec<Handle> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
    handles.iter().map(|h| h.wait().unwrap()).collect()
}

fn requests() -> Vec<Request> {
    (0..10)
        .map(|i| {
            let text = "a text that says the same again, the same again ".repeat(1 + i % 3);
            let request = match i % 5 {
                0 | 1 => greedy(&text, 40 + 9 * i),
                2 => drawn(&text, 60, i as u64),
                // an answer that repeats itself, so that the text foretells it
                3 => {
                    let sampling = SamplingParams {
                        logit_bias: vec![(65, 30.0), (66, 30.0)],
                        repetition_penalty: 1.1,
                        ..drawn("", 1, i as u64).sampling
                    };
                    Request { sampling, ..greedy(&text, 90) }
                }
                _ => {
                    let mirostat = Some(Mirostat { tau: 3.0, eta: 0.2 });
                    let sampling = SamplingParams { mirostat, seed: Some(5), ..SamplingParams::default() };
                    Request { sampling, ..greedy(&text, 50) }
                }
            };
            Request { n: if i == 7 { 3 } else { 1 }, stream: i % 2 == 0, ..request }
        })
        .collect()
}

#[test]
fn every_token_is_what_it_is_without_guesses() {
    for (windows, rope) in [
        (vec![None], Rope::Plain),
        (vec![None, Some(40)], Rope::Plain),
        (vec![None], Rope::Long(100)),
        (vec![Some(50), None], Rope::Dynamic(80)),
    ] {
        let requests = requests();
        let solo = engine(HashLm::new(&windows, rope), &EngineOptions { prefix_cache: false, ..options() });
        let want: Vec<_> =
            requests.iter().map(|r| essence(&together(&solo, std::slice::from_ref(r))[0])).collect();
        for (what, draft) in [
            ("ngram", Draft::Ngram),
            ("a perfect model", draft(&windows, rope, 0)),
            ("a doubtful model", draft(&windows, rope, 3)),
            ("a model that is always wrong", draft(&windows, rope, 1)),
        ] {
            let engine = drafting(flat(&windows, rope), draft, &options());
            for _ in 0..2 {
                for (i, (want, got)) in want.iter().zip(together(&engine, &requests)).enumerate() {
                    assert_eq!(want, &essence(&got), "request {i} with {what}, {windows:?} {rope:?}");
                    assert!(got.usage.accepted_tokens <= got.usage.drafted_tokens);
                }
            }
            let stats = engine.stats();
            assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0), "{what}");
            assert!(stats.drafted_tokens > 0, "{what}: nothing was guessed");
            // one that is always wrong guesses right where two tokens alone are likely
            assert!(stats.accepted_tokens > 0 || what.contains("wrong"), "{what}: {stats:?}");
        }
    }
}

#[test]
fn a_model_that_knows_the_answer_saves_steps() {
    let engine = drafting(flat(&[None], Rope::Plain), draft(&[None], Rope::Plain, 0), &options());
    let usage = together(&engine, &[greedy("what comes next", 200)])[0].usage;
    assert!(usage.accepted_tokens > 30, "{usage:?}");
    assert_eq!(usage.accepted_tokens, usage.drafted_tokens, "{usage:?}");
}

#[test]
fn a_text_that_repeats_itself_is_foretold() {
    let engine = drafting(flat(&[None], Rope::Plain), Draft::Ngram, &options());
    let sampling = SamplingParams { logit_bias: vec![(65, 1e6)], ..greedy("", 1).sampling };
    let usage = together(&engine, &[Request { sampling, ..greedy("x", 200) }])[0].usage;
    assert!(usage.accepted_tokens > 30, "{usage:?}");
}

#[test]
fn guesses_that_are_wrong_are_given_up() {
    let engine = drafting(flat(&[None], Rope::Plain), draft(&[None], Rope::Plain, 1), &options());
    let usage = together(&engine, &[greedy("x", 400)])[0].usage;
    assert_eq!(usage.accepted_tokens, 0);
    assert!(usage.drafted_tokens < 250, "{usage:?}");
}

#[test]
fn a_draft_model_that_fails_is_done_without() {
    let plain = engine(HashLm::new(&[None], Rope::Plain), &options());
    let mut broken = HashLm::new(&[None], Rope::Plain);
    broken.panics_after = 60;
    let engine = drafting(flat(&[None], Rope::Plain), Draft::Model(Box::new(broken)), &options());
    let request = greedy("the text before", 200);
    let want = together(&plain, std::slice::from_ref(&request));
    let got = together(&engine, std::slice::from_ref(&request));
    assert_eq!(essence(&want[0]), essence(&got[0]));
    let drafted = engine.stats().drafted_tokens;
    assert!(drafted > 0);
    together(&engine, std::slice::from_ref(&request));
    assert_eq!(engine.stats().drafted_tokens, drafted, "it guesses on");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_mix_under_any_options(
        prompts in prop::collection::vec(("[ab]{1,90}", 1usize..60, 0u64..4, 1usize..3), 1..8),
        max_batch in 1usize..6,
        more_rows in 1usize..60,
        num_blocks in 12u64..40,
        prefix_cache: bool,
        wrong_in in 0u64..4,
    ) {
        let windows = [None, Some(40)];
        let requests: Vec<Request> = prompts
            .iter()
            .map(|(text, max_tokens, seed, n)| Request { n: *n, ..drawn(text, *max_tokens, *seed) })
            .collect();
        let model = flat(&windows, Rope::Long(70));
        let tight = EngineOptions {
            kv_memory: Some(num_blocks * model.block_bytes()),
            max_batch,
            max_rows: max_batch + more_rows,
            prefix_cache,
            ..options()
        };
        let want = engine(HashLm::new(&windows, Rope::Long(70)), &options());
        let draft = if wrong_in == 3 { Draft::Ngram } else { draft(&windows, Rope::Long(70), 2 * wrong_in) };
        let got = drafting(model, draft, &tight);
        let got = together(&got, &requests);
        for (request, got) in requests.iter().zip(&got) {
            let want = want.submit(request.clone()).unwrap().wait().unwrap();
            prop_assert_eq!(essence(&want), essence(got));
        }
    }
}

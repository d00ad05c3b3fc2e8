//! A request's result depends on the request alone.

mod common;

use alloyforge_engine::{Engine, EngineOptions, Handle, Output, Request};
use common::{HashLm, Rope, drawn, engine, essence, greedy, options};
use proptest::prelude::*;

/// Prompts of many lengths, some with a common beginning, greedy and drawn, with one answer and more.
fn requests() -> Vec<Request> {
    let words = ["river", "lantern", "bridge", "copper", "winter", "harbour", "signal"];
    (0..24)
        .map(|i| {
            let head = if i % 3 == 0 { "The same beginning, long enough for a block or two. " } else { "" };
            let len = 1 + 11 * (i % 9);
            let text: Vec<&str> = (0..len).map(|k| words[(i * 5 + k * (i + 2)) % words.len()]).collect();
            let text = format!("{head}{}", &text.join(" ")[..(len * 3).min(text.join(" ").len())]);
            let max_tokens = 5 + 17 * (i % 6);
            let request = if i % 2 == 0 {
                greedy(&text, max_tokens)
            } else {
                drawn(&text, max_tokens, 1000 + i as u64)
            };
            let n = if i % 8 == 5 { 3 } else { 1 };
            Request { n, stream: i % 4 == 1, ..request }
        })
        .collect()
}

fn together(engine: &Engine, requests: &[Request]) -> Vec<Output> {
    let handles: Vec<Handle> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
    handles.iter().map(|h| h.wait().unwrap()).collect()
}

fn models() -> Vec<(Vec<Option<usize>>, Rope)> {
    vec![
        (vec![None], Rope::Plain),
        (vec![None, Some(40)], Rope::Plain),
        (vec![Some(33), Some(64)], Rope::Plain),
        (vec![None], Rope::Long(60)),
        (vec![None, Some(50)], Rope::Dynamic(60)),
    ]
}

#[test]
fn alone_in_company_cut_otherwise_cached_and_preempted() {
    for (windows, rope) in models() {
        let requests = requests();
        let model = || HashLm::new(&windows, rope);
        let solo = engine(model(), &EngineOptions { prefix_cache: false, ..options() });
        let want: Vec<_> =
            requests.iter().map(|r| essence(&together(&solo, std::slice::from_ref(r))[0])).collect();
        assert_eq!(solo.stats().preemptions, 0);
        assert_eq!(solo.stats().kv_blocks_used, 0);

        // just enough for one sequence of any length that there is
        let few = if windows.contains(&None) { 14 } else { 6 };
        let few = EngineOptions { kv_memory: Some(few * model().block_bytes()), ..options() };
        let ways = [
            ("in company", EngineOptions { prefix_cache: false, ..options() }),
            ("with the cache", options()),
            ("in small steps", EngineOptions { max_rows: 17, ..options() }),
            ("two at a time", EngineOptions { max_batch: 2, ..options() }),
            ("with few blocks", EngineOptions { prefix_cache: false, ..few.clone() }),
            ("with few blocks and the cache", few),
        ];
        for (way, options) in ways {
            let engine = engine(model(), &options);
            for round in ["cold", "warm"] {
                let got = together(&engine, &requests);
                for (i, (want, got)) in want.iter().zip(&got).enumerate() {
                    assert_eq!(
                        want,
                        &essence(got),
                        "request {i} changed {way}, {round}, {windows:?} {rope:?}"
                    );
                }
                let stats = engine.stats();
                assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0), "{way}");
            }
            let stats = engine.stats();
            // few blocks are few to keep anything in
            let is_tight = way.contains("few");
            assert!(is_tight || (stats.prefix_hit_tokens > 0) == options.prefix_cache, "{way}");
            assert!(stats.preemptions > 0 || !is_tight, "nobody was preempted {way}");
        }
    }
}

/// Each token is the best one that the model names when it is asked of everything before it at once. A
/// dynamic table grows with each token and what was computed before stays: only the prompt's length
/// and a token's own index count.
#[test]
fn writing_is_reading_from_the_start_again_and_again() {
    for rope in [Rope::Plain, Rope::Long(60), Rope::Dynamic(60)] {
        for prompt_len in [5, 31, 50, 59, 60, 61, 80] {
            let model = || HashLm::new(&[None, Some(40)], rope);
            let request = greedy(&"prompt ".repeat(20)[..prompt_len], 45);
            let engine = engine(model(), &options());
            let output = engine.submit(request.clone()).unwrap().wait().unwrap();
            let mut tokens = request.prompt;
            for &token in &output.choices[0].tokens {
                let rope_len = if matches!(rope, Rope::Dynamic(_)) { prompt_len } else { tokens.len() };
                let logits = model().plainly_for(&tokens, rope_len);
                let last = &logits[logits.len() - 280..];
                let best = (0..280).fold(0, |best, i| if last[i] > last[best] { i } else { best });
                assert_eq!(token as usize, best, "{rope:?}, prompt of {prompt_len}, token {}", tokens.len());
                tokens.push(token);
            }
        }
    }
}

#[test]
fn a_cached_beginning_is_reported() {
    let engine = engine(HashLm::new(&[None], Rope::Plain), &options());
    let request = greedy(&"x".repeat(100), 4);
    let cold = engine.submit(request.clone()).unwrap().wait().unwrap();
    let warm = engine.submit(request).unwrap().wait().unwrap();
    assert_eq!(
        (cold.usage.prompt_tokens, cold.usage.cached_tokens, cold.usage.completion_tokens),
        (100, 0, 4)
    );
    assert_eq!(warm.usage.cached_tokens, 96);
    assert_eq!(essence(&cold), essence(&warm));
    assert_eq!(engine.stats().prefix_hit_tokens, 96);
}

#[test]
fn the_first_of_several_answers_is_the_one_that_a_request_alone_gives() {
    let engine = engine(HashLm::new(&[None, Some(40)], Rope::Plain), &options());
    let request = drawn("once upon a time", 40, 7);
    let one = engine.submit(request.clone()).unwrap().wait().unwrap();
    let many = engine.submit(Request { n: 5, ..request }).unwrap().wait().unwrap();
    let many = essence(&many);
    assert_eq!(essence(&one)[0], many[0]);
    for i in 1..5 {
        assert!(!many[..i].contains(&many[i]), "two answers are the same");
    }
}

#[test]
fn more_answers_than_places() {
    let few = EngineOptions { max_batch: 2, ..options() };
    let engine = engine(HashLm::new(&[None], Rope::Plain), &few);
    let request = Request { n: 9, ..drawn("many", 50, 3) };
    let want = essence(&engine.submit(request.clone()).unwrap().wait().unwrap());
    assert_eq!(want.len(), 9);
    let roomy = common::engine(HashLm::new(&[None], Rope::Plain), &options());
    assert_eq!(essence(&roomy.submit(request).unwrap().wait().unwrap()), want);
}

#[test]
fn threads_on_one_engine() {
    let engine = engine(HashLm::new(&[None], Rope::Plain), &options());
    let requests = requests();
    let want: Vec<_> =
        requests.iter().map(|r| essence(&together(&engine, std::slice::from_ref(r))[0])).collect();
    std::thread::scope(|scope| {
        for (request, want) in requests.iter().zip(&want) {
            let engine = &engine;
            scope.spawn(move || {
                assert_eq!(&essence(&engine.submit(request.clone()).unwrap().wait().unwrap()), want);
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_mix_under_any_options(
        prompts in prop::collection::vec(("[abc]{1,90}", 1usize..60, 0u64..4, 1usize..4), 1..12),
        max_batch in 1usize..8,
        more_rows in 1usize..60,
        num_blocks in 12u64..40,
        prefix_cache: bool,
        which in 0usize..5,
    ) {
        let (windows, rope) = models().swap_remove(which);
        let requests: Vec<Request> = prompts
            .iter()
            .map(|(text, max_tokens, seed, n)| Request { n: *n, ..drawn(text, *max_tokens, *seed) })
            .collect();
        let model = HashLm::new(&windows, rope);
        let tight = EngineOptions {
            kv_memory: Some(num_blocks * model.block_bytes()),
            max_batch,
            max_rows: max_batch + more_rows,
            prefix_cache,
            ..options()
        };
        let want = engine(HashLm::new(&windows, rope), &EngineOptions { prefix_cache: false, ..options() });
        let got = engine(model, &tight);
        let got = together(&got, &requests);
        for (request, got) in requests.iter().zip(&got) {
            let want = want.submit(request.clone()).unwrap().wait().unwrap();
            prop_assert_eq!(essence(&want), essence(got));
        }
    }
}

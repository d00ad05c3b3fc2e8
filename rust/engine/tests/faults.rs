//! Panics that are injected into one request's path fail that request and nothing else.

mod common;

use std::time::{Duration, Instant};

use alloyforge_engine::{Engine, EngineOptions, Fault, FaultPoint, Handle, Request};
use alloyforge_types::Error;
use common::{HashLm, NAN, PANIC, Rope, drawn, engine, essence, greedy, options};

/// Hundreds of panics are meant; their words would fill the screen.
fn be_quiet() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if !text.contains("a fault was injected") && !text.contains("the model panics") {
            eprintln!("{text}");
        }
    }));
}

const POINTS: [FaultPoint; 4] =
    [FaultPoint::Step, FaultPoint::Sampling, FaultPoint::Detokenising, FaultPoint::Delivery];

fn neighbours() -> Vec<Request> {
    (0..4u64)
        .map(|i| {
            let head =
                if i % 2 == 0 { "a head that two of them share, longer than a block of it " } else { "" };
            let request = drawn(&format!("{head}neighbour {i}"), 12 + i as usize, i);
            Request { n: 1 + usize::from(i == 3), ..request }
        })
        .collect()
}

fn model() -> HashLm {
    HashLm::new(&[None, Some(40)], Rope::Plain)
}

/// Nothing may be held once everybody has an answer.
fn assert_empty(engine: &Engine) {
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0), "{stats:?}");
}

#[test]
fn a_hundred_panics_at_each_point() {
    be_quiet();
    let requests = neighbours();
    let solo = engine(model(), &EngineOptions { prefix_cache: false, ..options() });
    let want: Vec<_> =
        requests.iter().map(|r| essence(&solo.submit(r.clone()).unwrap().wait().unwrap())).collect();
    for (point, prefix_cache) in POINTS.into_iter().flat_map(|p| [(p, false), (p, true)]) {
        let engine = engine(model(), &EngineOptions { prefix_cache, ..options() });
        for round in 0..100 {
            let bad = Request {
                fault: Fault::at(point),
                n: 1 + round % 2,
                ..drawn("a head that two of them share, longer than a block of it", 20, 9)
            };
            // before, between and behind the others
            let mut before: Vec<Handle> = Vec::new();
            for (i, request) in requests.iter().enumerate() {
                if i == round % 5 {
                    before.push(engine.submit(bad.clone()).unwrap());
                }
                before.push(engine.submit(request.clone()).unwrap());
            }
            if round % 5 == 4 {
                before.push(engine.submit(bad).unwrap());
            }
            let failed = before.remove(round % 5);
            match failed.wait() {
                Err(Error::Internal { fault }) => {
                    assert!(fault.ends_with(&format!("a fault was injected: {point:?}")), "{fault}");
                }
                other => panic!("{point:?}: {other:?}"),
            }
            for (handle, want) in before.iter().zip(&want) {
                assert_eq!(&essence(&handle.wait().unwrap()), want, "{point:?}, round {round}");
            }
            assert_empty(&engine);
        }
    }
}

#[test]
fn a_fault_amid_a_full_cache() {
    be_quiet();
    let requests = neighbours();
    let few = EngineOptions { kv_memory: Some(9 * model().block_bytes()), max_batch: 6, ..options() };
    let solo = engine(model(), &EngineOptions { prefix_cache: false, ..options() });
    let engine = engine(model(), &few);
    for point in POINTS {
        for round in 0..10 {
            let handles: Vec<Handle> = requests
                .iter()
                .map(|r| {
                    let long = Request { max_tokens: Some(90), ..r.clone() };
                    engine.submit(long).unwrap()
                })
                .collect();
            let bad = Request { fault: Fault::at(point), ..greedy(&"bad ".repeat(round), 9) };
            assert!(matches!(engine.submit(bad).unwrap().wait(), Err(Error::Internal { .. })));
            for (handle, request) in handles.iter().zip(&requests) {
                let long = Request { max_tokens: Some(90), ..request.clone() };
                let want = solo.submit(long).unwrap().wait().unwrap();
                assert_eq!(essence(&handle.wait().unwrap()), essence(&want));
            }
            assert_empty(&engine);
        }
    }
    assert!(engine.stats().preemptions > 0);
}

/// What the model itself panics over, or gives no numbers for, concerns its own request alone too.
#[test]
fn a_model_that_fails_over_one_of_a_step() {
    be_quiet();
    let requests = neighbours();
    let solo = engine(model(), &EngineOptions { prefix_cache: false, ..options() });
    let want: Vec<_> =
        requests.iter().map(|r| essence(&solo.submit(r.clone()).unwrap().wait().unwrap())).collect();
    let mut slow = model();
    slow.step_time = Duration::from_micros(200);
    let engine = engine(slow, &options());
    for (token, part) in [(PANIC, "the model panics"), (NAN, "not numbers")] {
        for _ in 0..50 {
            let handles: Vec<Handle> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
            let bad = Request { prompt: vec![1, token], ..greedy("", 3) };
            match engine.submit(bad).unwrap().wait() {
                Err(Error::Internal { fault }) => assert!(fault.contains(part), "{fault}"),
                other => panic!("{other:?}"),
            }
            for (handle, want) in handles.iter().zip(&want) {
                assert_eq!(&essence(&handle.wait().unwrap()), want);
            }
            assert_empty(&engine);
        }
    }
}

/// A request that is refused for lack of memory is a typed error, and the engine goes on.
#[test]
fn a_budget_that_is_too_small_is_said_at_the_start() {
    let begin = Instant::now();
    for blocks in 0..3 {
        let tiny = EngineOptions {
            kv_memory: Some(blocks * model().block_bytes()),
            context_len: Some(200),
            ..options()
        };
        let tokenizer = std::sync::Arc::new(common::ByteTokenizer::default());
        let refused = Engine::start(Box::new(model()), tokenizer, &tiny).err();
        assert!(matches!(refused, Some(Error::OutOfMemory { .. })), "{refused:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(60));
}

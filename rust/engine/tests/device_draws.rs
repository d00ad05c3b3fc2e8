//! Tokens that the device draws are those that the engine's sampler would have drawn.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloyforge_engine::{Draft, Engine, EngineOptions, Handle, Output, Request};
use alloyforge_types::SamplingParams;
use common::{ByteTokenizer, HashLm, NAN, Rope, engine, essence, greedy, options};

/// Requests that a device can draw for, and some that it cannot.
fn requests() -> Vec<Request> {
    (0..12)
        .map(|i| {
            let base =
                Request { logprobs: None, ..greedy(&"again and again ".repeat(1 + i % 4), 20 + 7 * i) };
            let sampling = match i % 6 {
                0 => base.sampling.clone(),
                1 => SamplingParams { temperature: 0.7, seed: Some(i as u64), ..SamplingParams::default() },
                2 => SamplingParams { top_k: 5, seed: Some(3), ..SamplingParams::default() },
                3 => SamplingParams { repetition_penalty: 1.2, ..base.sampling.clone() },
                _ => SamplingParams { seed: Some(99 - i as u64), ..SamplingParams::default() },
            };
            let logprobs = (i % 6 == 4).then_some(2);
            Request { sampling, logprobs, n: if i == 5 { 3 } else { 1 }, ..base }
        })
        .collect()
}

fn together(engine: &Engine, requests: &[Request]) -> Vec<Output> {
    let handles: Vec<Handle> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
    handles.iter().map(|h| h.wait().unwrap()).collect()
}

/// A model that draws, and how many tokens it drew.
fn drawing() -> (HashLm, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let mut model = HashLm::new(&[None, Some(40)], Rope::Plain);
    model.drawn = Some(Arc::clone(&count));
    (model, count)
}

#[test]
fn tokens_are_the_samplers() {
    let host = engine(HashLm::new(&[None, Some(40)], Rope::Plain), &options());
    let want: Vec<_> =
        requests().iter().map(|r| essence(&together(&host, std::slice::from_ref(r))[0])).collect();

    // one by one, each request is drawn for where it can be
    let (model, count) = drawing();
    let device = engine(model, &options());
    for (i, (request, want)) in requests().iter().zip(&want).enumerate() {
        let before = count.load(Ordering::Relaxed);
        let output = &together(&device, std::slice::from_ref(request))[0];
        assert_eq!(&essence(output), want, "request {i}");
        let drawn = count.load(Ordering::Relaxed) - before;
        let tokens: usize = output.choices.iter().map(|c| c.tokens.len()).sum();
        let wanted = match i % 6 {
            // the first token of several answers comes from one row, which the host reads
            _ if request.n > 1 => tokens - request.n,
            2..=4 => 0,
            _ => tokens,
        };
        assert_eq!(drawn, wanted, "request {i}");
    }

    // in company, steps with a request that needs logits give them for all
    for (output, want) in together(&device, &requests()).iter().zip(&want) {
        assert_eq!(&essence(output), want);
    }
}

#[test]
fn guesses_are_checked_by_tokens_that_the_device_drew() {
    let requests: Vec<Request> = requests().into_iter().filter(|r| r.logprobs.is_none()).collect();
    let host = engine(HashLm::new(&[None, Some(40)], Rope::Plain), &options());
    let want: Vec<_> = together(&host, &requests).iter().map(essence).collect();
    let (mut model, count) = drawing();
    // steps cost the same however many rows they have, so that guesses always pay
    model.step_time = std::time::Duration::from_micros(300);
    let mut guesser = HashLm::new(&[None, Some(40)], Rope::Plain);
    guesser.wrong_in = 3;
    let tokenizer = Arc::new(ByteTokenizer { panics: true });
    let options = EngineOptions { prefix_cache: false, ..options() };
    let device =
        Engine::start_drafting(Box::new(model), Draft::Model(Box::new(guesser)), tokenizer, &options)
            .unwrap();
    let mut accepted = 0;
    for (request, want) in requests.iter().zip(&want) {
        let output = &together(&device, std::slice::from_ref(request))[0];
        assert_eq!(&essence(output), want);
        accepted += output.usage.accepted_tokens;
    }
    assert!(accepted > 0 && count.load(Ordering::Relaxed) > accepted);
}

#[test]
fn a_row_that_is_no_number_fails_its_request_alone() {
    let (model, _) = drawing();
    let device = engine(model, &options());
    let mut bad = Request { logprobs: None, ..greedy("a", 5) };
    bad.prompt.push(NAN);
    let good = Request { logprobs: None, ..greedy("the other one", 30) };
    let handles = [device.submit(bad).unwrap(), device.submit(good.clone()).unwrap()];
    assert!(handles[0].wait().unwrap_err().to_string().contains("not numbers"));
    let alone = engine(HashLm::new(&[None, Some(40)], Rope::Plain), &options());
    assert_eq!(essence(&handles[1].wait().unwrap()), essence(&together(&alone, &[good])[0]));
}

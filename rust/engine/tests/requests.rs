//! What a request can ask for, and how it ends.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use alloyforge_engine::{Engine, EngineOptions, Event, FinishReason, Handle, Output, Request};
use alloyforge_types::{Error, Priority, SamplingParams};
use common::{BOS, EOS, HashLm, NAN, PANIC, Rope, UNSPEAKABLE, drawn, engine, essence, greedy, options};

fn plain() -> Engine {
    engine(HashLm::new(&[None], Rope::Plain), &options())
}

/// A model that takes a millisecond a row.
fn slow() -> HashLm {
    let mut model = HashLm::new(&[None], Rope::Plain);
    model.row_time = Duration::from_millis(1);
    model
}

fn run(engine: &Engine, request: &Request) -> Output {
    engine.submit(request.clone()).unwrap().wait().unwrap()
}

/// `request`, made to write `token` and nothing else.
fn forced(request: Request, token: u32) -> Request {
    let sampling = SamplingParams { logit_bias: vec![(token, 1e6)], ..request.sampling };
    Request { sampling, ..request }
}

/// Waits until nothing is held, which must be soon.
fn settle(engine: &Engine) {
    let begin = Instant::now();
    loop {
        let stats = engine.stats();
        if (stats.running, stats.waiting, stats.kv_blocks_used) == (0, 0, 0) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{stats:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn events(handle: &Handle) -> Vec<Event> {
    std::iter::from_fn(|| handle.next(None)).collect()
}

#[test]
fn chunks_join_to_the_text_and_characters_stay_whole() {
    let engine = plain();
    for seed in 0..20 {
        let request = Request { n: 2, ..drawn("Ünïcödé", 60, seed) };
        let events = events(&engine.submit(request.clone()).unwrap());
        let (last, chunks) = events.split_last().unwrap();
        let Event::Finished(output) = last else { panic!("{last:?}") };
        for completion in &output.choices {
            let mine: Vec<_> = chunks
                .iter()
                .map(|e| match e {
                    Event::Chunk(chunk) => chunk,
                    other => panic!("{other:?}"),
                })
                .filter(|c| c.choice == completion.choice)
                .collect();
            let (end, before) = mine.split_last().unwrap();
            assert!(before.iter().all(|c| !c.text.is_empty() && c.finish_reason.is_none()));
            assert_eq!(end.finish_reason, Some(completion.finish_reason));
            let text: String = mine.iter().map(|c| c.text.as_str()).collect();
            assert_eq!(text, completion.text);
            let tokens: Vec<u32> = mine.iter().flat_map(|c| c.tokens.clone()).collect();
            assert_eq!(tokens, completion.tokens);
            let logprobs: Vec<_> = mine.iter().flat_map(|c| c.logprobs.clone().unwrap()).collect();
            assert_eq!(&logprobs, completion.logprobs.as_ref().unwrap());
        }
        let quiet = run(&engine, &Request { stream: false, ..request });
        assert_eq!(essence(&quiet), essence(output));
    }
}

#[test]
fn a_stop_text_cuts_exactly_wherever_it_falls() {
    let engine = plain();
    for seed in 0..30 {
        // letters only, so that every stop text is characters of several tokens
        let bias: Vec<(u32, f32)> = (0..280).filter(|t| !(97..110).contains(t)).map(|t| (t, -1e6)).collect();
        let mut request = drawn("text", 40, seed);
        request.sampling.logit_bias = bias;
        let whole = run(&engine, &request).choices.remove(0).text;
        let at = seed as usize;
        for len in 1..=5 {
            let stop = whole[at..at + len].to_owned();
            let stopped = Request { stop: vec!["never".into(), stop.clone()], ..request.clone() };
            let handle = engine.submit(stopped).unwrap();
            let events = events(&handle);
            let text: String = events
                .iter()
                .filter_map(|e| match e {
                    Event::Chunk(chunk) => Some(chunk.text.as_str()),
                    _ => None,
                })
                .collect();
            let Some(Event::Finished(output)) = events.last() else { panic!() };
            let want = whole.split(stop.as_str()).next().unwrap();
            assert_eq!((text.as_str(), output.choices[0].text.as_str()), (want, want), "stop {stop:?}");
            assert_eq!(output.choices[0].finish_reason, FinishReason::Stop);
            assert_eq!(output.choices[0].tokens.len(), want.len() + len, "tokens are kept as they came");
        }
    }
}

#[test]
fn end_tokens_end_and_are_not_in_the_text() {
    let engine = plain();
    let free = Request { ignore_eos: false, max_tokens: Some(50), ..forced(greedy("x", 9), EOS) };
    let output = run(&engine, &free);
    assert_eq!(output.choices[0].tokens, [EOS]);
    assert_eq!((output.choices[0].text.as_str(), output.choices[0].finish_reason), ("", FinishReason::Stop));

    let ignored = run(&engine, &forced(greedy("x", 9), EOS));
    assert_eq!(
        (ignored.choices[0].tokens.as_slice(), ignored.choices[0].text.as_str()),
        ([EOS; 9].as_slice(), "")
    );
    assert_eq!(ignored.choices[0].finish_reason, FinishReason::Length);

    let own = Request { stop_tokens: vec![100], ..forced(greedy("x", 9), 100) };
    let output = run(&engine, &own);
    assert_eq!((output.choices[0].text.as_str(), output.choices[0].finish_reason), ("", FinishReason::Stop));
}

#[test]
fn without_a_limit_an_answer_fills_the_context() {
    let engine =
        engine(HashLm::new(&[None], Rope::Plain), &EngineOptions { context_len: Some(50), ..options() });
    assert_eq!(engine.facts().kv.context_len, 50);
    for max_tokens in [None, Some(1000)] {
        let output = run(&engine, &Request { max_tokens, ..greedy(&"p".repeat(20), 1) });
        assert_eq!(output.choices[0].tokens.len(), 30);
        assert_eq!(output.choices[0].finish_reason, FinishReason::Length);
    }
    let output = run(&engine, &greedy(&"p".repeat(49), 5));
    assert_eq!(output.choices[0].tokens.len(), 1);
    let refused = engine.submit(greedy(&"p".repeat(50), 5)).err();
    assert_eq!(refused, Some(Error::ContextLength { tokens: 51, limit: 50 }));
}

#[test]
fn what_is_wrong_is_named() {
    let engine = plain();
    let base = || greedy("x", 3);
    let cases = [
        (Request { prompt: vec![5, 280], ..base() }, "prompt", "280"),
        (Request { max_tokens: Some(0), ..base() }, "max_tokens", "1"),
        (Request { n: 0, ..base() }, "n", "between"),
        (Request { n: 100_000, ..base() }, "n", "between"),
        (Request { stop: vec!["a".into(), String::new()], ..base() }, "stop", "empty"),
        (Request { stop_tokens: vec![280], ..base() }, "stop_tokens", "280"),
        (Request { timeout: Some(0.0), ..base() }, "timeout", "positive"),
        (Request { timeout: Some(f64::NAN), ..base() }, "timeout", "positive"),
        (Request { logprobs: Some(281), ..base() }, "logprobs", "more"),
        (
            Request { sampling: SamplingParams { temperature: -1.0, ..SamplingParams::default() }, ..base() },
            "temperature",
            "",
        ),
    ];
    for (request, name, part) in cases {
        match engine.submit(request).err() {
            Some(Error::InvalidRequest { name: found, fault }) => {
                assert_eq!(found, name);
                assert!(fault.contains(part), "{fault}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(engine.stats().waiting, 0);
}

#[test]
fn an_empty_prompt_is_bos() {
    let engine = plain();
    let empty = run(&engine, &greedy("", 5));
    let bos = run(&engine, &Request { prompt: vec![BOS], ..greedy("", 5) });
    assert_eq!(essence(&empty), essence(&bos));
    assert_eq!(empty.usage.prompt_tokens, 1);
}

#[test]
fn a_cancelled_request_keeps_what_it_wrote_and_frees_its_blocks() {
    let engine = engine(slow(), &options());
    // in prefill
    let handle = engine.submit(greedy(&"p".repeat(400), 50)).unwrap();
    while engine.stats().running == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    handle.cancel();
    let output = handle.wait().unwrap();
    assert_eq!(output.choices[0].finish_reason, FinishReason::Cancelled);
    assert_eq!(output.choices[0].text, "");
    settle(&engine);
    // while writing
    let handle = engine.submit(greedy("p", 400)).unwrap();
    let Some(Event::Chunk(first)) = handle.next(None) else { panic!() };
    handle.cancel();
    let events = events(&handle);
    let Some(Event::Finished(output)) = events.last() else { panic!() };
    assert_eq!(output.choices[0].finish_reason, FinishReason::Cancelled);
    assert!(output.choices[0].text.starts_with(&first.text));
    settle(&engine);
    handle.cancel();
    // by nobody's listening any more, in the line too
    drop(engine.submit(greedy("p", 400)).unwrap());
    let handles: Vec<Handle> = (0..40).map(|_| engine.submit(greedy("p", 400)).unwrap()).collect();
    drop(handles);
    settle(&engine);
}

#[test]
fn time_runs_out() {
    let engine = engine(slow(), &options());
    let request = Request { timeout: Some(0.05), ..greedy("p", 500) };
    assert_eq!(engine.submit(request).unwrap().wait(), Err(Error::Timeout { seconds: 0.05 }));
    settle(&engine);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let options = EngineOptions { max_queue: 3, max_batch: 1, ..options() };
    let engine = engine(slow(), &options);
    let first = engine.submit(greedy("p", 300)).unwrap();
    assert!(matches!(first.next(None), Some(Event::Chunk(_))));
    let waiting: Vec<Handle> = (0..3).map(|_| engine.submit(greedy("p", 2)).unwrap()).collect();
    assert_eq!(engine.stats().waiting, 3);
    assert_eq!(engine.submit(greedy("p", 2)).err(), Some(Error::QueueFull { waiting: 3, limit: 3 }));
    first.cancel();
    assert!(waiting.iter().all(|h| h.wait().is_ok()));
    run(&engine, &greedy("p", 2));
}

#[test]
fn a_critical_request_overtakes() {
    let engine = engine(slow(), &EngineOptions { max_batch: 2, ..options() });
    let finished = Arc::new(AtomicUsize::new(0));
    let low: Vec<Handle> = (0..20)
        .map(|_| {
            let request = Request { priority: Priority::Low, stream: false, ..greedy("the harbour", 15) };
            let handle = engine.submit(request).unwrap();
            let finished = Arc::clone(&finished);
            handle.set_waker(Arc::new(move || {
                finished.fetch_add(1, Ordering::SeqCst);
            }));
            handle
        })
        .collect();
    run(&engine, &Request { priority: Priority::Critical, ..greedy("now", 15) });
    assert!(finished.load(Ordering::SeqCst) < 10);
    assert!(low.iter().all(|h| h.wait().is_ok()));
}

#[test]
fn a_panic_in_one_requests_path_fails_that_request_alone() {
    let engine = plain();
    let requests: Vec<Request> = (0..4).map(|i| drawn("a neighbour", 30, i)).collect();
    let want: Vec<_> = requests.iter().map(|r| essence(&run(&engine, r))).collect();
    for _ in 0..100 {
        let neighbours: Vec<Handle> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
        let bad = engine.submit(Request { n: 2, ..forced(greedy("bad", 10), UNSPEAKABLE) }).unwrap();
        match bad.wait() {
            Err(Error::Internal { fault }) => {
                assert!(fault.contains("the unspeakable token was spoken"), "{fault}")
            }
            other => panic!("{other:?}"),
        }
        for (handle, want) in neighbours.iter().zip(&want) {
            assert_eq!(&essence(&handle.wait().unwrap()), want);
        }
        assert_eq!(engine.stats().kv_blocks_used, 0);
    }
}

#[test]
fn a_waker_that_panics_fails_its_request_alone() {
    let engine = engine(slow(), &options());
    // the prompt takes long enough for the waker to be there before the first event
    let handle = engine.submit(greedy(&"x".repeat(400), 50)).unwrap();
    handle.set_waker(Arc::new(|| panic!("a waker panics")));
    let last = events(&handle).pop().unwrap();
    assert!(
        matches!(&last, Event::Failed(Error::Internal { fault }) if fault == "a waker panics"),
        "{last:?}"
    );
    settle(&engine);
    run(&engine, &greedy("x", 3));
}

#[test]
fn a_panic_in_the_model_fails_the_step_and_not_the_process() {
    let engine = plain();
    let want = essence(&run(&engine, &greedy(&"q".repeat(80), 10)));
    for _ in 0..3 {
        match run_to_error(&engine, &Request { prompt: vec![1, PANIC, 2], ..greedy("", 3) }) {
            Error::Internal { fault } => assert!(fault.contains("the model panics"), "{fault}"),
            other => panic!("{other:?}"),
        }
        settle(&engine);
        assert_eq!(essence(&run(&engine, &greedy(&"q".repeat(80), 10))), want);
    }
}

#[test]
fn logits_that_are_not_numbers_fail_the_request() {
    let engine = plain();
    let neighbour = engine.submit(drawn("fine", 40, 1)).unwrap();
    let error = run_to_error(&engine, &Request { prompt: vec![1, NAN], ..greedy("", 3) });
    assert!(matches!(error, Error::Internal { .. }), "{error:?}");
    let error = run_to_error(&engine, &forced(greedy("later", 3), NAN));
    assert!(matches!(error, Error::Internal { .. }), "{error:?}");
    assert_eq!(essence(&neighbour.wait().unwrap()), essence(&run(&engine, &drawn("fine", 40, 1))));
}

fn run_to_error(engine: &Engine, request: &Request) -> Error {
    engine.submit(request.clone()).unwrap().wait().unwrap_err()
}

#[test]
fn closing_ends_everything_and_twice_is_once() {
    let engine = engine(slow(), &EngineOptions { max_batch: 1, ..options() });
    let running = engine.submit(greedy("x", 400)).unwrap();
    let waiting = engine.submit(greedy("x", 400)).unwrap();
    running.next(None).unwrap();
    let probe = engine.probe(vec![1, 2, 3], alloyforge_engine::ProbeKind::Logits).unwrap();
    engine.close();
    engine.close();
    assert_eq!(running.wait(), Err(Error::Closed));
    assert_eq!(waiting.wait(), Err(Error::Closed));
    assert_eq!(probe.wait(None), Some(Err(Error::Closed)));
    assert_eq!(engine.submit(greedy("x", 4)).err(), Some(Error::Closed));
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0));
}

#[test]
fn times_add_up() {
    let engine = engine(slow(), &options());
    let begin = Instant::now();
    let timings = run(&engine, &greedy(&"x".repeat(64), 20)).timings;
    let all = begin.elapsed().as_secs_f64();
    assert!(timings.prefill >= 0.064 && timings.decode >= 0.019, "{timings:?}");
    assert!(timings.queue + timings.prefill + timings.decode <= all);
    assert!((timings.queue + timings.prefill - timings.first_token).abs() < 1e-9);
}

#[test]
fn waiting_for_an_event_has_an_end() {
    let engine = engine(slow(), &options());
    let handle = engine.submit(greedy(&"x".repeat(300), 2)).unwrap();
    assert_eq!(handle.next(Some(Duration::from_millis(5))), None);
    assert!(!handle.is_over());
    assert!(handle.wait().is_ok());
    assert!(handle.is_over());
    assert_eq!(handle.next(None), None);
    assert_eq!(handle.try_next(), None);
}

#[test]
fn counts_go_on() {
    let engine = plain();
    run(&engine, &greedy("12345", 7));
    run(&engine, &Request { n: 2, ..greedy("123", 4) });
    let stats = engine.stats();
    assert_eq!((stats.prompt_tokens, stats.completion_tokens), (8, 15));
    assert!(stats.kv_blocks_total > 0);
}

//! Many callers at once who ask, wait, give up and come again.

mod common;

use std::time::Duration;

use alloyforge_engine::{EngineOptions, Event, FinishReason, Request};
use alloyforge_types::{Error, Priority};
use common::{HashLm, PANIC, Rope, UNSPEAKABLE, drawn, engine, essence, greedy, options};

/// Linear congruential numbers (Knuth's MMIX constants), one stream a caller.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

fn requests() -> Vec<Request> {
    let mut random = Random(1);
    (0..40)
        .map(|i| {
            let head =
                ["", "a common head of some length, two blocks of it at the least; ", "another head "][i % 3];
            let tail: String =
                (0..random.below(150)).map(|_| (b'a' + random.below(26) as u8) as char).collect();
            let max_tokens = 1 + random.below(60);
            let request = if i % 2 == 0 {
                greedy(&format!("{head}{tail}."), max_tokens)
            } else {
                drawn(&format!("{head}{tail}."), max_tokens, i as u64)
            };
            let priority = [Priority::Low, Priority::Normal, Priority::High, Priority::Critical][i % 4];
            Request { priority, n: 1 + usize::from(i % 10 == 3), stream: i % 5 != 0, ..request }
        })
        .collect()
}

#[test]
fn callers_who_come_and_go() {
    let requests = requests();
    let model = || HashLm::new(&[None, Some(40)], Rope::Long(100));
    let solo = engine(model(), &EngineOptions { prefix_cache: false, ..options() });
    let want: Vec<_> =
        requests.iter().map(|r| essence(&solo.submit(r.clone()).unwrap().wait().unwrap())).collect();

    let few = EngineOptions { kv_memory: Some(30 * model().block_bytes()), max_batch: 6, ..options() };
    let engine = engine(model(), &few);
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (engine, requests, want) = (&engine, &requests, &want);
            scope.spawn(move || {
                let mut random = Random(caller);
                for _ in 0..150 {
                    let which = random.below(requests.len());
                    let request = requests[which].clone();
                    match random.below(10) {
                        // gives up at once, or while it is written
                        0 => drop(engine.submit(request).unwrap()),
                        1 => {
                            let handle = engine.submit(request).unwrap();
                            let first = handle.next(Some(Duration::from_millis(random.below(5) as u64)));
                            handle.cancel();
                            let output = match first {
                                Some(Event::Finished(output)) => *output,
                                _ => handle.wait().unwrap(),
                            };
                            for (got, want) in essence(&output).iter().zip(&want[which]) {
                                // what came is the beginning of what would have come
                                assert!(
                                    want.0.starts_with(&got.0) && got.3 != FinishReason::ToolCalls.name()
                                );
                            }
                        }
                        2 => {
                            let request = Request { timeout: Some(0.002), ..request };
                            match engine.submit(request).unwrap().wait() {
                                Ok(output) => assert_eq!(essence(&output), want[which]),
                                Err(error) => assert_eq!(error, Error::Timeout { seconds: 0.002 }),
                            }
                        }
                        // breaks its own path
                        3 => {
                            let mut request = request;
                            request.sampling.logit_bias = vec![(UNSPEAKABLE, 1e6)];
                            let failed = engine.submit(request).unwrap().wait();
                            assert!(matches!(failed, Err(Error::Internal { .. })), "{failed:?}");
                        }
                        _ => {
                            let handle = engine.submit(request).unwrap();
                            let last = std::iter::from_fn(|| handle.next(None)).last();
                            let Some(Event::Finished(output)) = last else { panic!("{last:?}") };
                            assert_eq!(essence(&output), want[which], "request {which}");
                        }
                    }
                }
            });
        }
    });
    // those who gave up last may still be on their way out
    engine.submit(greedy("x", 1)).unwrap().wait().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0), "{stats:?}");
    assert!(stats.preemptions > 0 && stats.prefix_hit_tokens > 0, "{stats:?}");
    // the model fails with those that it computes together, and serves the next
    let failed = engine.submit(Request { prompt: vec![PANIC], ..greedy("", 1) }).unwrap().wait();
    assert!(matches!(failed, Err(Error::Internal { .. })));
    assert_eq!(essence(&engine.submit(requests[1].clone()).unwrap().wait().unwrap()), want[1]);
}

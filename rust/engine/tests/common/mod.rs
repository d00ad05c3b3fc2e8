//! A model and a tokenizer small enough to know what they must say.
#![allow(dead_code, unused_imports, reason = "each test file takes what it needs")]

mod model;
mod tokenizer;

use std::sync::Arc;

use alloyforge_engine::{Engine, EngineOptions, Output, Request};
use alloyforge_types::SamplingParams;

pub use model::{HashLm, NAN, PANIC, Rope};
pub use tokenizer::{BOS, ByteTokenizer, END, EOS, START, UNSPEAKABLE};

/// Options that leave no doubt about memory.
pub fn options() -> EngineOptions {
    EngineOptions { kv_memory: Some(64 << 20), max_batch: 16, max_rows: 64, ..EngineOptions::default() }
}

/// An engine on `model`.
pub fn engine(model: HashLm, options: &EngineOptions) -> Engine {
    Engine::start(Box::new(model), Arc::new(ByteTokenizer { panics: true }), options).unwrap()
}

/// A greedy request.
pub fn greedy(prompt: &str, max_tokens: usize) -> Request {
    Request {
        prompt: prompt.bytes().map(u32::from).collect(),
        max_tokens: Some(max_tokens),
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        ignore_eos: true,
        logprobs: Some(2),
        ..Request::default()
    }
}

/// A request that draws.
pub fn drawn(prompt: &str, max_tokens: usize, seed: u64) -> Request {
    let sampling = SamplingParams { top_k: 50, top_p: 0.95, seed: Some(seed), ..SamplingParams::default() };
    Request { sampling, ..greedy(prompt, max_tokens) }
}

/// What must be equal of two results: everything but the times and the hits.
pub fn essence(output: &Output) -> Vec<(Vec<u32>, String, Vec<u32>, &'static str)> {
    output
        .choices
        .iter()
        .map(|c| {
            let bits = c.logprobs.iter().flatten().flat_map(|l| {
                std::iter::once(l.logprob.to_bits()).chain(l.top.iter().flat_map(|(t, p)| [*t, p.to_bits()]))
            });
            (c.tokens.clone(), c.text.clone(), bits.collect(), c.finish_reason.name())
        })
        .collect()
}

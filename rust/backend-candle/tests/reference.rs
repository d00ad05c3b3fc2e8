//! The answers of transformers for a tiny checkpoint of each text family, as both its configuration
//! formats describe it.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloyforge_formats::safetensors::SafetensorsStore;
use alloyforge_models::{Config, Resolved, resolve};
use common::{Runner, Text, distance, options};
use safetensors::{Dtype, SafeTensors};

/// Logits are of order 1 to 5; both sides compute in f32.
const LOGIT_TOLERANCE: f64 = 1e-4;

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/reference").join(case)
}

/// The tensors of one file, as rows of numbers.
struct Answers(Vec<u8>);

impl Answers {
    fn open(case: &str, file: &str) -> Self {
        Self(std::fs::read(folder(case).join(file)).expect("a file"))
    }

    /// The last dimension's rows of `name`, where it is there.
    fn rows(&self, name: &str) -> Option<Vec<Vec<f64>>> {
        let file = SafeTensors::deserialize(&self.0).expect("safetensors");
        let tensor = file.tensor(name).ok()?;
        let values: Vec<f64> = match tensor.dtype() {
            Dtype::F32 => {
                tensor.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
            }
            Dtype::I64 => tensor.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            other => panic!("{other:?}"),
        };
        let cols = *tensor.shape().last().expect("a dimension");
        Some(values.chunks(cols).map(<[f64]>::to_vec).collect())
    }

    fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        self.rows(name)
            .expect("ids")
            .into_iter()
            .map(|r| r.into_iter().map(|id| id as u32).collect())
            .collect()
    }
}

/// The spec and weights of `case` through its configuration file `config`.
fn model(case: &str, config: &str) -> Resolved {
    let text = std::fs::read_to_string(folder(case).join(config)).expect("a configuration");
    let config = serde_json::from_str(&text).expect("JSON");
    let store = SafetensorsStore::open(&folder(case).join("model.safetensors")).expect("weights");
    resolve(Config::HuggingFace(&config), Arc::new(store)).unwrap_or_else(|e| panic!("{case}: {e}"))
}

/// The token after each of `prompts`, and so on, 16 times, all prompts in one batch.
fn greedy(runner: &mut Runner, prompts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut texts: Vec<Text> =
        prompts.iter().map(|p| Text { tokens: p.clone(), ..Text::default() }).collect();
    let mut found = vec![Vec::new(); prompts.len()];
    let mut done = vec![0; prompts.len()];
    for _ in 0..16 {
        let parts: Vec<_> = texts.iter().enumerate().map(|(s, t)| (s, t, done[s]..t.tokens.len())).collect();
        let mut logits = runner.step(&parts).into_iter();
        for (s, text) in texts.iter_mut().enumerate() {
            let row = logits.by_ref().nth(text.tokens.len() - done[s] - 1).expect("a row");
            let best =
                (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a token") as u32;
            done[s] = text.tokens.len();
            text.tokens.push(best);
            found[s].push(best);
        }
    }
    found
}

fn check(case: &str, config: &str) {
    let Resolved { spec, weights, .. } = model(case, config);
    let (inputs, expected) =
        (Answers::open(case, "inputs.safetensors"), Answers::open(case, "expected.safetensors"));
    let runner = |sequences| Runner::with_weights(&spec, sequences, 64, &options(), &*weights);

    let ids = inputs.ids("input_ids");
    let text = Text { tokens: ids[0].clone(), ..Text::default() };
    let found = runner(1).step(&[(0, &text, 0..text.tokens.len())]);
    let worst = distance(&found, &expected.rows("logits").expect("logits"));
    println!("{case} {config}: logits off by {worst:.1e}");
    assert!(worst < LOGIT_TOLERANCE, "{case} {config}: logits off by {worst}");

    assert_eq!(greedy(&mut runner(1), &ids), expected.ids("greedy_ids"), "{case} {config}");

    if expected.rows("batch_greedy_ids").is_some() {
        let prompts: Vec<Vec<u32>> = inputs
            .ids("batch_input_ids")
            .into_iter()
            .zip(inputs.ids("batch_attention_mask"))
            .map(|(ids, mask)| {
                ids.into_iter().zip(mask).filter(|(_, mask)| *mask == 1).map(|(id, _)| id).collect()
            })
            .collect();
        let found = greedy(&mut runner(prompts.len()), &prompts);
        assert_eq!(found, expected.ids("batch_greedy_ids"), "{case} {config}");
    }
}

macro_rules! cases {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            for config in ["config.json", "config.v4.json"] {
                check(stringify!($name), config);
            }
        })*
    };
}

cases! {
    gemma2 gemma3_text gpt_oss llama llama3_rope mistral mixtral olmo2 phi3 phi3_longrope qwen2 qwen3 qwen3_moe smollm3
}

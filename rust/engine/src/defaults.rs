//! What a model's own generation settings say of a request.

use alloyforge_types::SamplingParams;
use serde_json::Value;

use crate::Request;
use crate::sampling::Sampler;

/// The request that `config`, a `generation_config.json`, speaks for. What it says wrongly is passed
/// over: a model must not be lost over a value that each request can replace.
pub(crate) fn default_request(config: Option<&Value>, vocab_size: usize) -> Request {
    let mut request = Request::default();
    let Some(config) = config else { return request };
    let number = |name: &str| config.get(name).and_then(Value::as_f64).map(|x| x as f32);
    let count = |name: &str| config.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let mut set = |change: &dyn Fn(&mut SamplingParams)| {
        let mut changed = request.sampling.clone();
        change(&mut changed);
        if Sampler::new(&changed, vocab_size, None, 0).is_ok() {
            request.sampling = changed;
        }
    };
    type Field = fn(&mut SamplingParams) -> &mut f32;
    let numbers: [(&str, Field); 5] = [
        ("temperature", |p| &mut p.temperature),
        ("top_p", |p| &mut p.top_p),
        ("min_p", |p| &mut p.min_p),
        ("typical_p", |p| &mut p.typical_p),
        ("repetition_penalty", |p| &mut p.repetition_penalty),
    ];
    for (name, field) in numbers {
        if let Some(x) = number(name) {
            set(&|p| *field(p) = x);
        }
    }
    if let Some(k) = count("top_k") {
        set(&|p| p.top_k = k);
    }
    if config.get("do_sample") == Some(&Value::Bool(false)) {
        set(&|p| p.temperature = 0.0);
    }
    request.max_tokens = count("max_new_tokens").filter(|&n| n > 0);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_said_holds_and_what_is_wrong_does_not() {
        let config = json!({
            "temperature": 0.6, "top_k": 20, "top_p": 7.5, "min_p": "no", "repetition_penalty": 1.1,
            "max_new_tokens": 0, "eos_token_id": [1, 2],
        });
        let request = default_request(Some(&config), 100);
        let want = SamplingParams {
            temperature: 0.6,
            top_k: 20,
            repetition_penalty: 1.1,
            ..SamplingParams::default()
        };
        assert_eq!(request, Request { sampling: want, ..Request::default() });
    }

    #[test]
    fn greedy_only_where_it_is_said() {
        assert_eq!(default_request(None, 10).sampling.temperature, 1.0);
        let said = json!({"do_sample": false, "temperature": 0.7, "max_new_tokens": 9});
        let request = default_request(Some(&said), 10);
        assert_eq!((request.sampling.temperature, request.max_tokens), (0.0, Some(9)));
    }
}

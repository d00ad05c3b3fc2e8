//! Answers that keep to a form, whatever the model would rather say.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloyforge_engine::{Constraint, Draft, Engine, EngineOptions, FinishReason, Handle, Request};
use alloyforge_types::Error;
use common::{ByteTokenizer, EOS, HashLm, Rope, drawn, essence, greedy, options};
use serde_json::Value;

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "size": {"type": "integer", "minimum": 3, "maximum": 41},
        "kind": {"enum": ["ab", "c d", null]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}
    },
    "required": ["name", "size", "kind", "tags"],
    "additionalProperties": false
}"#;
const REGEX: &str = r"^(ab|[c-e]{2}){3}-[0-9]+\.$";
const GRAMMAR: &str = r#"
start: sum "="
sum: term ("+" term)*
term: /[1-9]/ | "(" sum ")"
"#;

/// An engine whose every token has a text.
fn engine(model: HashLm, options: &EngineOptions) -> Engine {
    Engine::start(Box::new(model), Arc::new(ByteTokenizer::default()), options).unwrap()
}

fn plain() -> Engine {
    engine(HashLm::new(&[None], Rope::Plain), &options())
}

fn requests() -> Vec<Request> {
    (0..18u64)
        .map(|i| {
            let constraint = match i % 3 {
                0 => Constraint::Schema(SCHEMA.into()),
                1 => Constraint::Regex(REGEX.into()),
                _ => Constraint::Grammar(GRAMMAR.into()),
            };
            let request = if i % 2 == 0 { drawn("fill in", 400, i) } else { greedy("fill in", 400) };
            let bias = if i % 2 == 0 { vec![] } else { vec![(b'=' as u32, 2.0), (b'.' as u32, 2.0)] };
            let mut request = Request { n: 1 + usize::from(i % 9 == 2), ignore_eos: i % 4 == 0, ..request };
            request.sampling.logit_bias = bias;
            request.prompt.push(97 + i as u32);
            Request { constraint: Some(constraint), ..request }
        })
        .collect()
}

fn submit_all(engine: &Engine, requests: &[Request]) -> Vec<Handle> {
    requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect()
}

/// Whether `text` is what the form of request `i` means, by other means.
fn keeps_to(i: usize, text: &str) -> bool {
    match i % 3 {
        0 => {
            let Ok(Value::Object(found)) = serde_json::from_str(text) else { return false };
            let name = found["name"].as_str().unwrap().chars().count();
            let size = found["size"].as_i64().unwrap();
            let tags = found["tags"].as_array().unwrap();
            found.len() == 4
                && name <= 6
                && (3..=41).contains(&size)
                && [Value::from("ab"), Value::from("c d"), Value::Null].contains(&found["kind"])
                && (1..=3).contains(&tags.len())
                && tags.iter().all(Value::is_boolean)
        }
        1 => {
            let (head, tail) = text.split_once('-').unwrap();
            let parts = head
                .as_bytes()
                .chunks(2)
                .filter(|p| *p == b"ab" || p.len() == 2 && p.iter().all(|b| (b'c'..=b'e').contains(b)));
            let digits = tail.strip_suffix('.').unwrap();
            head.len() == 6
                && parts.count() == 3
                && !digits.is_empty()
                && digits.bytes().all(|b| b.is_ascii_digit())
        }
        _ => {
            let mut depth = 0;
            for c in text.chars() {
                depth += i32::from(c == '(') - i32::from(c == ')');
                assert!(depth >= 0 && "123456789+()=".contains(c), "{text}");
            }
            let bad = ["++", "(+", "+)", "()", "+=", "(=", ")(", ")1", "1("];
            depth == 0 && text.ends_with('=') && !bad.iter().any(|b| text.contains(b))
        }
    }
}

#[test]
fn every_answer_keeps_to_its_form_alone_and_in_any_company() {
    let requests = requests();
    let solo = engine(HashLm::new(&[None], Rope::Plain), &EngineOptions { prefix_cache: false, ..options() });
    let want: Vec<_> = requests
        .iter()
        .enumerate()
        .map(|(i, r)| {
            let output = solo.submit(r.clone()).unwrap().wait().unwrap();
            for choice in &output.choices {
                match choice.finish_reason {
                    FinishReason::Stop => assert!(keeps_to(i, &choice.text), "request {i}: {}", choice.text),
                    // a model of hashes may never come to the end of a sum
                    reason => assert_eq!((reason, choice.tokens.len()), (FinishReason::Length, 400)),
                }
            }
            essence(&output)
        })
        .collect();
    assert!(want.iter().flatten().filter(|c| c.3 == "stop").count() > 10);

    let model = || HashLm::new(&[None], Rope::Plain);
    let few = EngineOptions { kv_memory: Some(14 * model().block_bytes()), max_batch: 6, ..options() };
    let mut quick = model();
    quick.step_time = Duration::from_micros(300);
    let tokenizer = Arc::new(ByteTokenizer::default());
    let ngram = Engine::start_drafting(Box::new(quick), Draft::Ngram, tokenizer, &options()).unwrap();
    for (way, engine) in
        [("together", plain()), ("with few blocks", engine(model(), &few)), ("with guesses", ngram)]
    {
        let got = submit_all(&engine, &requests);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(&essence(&got.wait().unwrap()), want, "request {i} {way}");
        }
        let stats = engine.stats();
        assert_eq!((stats.running, stats.kv_blocks_used), (0, 0), "{way}");
    }
}

#[test]
fn a_form_that_is_complete_ends_the_answer() {
    let engine = plain();
    for ignore_eos in [false, true] {
        let constraint = Some(Constraint::Regex("yes|no".into()));
        let request = Request { ignore_eos, constraint, ..greedy("well?", 50) };
        let answer = engine.submit(request).unwrap().wait().unwrap().choices.remove(0);
        assert!(["yes", "no"].contains(&answer.text.as_str()), "{}", answer.text);
        assert_eq!(answer.finish_reason, FinishReason::Stop);
    }
    // where it may be over and may go on, an end token ends it, and leaves no text
    let constraint = Some(Constraint::Regex("a+".into()));
    let mut request = Request { constraint, ignore_eos: true, ..greedy("well?", 50) };
    request.sampling.logit_bias = vec![(EOS, 100.0)];
    let answer = engine.submit(request).unwrap().wait().unwrap().choices.remove(0);
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("a", FinishReason::Stop));
    assert_eq!(answer.tokens.last(), Some(&EOS));
}

#[test]
fn forms_that_are_wrong_or_hostile_are_refused() {
    let engine = plain();
    let deep_schema = "{\"anyOf\":[".repeat(20_000);
    let deep_regex = format!("{}a{}", "(".repeat(50_000), ")".repeat(50_000));
    let deep_grammar = format!("start: {}\"a\"{}", "(".repeat(50_000), ")".repeat(50_000));
    let mut long_chain = String::from("start: r0\n");
    for i in 0..15_000 {
        long_chain += &format!("r{i}: r{}\n", i + 1);
    }
    long_chain += "r15000: \"a\"\n";
    let wrong = [
        Constraint::Schema("{".into()),
        Constraint::Schema("[]".into()),
        Constraint::Schema(r#"{"type": "no such type"}"#.into()),
        Constraint::Schema(r#"{"$ref": "http://127.0.0.1/schema"}"#.into()),
        Constraint::Schema(r##"{"$ref": "#/nowhere"}"##.into()),
        Constraint::Schema(r#"{"type": "string", "pattern": "(["}"#.into()),
        Constraint::Schema(deep_schema),
        Constraint::Regex("(".into()),
        Constraint::Regex("x".repeat(300_000)),
        Constraint::Grammar(String::new()),
        Constraint::Grammar("start: missing".into()),
        Constraint::Grammar("rule: \"a\"".into()),
    ];
    for form in wrong {
        let begin = Instant::now();
        let name = form.name();
        let what: String = format!("{form:?}").chars().take(80).collect();
        match engine.submit(Request { constraint: Some(form), ..greedy("x", 5) }).err() {
            Some(Error::InvalidRequest { name: found, fault }) => {
                assert_eq!(found, name, "{what}");
                assert!(!fault.is_empty() && fault.len() < 2500 && !fault.contains("backtrace"), "{fault}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
    }
    // these may be refused or kept to, and the engine goes on
    let hard = [
        Constraint::Schema(r#"{"type": "array", "minItems": 100000000}"#.into()),
        Constraint::Schema(r#"{"type": "string", "minLength": 1000000000}"#.into()),
        Constraint::Schema(r##"{"$ref": "#"}"##.into()),
        Constraint::Schema(r##"{"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}"##.into()),
        Constraint::Regex("(a|aa)+b(a|aa)+b(.*a.{20}b){3}".into()),
        Constraint::Grammar("start: start start | \"a\"".into()),
        Constraint::Regex("((a{1,5000}){1,5000}){1,5000}".into()),
        Constraint::Regex(deep_regex),
        Constraint::Grammar(deep_grammar),
        Constraint::Grammar(long_chain),
    ];
    for form in hard {
        let begin = Instant::now();
        let what: String = format!("{form:?}").chars().take(80).collect();
        match engine.submit(Request { constraint: Some(form), ..greedy("x", 30) }) {
            Ok(handle) => match handle.wait() {
                Ok(_) | Err(Error::InvalidRequest { .. }) => {}
                other => panic!("{what}: {other:?}"),
            },
            Err(Error::InvalidRequest { .. }) => {}
            Err(other) => panic!("{what}: {other:?}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "{what}");
    }
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.kv_blocks_used), (0, 0, 0));
    engine.submit(greedy("x", 5)).unwrap().wait().unwrap();
}

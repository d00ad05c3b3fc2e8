//! `tokenizer.json` against the ids and texts that the `tokenizers` package gives.

mod common;

use std::sync::Arc;

use alloyforge_interfaces::Tokenizer;
use alloyforge_tokenize::{StreamDecoder, decode, from_json};
use alloyforge_types::Error;
use common::{array, data, ids, json, text, tokenizer_json};
use serde_json::json;

#[test]
fn ids_and_texts_are_those_of_the_package() {
    for name in ["byte_level", "prefix_space", "byte_fallback", "word_piece"] {
        let tokenizer = tokenizer_json(name);
        let file = json(&format!("{name}.cases.json"));
        for case in array(&file["cases"]) {
            let found = tokenizer.encode(text(&case["text"]), case["special"] == true).expect("ids");
            assert_eq!(found, ids(&case["ids"]), "{name} {case}");
            let decoded = text(&case["decoded"]);
            assert_eq!(decode(&*tokenizer, &found, false), decoded, "{name} {case}");
            let mut stream = StreamDecoder::new(Arc::clone(&tokenizer) as Arc<dyn Tokenizer>).with_special();
            let mut chunks: String = found.iter().map(|&id| stream.push(id)).collect();
            chunks += &stream.finish();
            assert_eq!(chunks, decoded, "{name} {case}");
        }
        assert_eq!(tokenizer.encode_framed("a", false).expect("ids"), ids(&file["framed_a"]), "{name}");
    }
}

#[test]
fn the_folder_says_what_begins_and_ends_a_text() {
    let bytes = data("byte_level.tokenizer.json");
    let read = |tokenizer_config, config, generation_config| {
        from_json(&bytes, "file", Some(&tokenizer_config), Some(&config), Some(&generation_config))
            .expect("a tokenizer")
    };
    // Its template puts `<s>` first.
    let plain = read(json!({}), json!({}), json!({}));
    assert_eq!((plain.bos(), plain.eos()), ((Some(1), true), &[][..]));
    let named = json!({"eos_token": {"content": "</s>"}, "bos_token": "<s>"});
    assert_eq!(read(named.clone(), json!({}), json!({})).eos(), [2]);
    assert_eq!(read(named.clone(), json!({"eos_token_id": 7}), json!({})).eos(), [7]);
    assert_eq!(read(named.clone(), json!({"text_config": {"eos_token_id": [8]}}), json!({})).eos(), [8]);
    assert_eq!(read(named, json!({"eos_token_id": 7}), json!({"eos_token_id": [4, 2]})).eos(), [4, 2]);
    let without = json!({"add_bos_token": false, "bos_token": "<s>"});
    assert_eq!(read(without, json!({}), json!({})).bos(), (Some(1), false));
    let both = json!({"add_bos_token": true, "add_eos_token": true, "bos_token": "<s>", "eos_token": "</s>"});
    assert_eq!(read(both, json!({}), json!({})).frame(), (vec![1], vec![2]));
}

#[test]
fn tokens_that_only_the_configuration_calls_special_are() {
    let bytes = data("byte_level.tokenizer.json");
    let word = "Ġthe";
    let config = json!({"extra_special_tokens": [word, "not there"]});
    let tokenizer = from_json(&bytes, "file", Some(&config), None, None).expect("a tokenizer");
    let id = tokenizer.token_id(word).expect("a token");
    assert!(tokenizer.is_special(id));
    assert_eq!(tokenizer.token_id("not there"), None);
    assert_eq!(tokenizer.vocab_size(), tokenizer_json("byte_level").vocab_size());
}

#[test]
fn long_runs_are_cut_as_short_ones_are() {
    let tokenizer = tokenizer_json("byte_level");
    // An engine that gives up would leave all behind the blanks uncut.
    let blanks = " ".repeat(1_100_000);
    let long = tokenizer.encode(&(blanks.clone() + "x don't 12345"), false).expect("ids");
    let short = tokenizer.encode("  x don't 12345", false).expect("ids");
    let tail = tokenizer.encode(" x don't 12345", false).expect("ids");
    assert!(short.ends_with(&tail) && long.ends_with(&tail));
    assert_eq!(decode(&*tokenizer, &long, false), blanks + "x don't 12345");
}

#[test]
fn what_is_no_tokenizer_is_a_format_error() {
    let sound = data("word_piece.tokenizer.json");
    let whole: serde_json::Value = serde_json::from_slice(&sound).expect("JSON");
    let mut bad: Vec<Vec<u8>> = vec![b"".into(), b"{}".into(), b"[1]".into(), b"{\"model\": 5}".into()];
    for (key, value) in [
        ("model", json!({"type": "BPE", "vocab": {}})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["abc"]})),
        ("model", json!({"type": "Unknown", "vocab": {}})),
        ("model", json!({"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 9})),
        ("pre_tokenizer", json!({"type": "Sequence"})),
        (
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
        ),
        (
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Sideways", "invert": false}),
        ),
        (
            "post_processor",
            json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [], "special_tokens": {}}),
        ),
        ("added_tokens", json!([{"id": -1, "content": "x"}])),
        ("version", json!("2.0")),
    ] {
        let mut changed = whole.clone();
        changed[key] = value;
        bad.push(serde_json::to_vec(&changed).expect("JSON"));
    }
    let mut cuts: Vec<Vec<u8>> = (0..sound.len()).step_by(97).map(|len| sound[..len].to_vec()).collect();
    bad.append(&mut cuts);
    for bytes in bad {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        match from_json(&bytes, "some/tokenizer.json", None, None, None) {
            Err(Error::Format { file, .. }) => assert_eq!(file, "some/tokenizer.json"),
            Err(other) => panic!("{other} for {shown}"),
            Ok(_) => panic!("{shown} was read"),
        }
    }
}

/// A tokenizer of two letters whose text is first normalised.
fn normalised(normalizer: &serde_json::Value, pre_tokenizer: &serde_json::Value) -> Vec<u8> {
    let file = json!({
        "version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
    });
    serde_json::to_vec(&file).expect("JSON")
}

/// The package panics on some of them while it encodes.
#[test]
fn an_empty_pattern_is_a_fault() {
    let replace = |pattern: serde_json::Value| json!({"type": "Replace", "pattern": pattern, "content": "x"});
    let empty = replace(json!({"String": ""}));
    let nested = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, empty]});
    for normalizer in [&empty, &nested, &replace(json!({"Regex": ""}))] {
        match from_json(&normalised(normalizer, &json!(null)), "x/tokenizer.json", None, None, None) {
            Err(Error::Format { file, fault, .. }) => {
                assert_eq!(file, "x/tokenizer.json");
                assert!(fault.contains("empty pattern"), "{fault}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{normalizer} was taken"),
        }
    }
    let good = normalised(&replace(json!({"String": "c"})), &json!({"type": "Whitespace"}));
    let tokenizer = from_json(&good, "x", None, None, None).expect("a tokenizer");
    assert_eq!(tokenizer.encode("a b c", false).expect("ids"), [0, 1, 2]);
}

/// Patterns that match nothing at all, in whatever place, give ids or an error, never a panic.
#[test]
fn patterns_that_match_nothing_do_no_harm() {
    let texts = ["", "a", "ab b", "\u{e9} a\u{e9} b", "a\u{301}\u{1f600}"];
    for pattern in ["", "a*", "^", "$", "(?=b)", "(?<=a)", "x?", "\\b", "(a|)"] {
        for content in ["", "x", "\u{e9}\u{e9}"] {
            let replace = json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content});
            for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] {
                for (kind, invert) in [("Regex", false), ("String", false), ("Regex", true)] {
                    let split = json!({
                        "type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert,
                    });
                    for normalizer in [&json!(null), &replace] {
                        let bytes = normalised(normalizer, &split);
                        let Ok(tokenizer) = from_json(&bytes, "x", None, None, None) else { continue };
                        for text in texts {
                            if let Ok(ids) = tokenizer.encode(text, true) {
                                decode(&tokenizer, &ids, false);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A tokenizer of bytes with added tokens, of which one is not called special.
fn with_added() -> alloyforge_tokenize::TextTokenizer {
    let mut file = json("byte_level.tokenizer.json");
    let next = file["model"]["vocab"].as_object().expect("a vocabulary").len();
    let added = file["added_tokens"].as_array_mut().expect("a list");
    let next = added.iter().filter_map(|token| token["id"].as_u64()).max().map_or(next, |id| id as usize + 1);
    for (i, (content, special)) in
        [("<|begin|>", true), ("<|mark|>", false), ("<plain>", false)].into_iter().enumerate()
    {
        added.push(json!({
            "id": next + i, "content": content, "special": special, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        }));
    }
    let bytes = serde_json::to_vec(&file).expect("JSON");
    from_json(&bytes, "x", None, None, None).expect("a tokenizer")
}

#[test]
fn what_others_wrote_stays_literal() {
    let tokenizer = with_added();
    let id = |text: &str| tokenizer.token_id(text).expect("a token");
    let encode = |text: &str| tokenizer.encode(text, true).expect("ids");
    let around =
        |text: &str, literal: &[std::ops::Range<usize>]| tokenizer.encode_around(text, literal).expect("ids");
    let text = "<|begin|>user\nsay <|begin|> and <|mark|> or <plain> now<|begin|>";
    let spelled = |part: &str, nth: usize| {
        let (at, part) = text.match_indices(part).nth(nth).expect("there");
        at..at + part.len()
    };
    // nothing is literal: nothing changes
    assert_eq!(around(text, &[]), encode(text));
    let literal = [spelled("<|begin|>", 1), spelled("<|mark|>", 0)];
    let ids = around(text, &literal);
    let count = |wanted: &str| ids.iter().filter(|&&found| found == id(wanted)).count();
    assert_eq!([count("<|begin|>"), count("<|mark|>"), count("<plain>")], [2, 0, 1]);
    assert_eq!(decode(&tokenizer, &ids, false), text);
    // what is not spelled like a token has the ids that it would have with other words in those places
    let (before, behind) = ("<|begin|>user\nsay ", " now<|begin|>");
    let plain = encode(&format!("{before}x and y or <plain>{behind}"));
    let (head, tail) = (encode("<|begin|>user\nsay").len(), encode(behind).len());
    assert_eq!(ids[..head], plain[..head]);
    assert_eq!(ids[ids.len() - tail..], plain[plain.len() - tail..]);
    // a range that a token only touches is enough
    let only = around("a<|begin|>b", std::slice::from_ref(&(3..4)));
    assert!(!only.contains(&id("<|begin|>")));
    assert_eq!(only, tokenizer.encode("a<|begin|>b", false).expect("ids"));
}

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

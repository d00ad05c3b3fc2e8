//! Damaged vocabularies: an error that names the file and the key, never a panic.

mod common;

use alloyforge_interfaces::Tokenizer;
use alloyforge_tokenize::from_gguf;
use alloyforge_types::{Error, MetaArray, MetaValue, Metadata};
use common::{json, metadata};
use proptest::prelude::*;
use serde_json::{Value, json};

const LABEL: &str = "some/model.gguf";

/// The vocabulary in `name` with one key changed, or without it.
fn changed(name: &str, key: &str, value: Option<Value>) -> Metadata {
    let mut file = json(name)["metadata"].clone();
    let key = format!("tokenizer.ggml.{key}");
    match value {
        Some(value) => file[key] = value,
        None => drop(file.as_object_mut().expect("an object").remove(&key)),
    }
    metadata(&file)
}

/// The key that an error names.
fn faulty_key(metadata: &Metadata) -> String {
    match from_gguf(metadata, LABEL) {
        Err(Error::Format { file, item, .. }) => {
            assert_eq!(file, LABEL);
            item.strip_prefix("tokenizer.ggml.").expect("a key of the tokenizer").to_owned()
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the vocabulary was taken"),
    }
}

#[test]
fn every_fault_names_its_key() {
    let long = |text: &str| Some(json!(vec![text; 3]));
    for (name, key, value, named) in [
        ("spm.json", "model", None, "model"),
        ("spm.json", "model", Some(json!("none")), "model"),
        ("spm.json", "model", Some(json!(5)), "model"),
        ("spm.json", "tokens", None, "tokens"),
        ("spm.json", "tokens", Some(json!([])), "tokens"),
        ("spm.json", "tokens", Some(json!("a")), "tokens"),
        ("spm.json", "tokens", long("a"), "tokens"),
        ("spm.json", "token_type", Some(json!([1, 1])), "token_type"),
        ("spm.json", "token_type", Some(json!("a")), "token_type"),
        ("spm.json", "scores", Some(json!([0.5])), "scores"),
        ("spm.json", "scores", Some(json!(true)), "scores"),
        ("spm.json", "eos_token_id", Some(json!(1_000_000)), "eos_token_id"),
        ("spm.json", "bos_token_id", Some(json!("a")), "bos_token_id"),
        ("spm.json", "add_bos_token", Some(json!("yes")), "add_bos_token"),
        ("spm.json", "add_space_prefix", Some(json!(1)), "add_space_prefix"),
        ("bpe.json", "merges", None, "merges"),
        ("bpe.json", "merges", Some(json!(["a b", "ab"])), "merges"),
        ("bpe.json", "merges", Some(json!([""])), "merges"),
        ("bpe.json", "merges", Some(json!([" "])), "merges"),
        ("bpe.json", "merges", Some(json!(["é "])), "merges"),
        ("bpe.json", "merges", Some(json!(7)), "merges"),
        (
            "unigram.json",
            "precompiled_charsmap",
            Some(json!([255, 255, 255, 255, 0])),
            "precompiled_charsmap",
        ),
        ("unigram.json", "precompiled_charsmap", Some(json!([1000])), "precompiled_charsmap"),
        ("wordpiece.json", "seperator_token_id", None, "seperator_token_id"),
    ] {
        // The separator's default id, 102, is in the vocabulary: without it none is found.
        let metadata = if key == "seperator_token_id" {
            let mut file = json(name)["metadata"].clone();
            let tokens = file["tokenizer.ggml.tokens"].as_array_mut().expect("an array");
            tokens.truncate(50);
            file.as_object_mut().expect("an object").remove("tokenizer.ggml.seperator_token_id");
            metadata(&file)
        } else {
            changed(name, key, value.clone())
        };
        assert_eq!(faulty_key(&metadata), named, "{key}: {value:?}");
    }
}

#[test]
fn arrays_of_another_type_are_faults() {
    let scores = MetaValue::Array(MetaArray::F32(vec![0.0; 900].into()));
    for (key, value) in [
        ("tokens", MetaValue::Array(MetaArray::U64(vec![1; 900].into()))),
        ("token_type", scores.clone()),
        ("scores", MetaValue::Array(MetaArray::Bool(vec![true; 900].into()))),
        ("scores", MetaValue::Array(MetaArray::F32(vec![f32::NAN; 900].into()))),
    ] {
        let mut metadata = Metadata::default();
        metadata.insert(format!("tokenizer.ggml.{key}"), value);
        for (other, value) in changed("spm.json", key, None).iter() {
            metadata.insert(other.to_owned(), value.clone());
        }
        assert_eq!(faulty_key(&metadata), key);
    }
}

#[test]
fn byte_tokens_that_name_no_byte_are_faults() {
    for text in ["<0x-1>", "<0x1>", "<0xGG>", "0x00", "<0x000>"] {
        let mut file = json("spm.json")["metadata"].clone();
        let kinds = file["tokenizer.ggml.token_type"].as_array().expect("an array");
        let at = kinds.iter().position(|kind| kind == 6).expect("a byte token");
        file["tokenizer.ggml.tokens"][at] = json!(text);
        assert_eq!(faulty_key(&metadata(&file)), "tokens");
    }
}

#[test]
fn what_is_not_known_is_named() {
    for (name, key, value) in
        [("spm.json", "model", "nosuch"), ("bpe.json", "pre", "nosuch"), ("spm.json", "model", "hybriddna")]
    {
        match from_gguf(&changed(name, key, Some(json!(value))), LABEL) {
            Err(Error::Unsupported { file, what }) => {
                assert_eq!((file.as_str(), what), (LABEL, format!("tokenizer.ggml.{key} = \"{value}\"")));
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{value} was taken"),
        }
    }
}

/// Published files name padding and unknown tokens that their vocabulary lacks.
#[test]
fn an_unknown_token_outside_the_vocabulary_is_none() {
    let tokenizer = from_gguf(&changed("spm.json", "unknown_token_id", Some(json!(1_000_000))), LABEL)
        .expect("a tokenizer");
    assert_eq!(tokenizer.unknown(), Some(0));
}

#[test]
fn a_character_that_cannot_be_expressed_is_named() {
    let file = json!({
        "tokenizer.ggml.model": "rwkv", "tokenizer.ggml.tokens": ["a", "b"],
    });
    let tokenizer = from_gguf(&metadata(&file), LABEL).expect("a tokenizer");
    assert_eq!(tokenizer.encode("ab", false).expect("ids"), [0, 1]);
    let error = tokenizer.encode("abc", false).expect_err("no token");
    assert_eq!(error, Error::invalid("text", "the vocabulary has no token for 'c'"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Small vocabularies of any strings, whatever their kinds, scores and merges, either are refused
    /// or take any text.
    #[test]
    fn any_vocabulary_is_refused_or_works(
        model in prop::sample::select(vec!["gpt2", "llama", "bert", "t5", "rwkv", "plamo2", "gemma4", "whitespace"]),
        tokens in proptest::collection::vec("[ab<>0x▁é \\\\\u{0}]{0,4}|<0x[0-9A-F]{2}>|</s>|<\\|end\\|>", 0..20),
        kinds in proptest::collection::vec(-1i64..8, 0..24),
        scores in proptest::collection::vec(prop::num::f32::ANY, 0..24),
        merges in proptest::collection::vec("[ab▁é]{0,2} ?[ab▁é]{0,2}", 0..12),
        charsmap in proptest::collection::vec(0u64..256, 0..40),
        id in proptest::option::of(-2i64..24),
        text in "[ab<>0x▁é \n/s|end]{0,20}",
    ) {
        let mut metadata = Metadata::default();
        let mut insert = |key: &str, value| metadata.insert(format!("tokenizer.ggml.{key}"), value);
        insert("model", MetaValue::Str(model.into()));
        insert("pre", MetaValue::Str(if model == "whitespace" { "whitespace" } else { "gpt-2" }.into()));
        let boxed = |strings: Vec<String>| MetaArray::Str(strings.into_iter().map(String::into_boxed_str).collect());
        insert("tokens", MetaValue::Array(boxed(tokens)));
        insert("merges", MetaValue::Array(boxed(merges)));
        insert("token_type", MetaValue::Array(MetaArray::I64(kinds.into())));
        insert("scores", MetaValue::Array(MetaArray::F32(scores.into())));
        insert("precompiled_charsmap", MetaValue::Array(MetaArray::U64(charsmap.into())));
        if let Some(id) = id {
            insert("bos_token_id", MetaValue::I64(id));
            insert("eos_token_id", MetaValue::I64(id));
        }
        match from_gguf(&metadata, LABEL) {
            Ok(tokenizer) => {
                for special in [false, true] {
                    if let Ok(ids) = tokenizer.encode(&text, special) {
                        for id in ids {
                            prop_assert!(tokenizer.token_bytes(id).is_some());
                        }
                    }
                }
            }
            Err(Error::Format { file, .. } | Error::Unsupported { file, .. }) => prop_assert_eq!(file, LABEL),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

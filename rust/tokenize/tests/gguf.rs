//! Vocabularies of GGUF files against the ids that llama.cpp gives.

mod common;

use alloyforge_interfaces::Tokenizer;
use alloyforge_tokenize::{TextTokenizer, decode, from_gguf};
use common::{array, gguf, ids, json, metadata, text};
use serde_json::{Value, json};

/// Holds a tokenizer to the cases of a file, with and without special tokens.
fn check_cases(tokenizer: &TextTokenizer, file: &Value) {
    for case in array(&file["cases"]) {
        let special = case["special"] == true;
        let found = tokenizer.encode(text(&case["text"]), special).expect("ids");
        assert_eq!(found, ids(&case["ids"]), "{:?}, special: {special}", case["text"]);
    }
}

/// Holds the tokenizer of a file, one key changed, to a list of ids, one a text of the file.
fn check_variant(file: &Value, key: &str, value: Value, expected: &Value) {
    let mut changed = file["metadata"].clone();
    changed[key] = value;
    let tokenizer = from_gguf(&metadata(&changed), "changed").expect("a tokenizer");
    for (input, expected) in array(&file["texts"]).iter().zip(array(expected)) {
        assert_eq!(tokenizer.encode(text(input), false).expect("ids"), ids(expected), "{input:?}");
    }
}

/// Every pre-tokenizer, on merges that reach across words and so show where it cuts.
#[test]
fn byte_pair_encoding_behind_every_pre_tokenizer() {
    for name in ["bpe.json", "plain_bpe.json"] {
        let file = json(name);
        let texts = array(&file["texts"]);
        let mut names = 0;
        for group in array(&file["groups"]) {
            for pre in array(&group["names"]) {
                names += 1;
                let key = "tokenizer.ggml.pre";
                check_variant(&file, key, pre.clone(), &group["ids"]);
                let mut changed = file["metadata"].clone();
                changed[key] = pre.clone();
                let tokenizer = from_gguf(&metadata(&changed), text(pre)).expect("a tokenizer");
                let last = &texts[texts.len() - array(&group["special_of_last"]).len()..];
                for (input, expected) in last.iter().zip(array(&group["special_of_last"])) {
                    assert_eq!(
                        tokenizer.encode(text(input), true).expect("ids"),
                        ids(expected),
                        "{pre} {input:?}"
                    );
                }
            }
        }
        assert!(names == 3 || names > 80, "{names} pre-tokenizers");
        let unnamed = from_gguf(&metadata(&file["metadata"]), name).expect("a tokenizer");
        for (input, expected) in texts.iter().zip(array(&file["default"])) {
            assert_eq!(unnamed.encode(text(input), false).expect("ids"), ids(expected), "{input:?}");
        }
    }
}

#[test]
fn byte_pair_encoding_between_blanks() {
    check_cases(&gguf("whitespace.json"), &json("whitespace.json"));
}

#[test]
fn sentencepiece_merges() {
    let file = json("spm.json");
    let tokenizer = gguf("spm.json");
    check_cases(&tokenizer, &file);
    check_variant(&file, "tokenizer.ggml.add_space_prefix", json!(false), &file["without_prefix"]);
    let mut ends = tokenizer.eos().to_vec();
    assert_eq!(ends[0], 2);
    ends.sort_unstable();
    assert_eq!(ends, ids(&file["ends"]));
    assert_eq!(tokenizer.bos(), (Some(1), true));
}

#[test]
fn unigram() {
    let file = json("unigram.json");
    check_cases(&gguf("unigram.json"), &file);
    let key = "tokenizer.ggml.remove_extra_whitespaces";
    check_variant(&file, key, json!(false), &file["keeping_whitespace"]);
}

#[test]
fn wordpiece() {
    let file = json("wordpiece.json");
    let tokenizer = gguf("wordpiece.json");
    check_cases(&tokenizer, &file);
    check_variant(&file, "tokenizer.ggml.normalizer.lowercase", json!(false), &file["cased"]);
    assert_eq!(tokenizer.encode_framed("", false).expect("ids"), [2, 3]);
    let ids = tokenizer.encode("The dog, and ÄPFEL!", false).expect("ids");
    assert_eq!(decode(&*tokenizer, &ids, true), "the dog, and apfel!");
}

#[test]
fn rwkv_and_plamo2() {
    check_cases(&gguf("rwkv.json"), &json("rwkv.json"));
    check_cases(&gguf("plamo2.json"), &json("plamo2.json"));
}

#[test]
fn special_tokens_are_text_unless_asked_for() {
    let tokenizer = gguf("spm.json");
    for piece in ["<s>", "</s>", "<unk>", "<|im_end|>", "<|im_start|>"] {
        let id = tokenizer.token_id(piece).expect("a token");
        assert!(tokenizer.is_special(id));
        assert_eq!(tokenizer.encode(piece, true).expect("ids"), [id]);
        let literal = tokenizer.encode(piece, false).expect("ids");
        assert!(!literal.iter().any(|&id| tokenizer.is_special(id)), "{piece}: {literal:?}");
        assert_eq!(decode(&*tokenizer, &literal, true), piece);
    }
    // What users define is text of the model's own, and always found.
    let defined = tokenizer.token_id("<u>").expect("a token");
    assert!(!tokenizer.is_special(defined));
    assert!(tokenizer.encode("a<u>", false).expect("ids").contains(&defined));
}

/// In llama.cpp `</` and `s>` would merge into the token that ends the text.
#[test]
fn merges_never_lead_to_a_control_token() {
    let tokens = ["<unk>", "<s>", "</s>", "<", "/", "s", ">", "</", "s>"];
    let file = json!({
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0, 0, 0, -1, -1, -1, -1, -1, -1],
        "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1, 1, 1],
        "tokenizer.ggml.add_space_prefix": false,
    });
    let tokenizer = from_gguf(&metadata(&file), "file").expect("a tokenizer");
    assert_eq!(tokenizer.encode("</s>", false).expect("ids"), [7, 8]);
    assert_eq!(tokenizer.encode("</s>", true).expect("ids"), [2]);
}

#[test]
fn ends_of_an_answer_are_known_by_their_text() {
    let vocabulary = |tokens: &[&str]| {
        let mut all = vec!["<unk>", "a"];
        all.extend(tokens);
        let kinds: Vec<i64> = vec![1; all.len()];
        let file = json!({
            "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.merges": [],
            "tokenizer.ggml.tokens": all, "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.eos_token_id": 1,
        });
        from_gguf(&metadata(&file), "file").expect("a tokenizer")
    };
    assert_eq!(vocabulary(&[]).eos(), [1]);
    let turns = vocabulary(&["<|im_end|>", "b", "<|endoftext|>", "<end_of_turn>"]);
    assert_eq!(turns.eos(), [1, 2, 4, 5]);
    assert!(turns.is_special(2) && !turns.is_special(3));
    assert_eq!(turns.end_of_turn(), Some(2));
    // Behind `<|end|>` an answer goes on where `<|return|>` and `<|call|>` end it.
    let channels = vocabulary(&["<|end|>", "<|return|>", "<|call|>", "<|channel|>"]);
    assert_eq!(channels.eos(), [1, 3, 4]);
    assert!(!channels.is_special(2) && !channels.is_special(5));
    assert_eq!(vocabulary(&["<|end|>", "</s>"]).eos(), [1, 2, 3]);
    assert_eq!(vocabulary(&["<|tool_response>", "</s>", "<turn|>"]).eos(), [1, 2, 4]);
}

/// Phi-3's special tokens take the blanks behind them with them, which its files do not say.
#[test]
fn some_models_special_tokens_take_blanks() {
    let file = json!({
        "general.name": "Phi-3 mini",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "<|user|>", "a", "▁", "▁a", "\n"],
        "tokenizer.ggml.scores": [0, 0, 0, 0, -1, -1, -1, -1],
        "tokenizer.ggml.token_type": [2, 3, 3, 3, 1, 1, 1, 1],
    });
    let tokenizer = from_gguf(&metadata(&file), "file").expect("a tokenizer");
    assert_eq!(tokenizer.encode("<|user|> \n a<s> a", true).expect("ids"), [3, 6, 1, 5, 6]);
}

#[test]
fn a_quarter_of_a_million_tokens_load() {
    let tokens: Vec<String> = (0..262_144).map(|n| format!("t{n:x}")).collect();
    let merges: Vec<String> = (0..262_144).map(|n| format!("t{:x} {:x}", n / 16, n % 16)).collect();
    let file = json!({
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges,
    });
    let tokenizer = from_gguf(&metadata(&file), "file").expect("a tokenizer");
    assert_eq!(tokenizer.vocab_size(), 262_144);
    assert_eq!(tokenizer.token_id("t3ffff"), Some(0x3ffff));
}

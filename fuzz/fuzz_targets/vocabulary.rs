//! Any bytes as a GGUF vocabulary: an error, or a tokenizer whose ids lie inside the vocabulary.

#![no_main]

mod scratch;

use alloyforge_formats::gguf::GgufFile;
use alloyforge_interfaces::Tokenizer;
use libfuzzer_sys::fuzz_target;

const TEXT: &str = "Hello, wörld! 你好 12345 don't\n\n  x_y <s> \u{1f600}\u{301}";

fuzz_target!(|data: &[u8]| {
    let Ok(file) = GgufFile::open(&scratch::put("v.gguf", data)) else { return };
    let Ok(tokenizer) = alloyforge_tokenize::from_gguf(file.metadata(), "v.gguf") else { return };
    for special in [false, true] {
        if let Ok(ids) = tokenizer.encode(TEXT, special) {
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            alloyforge_tokenize::decode(&tokenizer, &ids, false);
        }
    }
});

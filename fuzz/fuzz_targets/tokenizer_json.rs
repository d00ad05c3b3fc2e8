//! Any bytes as a `tokenizer.json`: an error, or a tokenizer that encodes and decodes.

#![no_main]

use alloyforge_interfaces::Tokenizer;
use libfuzzer_sys::fuzz_target;

const TEXT: &str = "Hello, wörld! 你好 12345 don't\n\n  x_y <s> \u{1f600}\u{301}";

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = alloyforge_tokenize::from_json(data, "tokenizer.json", None, None, None) else {
        return;
    };
    for special in [false, true] {
        if let Ok(ids) = tokenizer.encode(TEXT, special) {
            alloyforge_tokenize::decode(&tokenizer, &ids, false);
        }
    }
});

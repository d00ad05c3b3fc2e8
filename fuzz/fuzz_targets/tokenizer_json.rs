//! Any bytes as a `tokenizer.json`: an error, or a tokenizer that encodes and decodes.
//!
//! The file is run by a crate that panics on some of them; what counts is that no panic comes out.

#![no_main]

use std::sync::Once;

use alloyforge_interfaces::Tokenizer;
use libfuzzer_sys::fuzz_target;

const TEXT: &str = "Hello, wörld! 你好 12345 don't\n\n  x_y <s> \u{1f600}\u{301}";

/// Takes away the hook that ends the process at a panic which is caught later.
static QUIET: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    QUIET.call_once(|| drop(std::panic::take_hook()));
    let Ok(tokenizer) = alloyforge_tokenize::from_json(data, "tokenizer.json", None, None, None) else {
        return;
    };
    for special in [false, true] {
        if let Ok(ids) = tokenizer.encode(TEXT, special) {
            alloyforge_tokenize::decode(&tokenizer, &ids, false);
        }
    }
});

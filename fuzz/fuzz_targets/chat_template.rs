//! Any text as a chat template: an error, or a text of bounded size.

#![no_main]

use std::sync::LazyLock;

use alloyforge_template::ChatTemplate;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static CONTEXT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hä?"}, {"type": "image"}]},
            {"role": "assistant", "content": "x", "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": [null, 2.5]}}},
            ]},
            {"role": "tool", "content": "{}", "tool_call_id": "1"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_generation_prompt": true,
    })
});

fuzz_target!(|data: &[u8]| {
    let Ok(source) = std::str::from_utf8(data) else { return };
    if let Ok(template) = ChatTemplate::compile(source) {
        let _ = template.render(&CONTEXT, Some("2025-01-02T03:04:05"));
    }
});

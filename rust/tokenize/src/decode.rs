//! Ids back to text, whole or as they come.

use std::sync::Arc;

use alloyforge_interfaces::Tokenizer;

/// The text of a whole sequence; special tokens are left out where `skip_special`. Bytes that are no
/// UTF-8 become U+FFFD, ids outside the vocabulary nothing.
pub fn decode(tokenizer: &dyn Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut text = Text::new(tokenizer.strips_leading_space(), skip_special);
    let mut out = String::new();
    for &id in ids {
        text.push(tokenizer, id, &mut out);
    }
    text.finish(&mut out);
    out
}

/// Turns ids into text as they come, never part of a character. All that it gave, put together, is what
/// [`decode`] makes of all ids.
pub struct StreamDecoder {
    tokenizer: Arc<dyn Tokenizer>,
    text: Text,
}

impl StreamDecoder {
    /// A decoder for a text of its own; special tokens are left out.
    pub fn new(tokenizer: Arc<dyn Tokenizer>) -> Self {
        let text = Text::new(tokenizer.strips_leading_space(), true);
        Self { tokenizer, text }
    }

    /// A decoder for a text that goes on behind another: a blank at its beginning is part of it.
    pub fn continuing(tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self { tokenizer, text: Text::new(false, true) }
    }

    /// Gives special tokens their text too.
    pub fn with_special(mut self) -> Self {
        self.text.skip_special = false;
        self
    }

    /// The characters that `id` completes.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        self.text.push(&*self.tokenizer, id, &mut out);
        out
    }

    /// What is left when no id follows: the beginning of a character as U+FFFD, if anything.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.text.finish(&mut out);
        out
    }
}

/// Bytes on their way to being text.
struct Text {
    // The beginning of a character, at most three bytes.
    pending: Vec<u8>,
    strips_leading_space: bool,
    skip_special: bool,
}

impl Text {
    fn new(strips_leading_space: bool, skip_special: bool) -> Self {
        Self { pending: Vec::new(), strips_leading_space, skip_special }
    }

    fn push(&mut self, tokenizer: &dyn Tokenizer, id: u32, out: &mut String) {
        if self.skip_special && tokenizer.is_special(id) {
            return;
        }
        let Some(bytes) = tokenizer.token_bytes(id) else { return };
        let mut bytes = &*bytes;
        if self.strips_leading_space && !bytes.is_empty() {
            self.strips_leading_space = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.pending.extend_from_slice(bytes);
        let mut whole = 0;
        for chunk in self.pending.utf8_chunks() {
            out.push_str(chunk.valid());
            whole += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() || (whole + invalid.len() == self.pending.len() && is_begun(invalid)) {
                break;
            }
            out.push(char::REPLACEMENT_CHARACTER);
            whole += invalid.len();
        }
        self.pending.drain(..whole);
    }

    fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

/// Whether bytes that are no character could begin one.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

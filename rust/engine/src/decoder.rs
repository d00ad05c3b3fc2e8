//! Bytes of tokens to whole characters.

use std::sync::Arc;

use alloyforge_interfaces::Tokenizer;

/// Joins the bytes of tokens and gives out whole characters.
pub(crate) struct StreamDecoder {
    tokenizer: Arc<dyn Tokenizer>,
    pending: Vec<u8>,
}

impl StreamDecoder {
    pub(crate) fn new(tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    pub(crate) fn push(&mut self, token: u32) -> String {
        if let Some(bytes) = self.tokenizer.token_bytes(token) {
            self.pending.extend_from_slice(&bytes);
        }
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(bad) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[bad..];
                }
            }
        }
        let num_left = rest.len();
        self.pending.drain(..self.pending.len() - num_left);
        text
    }

    pub(crate) fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

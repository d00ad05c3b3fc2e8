//! The sequences across which DRY counts no repeat.

use std::collections::HashMap;

use alloyforge_interfaces::Tokenizer;
use alloyforge_types::{DryBreaker, Error, Result};

/// Most tokens that the rest of a breaker may have: breakers are marks, not texts.
const MAX_TAIL: usize = 20;
/// Most breakers of one request.
const MAX_BREAKERS: usize = 64;
/// Most bytes of one breaker.
const MAX_BYTES: usize = 40;

/// Breakers by their first token.
#[derive(Debug, Clone, Default)]
pub(super) struct Breakers {
    tails: HashMap<u32, Vec<Vec<u32>>>,
}

impl Breakers {
    /// The breakers of a request. A text is found wherever it lies among tokens: a token that
    /// contains it breaks by itself; a token that ends with its beginning breaks where the tokens of
    /// the rest follow.
    ///
    /// # Errors
    /// `InvalidRequest` for too many, too long or empty ones, or a text without a tokenizer.
    pub fn new(breakers: &[DryBreaker], tokenizer: Option<&dyn Tokenizer>) -> Result<Self> {
        let fault = |what: &str| Error::invalid("dry_sequence_breakers", what);
        if breakers.len() > MAX_BREAKERS {
            return Err(fault(&format!("at most {MAX_BREAKERS} are allowed")));
        }
        let mut found = Self::default();
        for breaker in breakers {
            match breaker {
                DryBreaker::Tokens(tokens) => {
                    if tokens.len() > MAX_TAIL + 1 {
                        return Err(fault(&format!("at most {} tokens are allowed in one", MAX_TAIL + 1)));
                    }
                    let (&first, tail) = tokens.split_first().ok_or_else(|| fault("one is empty"))?;
                    found.add(first, tail.to_vec());
                }
                DryBreaker::Text(text) => {
                    if text.is_empty() || text.len() > MAX_BYTES {
                        return Err(fault(&format!("each must have 1 to {MAX_BYTES} bytes")));
                    }
                    // without a tokenizer there is no text for a breaker to lie in
                    if let Some(tokenizer) = tokenizer {
                        found.add_text(text, tokenizer)?;
                    }
                }
            }
        }
        Ok(found)
    }

    #[cfg(test)]
    pub fn from_tokens(breakers: &[&[u32]]) -> Self {
        let mut found = Self::default();
        for b in breakers {
            found.add(b[0], b[1..].to_vec());
        }
        found
    }

    fn add(&mut self, first: u32, tail: Vec<u32>) {
        let tails = self.tails.entry(first).or_default();
        if !tails.contains(&tail) {
            tails.push(tail);
        }
    }

    fn add_text(&mut self, text: &str, tokenizer: &dyn Tokenizer) -> Result<()> {
        let wanted = text.as_bytes();
        let mut rests: HashMap<usize, Vec<u32>> = HashMap::new();
        for id in 0..tokenizer.vocab_size() as u32 {
            let Some(bytes) = tokenizer.token_bytes(id) else { continue };
            if contains(&bytes, wanted) {
                self.add(id, Vec::new());
                continue;
            }
            for taken in 1..wanted.len().min(bytes.len() + 1) {
                // the rest must be text of its own
                if !text.is_char_boundary(taken) || !bytes.ends_with(&wanted[..taken]) {
                    continue;
                }
                let tail = match rests.get(&taken) {
                    Some(tail) => tail.clone(),
                    None => {
                        let mut tail = tokenizer.encode(&text[taken..], false)?;
                        tail.truncate(MAX_TAIL);
                        rests.insert(taken, tail.clone());
                        tail
                    }
                };
                self.add(id, tail);
            }
        }
        Ok(())
    }

    /// Whether `token` breaks by itself; such a token is never punished.
    pub fn is_single(&self, token: u32) -> bool {
        self.tails.get(&token).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// Tokens since the last breaker ended, or all.
    pub fn tokens_since_last(&self, tokens: &[u32]) -> usize {
        if self.tails.is_empty() {
            return tokens.len();
        }
        for (back, token) in tokens.iter().rev().enumerate() {
            let Some(tails) = self.tails.get(token) else { continue };
            let after = &tokens[tokens.len() - back..];
            if let Some(longest) = tails.iter().filter(|t| after.starts_with(t)).map(Vec::len).max() {
                return back - longest;
            }
        }
        tokens.len()
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

//! The tokenizer, whatever it was read from.

use std::borrow::Cow;
use std::ops::Range;

use alloyforge_interfaces::Tokenizer;
use alloyforge_types::{Error, Result};

use crate::gguf::GgufTokenizer;
use crate::json::JsonTokenizer;

/// A tokenizer read from a file. Encoding takes no lock, and no text takes more than n log n time.
pub struct TextTokenizer {
    source: Source,
}

enum Source {
    Gguf(Box<GgufTokenizer>),
    Json(Box<JsonTokenizer>),
}

impl From<GgufTokenizer> for TextTokenizer {
    fn from(tokenizer: GgufTokenizer) -> Self {
        Self { source: Source::Gguf(Box::new(tokenizer)) }
    }
}

impl From<JsonTokenizer> for TextTokenizer {
    fn from(tokenizer: JsonTokenizer) -> Self {
        Self { source: Source::Json(Box::new(tokenizer)) }
    }
}

impl TextTokenizer {
    /// The ids of `text` as the model was trained on it: with what begins and ends a text around them,
    /// such as BOS, or CLS and SEP.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_framed(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let (mut ids, end) = self.frame();
        ids.extend(self.encode(text, special)?);
        ids.extend(end);
        Ok(ids)
    }

    /// What is put before and behind a text by default.
    pub fn frame(&self) -> (Vec<u32>, Vec<u32>) {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.frame(),
            Source::Json(tokenizer) => tokenizer.frame(),
        }
    }

    /// The token that ends a turn, which need not end a text.
    pub fn end_of_turn(&self) -> Option<u32> {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.specials().eot,
            Source::Json(_) => None,
        }
    }

    /// The token that stands for what the vocabulary cannot express.
    pub fn unknown(&self) -> Option<u32> {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.specials().unknown,
            Source::Json(tokenizer) => tokenizer.unknown(),
        }
    }
}

/// Places in a text are kept in 32 bits, also where normalising makes it three times as long.
fn check_len(text: &str) -> Result<()> {
    const LIMIT: usize = u32::MAX as usize / 4;
    if text.len() > LIMIT {
        return Err(Error::invalid("text", format!("{} bytes are more than {LIMIT}", text.len())));
    }
    Ok(())
}

impl Tokenizer for TextTokenizer {
    fn vocab_size(&self) -> usize {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.vocab_size(),
            Source::Json(tokenizer) => tokenizer.vocab_size(),
        }
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        check_len(text)?;
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.encode(text, special, &[]),
            Source::Json(tokenizer) => tokenizer.encode(text, special),
        }
    }

    fn encode_around(&self, text: &str, literal: &[Range<usize>]) -> Result<Vec<u32>> {
        check_len(text)?;
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.encode(text, true, literal),
            Source::Json(tokenizer) => tokenizer.encode_around(text, literal),
        }
    }

    fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.token_bytes(id),
            Source::Json(tokenizer) => tokenizer.token_bytes(id),
        }
    }

    fn is_special(&self, id: u32) -> bool {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.is_special(id),
            Source::Json(tokenizer) => tokenizer.is_special(id),
        }
    }

    fn token_id(&self, piece: &str) -> Option<u32> {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.token_id(piece),
            Source::Json(tokenizer) => tokenizer.token_id(piece),
        }
    }

    fn strips_leading_space(&self) -> bool {
        match &self.source {
            Source::Gguf(tokenizer) => tokenizer.strips_leading_space(),
            Source::Json(tokenizer) => tokenizer.strips_leading_space(),
        }
    }

    fn bos(&self) -> (Option<u32>, bool) {
        match &self.source {
            Source::Gguf(tokenizer) => (tokenizer.specials().bos, tokenizer.add_bos()),
            Source::Json(tokenizer) => tokenizer.bos(),
        }
    }

    fn eos(&self) -> &[u32] {
        match &self.source {
            Source::Gguf(tokenizer) => &tokenizer.specials().ends,
            Source::Json(tokenizer) => tokenizer.eos(),
        }
    }
}

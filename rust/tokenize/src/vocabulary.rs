//! The tokens of a GGUF file: their text, kind and score, and the way from a text to its token.

use std::hash::BuildHasher;
use std::sync::Arc;

use alloyforge_types::{Error, Result};
use hashbrown::{DefaultHashBuilder, HashTable};

/// What a token is, as a set: a vocabulary says one kind, and conventions add to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(u8);

impl Kind {
    /// No kind that is known.
    pub(crate) const UNDEFINED: Self = Self(0);
    /// Ordinary text.
    pub(crate) const NORMAL: Self = Self(1);
    /// What stands for text that no token expresses.
    pub(crate) const UNKNOWN: Self = Self(2);
    /// Steers the model and is never text.
    pub(crate) const CONTROL: Self = Self(4);
    /// Added by hand; matched in text before everything else.
    pub(crate) const USER_DEFINED: Self = Self(8);
    /// Never trained.
    pub(crate) const UNUSED: Self = Self(16);
    /// One byte, written `<0xAB>`.
    pub(crate) const BYTE: Self = Self(32);
    /// Takes the blanks before it with it.
    pub(crate) const STRIPS_LEFT: Self = Self(64);
    /// Takes the blanks behind it with it.
    pub(crate) const STRIPS_RIGHT: Self = Self(128);

    /// Whether it is any of `kinds`.
    pub(crate) fn is(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }

    /// It, and `kinds` too.
    pub(crate) const fn and(self, kinds: Self) -> Self {
        Self(self.0 | kinds.0)
    }

    /// The kind by its number in `tokenizer.ggml.token_type`.
    pub(crate) fn from_number(number: i64) -> Self {
        match number {
            1 => Self::NORMAL,
            2 => Self::UNKNOWN,
            3 => Self::CONTROL,
            4 => Self::USER_DEFINED,
            5 => Self::UNUSED,
            6 => Self::BYTE,
            _ => Self::UNDEFINED,
        }
    }
}

/// The tokens by id. Their texts are the metadata's own, held once.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    texts: Arc<[Box<str>]>,
    kinds: Vec<Kind>,
    scores: Vec<f32>,
    by_text: HashTable<u32>,
    hasher: DefaultHashBuilder,
    max_len: usize,
}

impl Vocabulary {
    /// The vocabulary of `texts`; `kinds` and `scores` have its length or none.
    ///
    /// # Errors
    /// `Format`, under `key`, where it is empty, too large, or a text occurs twice.
    pub(crate) fn new(
        texts: Arc<[Box<str>]>,
        kinds: Vec<Kind>,
        scores: Vec<f32>,
        label: &str,
        key: &str,
    ) -> Result<Self> {
        let fault = |fault: String| Err(Error::format(label, key, fault));
        if texts.is_empty() {
            return fault("the vocabulary is empty".to_owned());
        }
        if texts.len() > i32::MAX as usize {
            return fault(format!("{} tokens are too many", texts.len()));
        }
        let hasher = DefaultHashBuilder::default();
        let mut by_text = HashTable::with_capacity(texts.len());
        for (id, text) in (0u32..).zip(texts.iter()) {
            // A text of no length names no token; several tokens may be without a text.
            if text.is_empty() {
                continue;
            }
            let hash = hasher.hash_one(&**text);
            if let Some(&twin) = by_text.find(hash, |&other| texts[other as usize] == *text) {
                return fault(format!("tokens {twin} and {id} are both `{text}`"));
            }
            by_text.insert_unique(hash, id, |&id| hasher.hash_one(&*texts[id as usize]));
        }
        let max_len = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        Ok(Self { texts, kinds, scores, by_text, hasher, max_len })
    }

    /// Tokens in it.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The ids.
    pub(crate) fn ids(&self) -> std::ops::Range<u32> {
        0..self.texts.len() as u32
    }

    /// The id of the token that is `text`.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        if text.is_empty() || text.len() > self.max_len {
            return None;
        }
        let hash = self.hasher.hash_one(text);
        self.by_text.find(hash, |&id| *self.texts[id as usize] == *text).copied()
    }

    /// The id of the token that is `text`, unless it is one that text must never become by itself.
    pub(crate) fn text_id(&self, text: &str) -> Option<u32> {
        self.id(text).filter(|&id| self.is_text(id))
    }

    /// Whether text may become the token.
    pub(crate) fn is_text(&self, id: u32) -> bool {
        !self.kind(id).is(Kind::CONTROL.and(Kind::UNKNOWN))
    }

    /// A token's text; nothing for an id outside.
    pub(crate) fn text(&self, id: u32) -> &str {
        self.texts.get(id as usize).map_or("", |text| text)
    }

    /// A token's kind; a vocabulary that says none has ordinary tokens only.
    pub(crate) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::NORMAL)
    }

    /// Changes a token's kind.
    pub(crate) fn set_kind(&mut self, id: u32, kind: Kind) {
        if self.kinds.is_empty() {
            self.kinds = vec![Kind::NORMAL; self.texts.len()];
        }
        if let Some(entry) = self.kinds.get_mut(id as usize) {
            *entry = kind;
        }
    }

    /// A token's score; 0 where the vocabulary has none.
    pub(crate) fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// Bytes of the longest text.
    pub(crate) fn max_len(&self) -> usize {
        self.max_len
    }

    /// The id of the byte token of `byte`, or of the token that is this one character.
    pub(crate) fn byte_id(&self, byte: u8) -> Option<u32> {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let digit = |nibble: u8| char::from(HEX[usize::from(nibble)]);
        let name: String = ['<', '0', 'x', digit(byte >> 4), digit(byte & 15), '>'].iter().collect();
        self.id(&name).or_else(|| {
            let c = char::from(byte);
            if c.is_ascii() { self.text_id(c.encode_utf8(&mut [0; 4])) } else { None }
        })
    }
}

/// The byte that the text of a byte token names: `<0xAB>`, two hexadecimal digits.
pub(crate) fn parse_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let proper = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if proper { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(texts: &[&str]) -> Result<Vocabulary> {
        let texts: Vec<Box<str>> = texts.iter().map(|&text| text.into()).collect();
        Vocabulary::new(texts.into(), Vec::new(), Vec::new(), "file", "tokens")
    }

    #[test]
    fn texts_lead_to_their_ids() {
        let texts: Vec<String> = (0..5000).map(|n| format!("t{n}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vocabulary = vocabulary(&texts).expect("a vocabulary");
        for (id, text) in (0..).zip(&texts) {
            assert_eq!(vocabulary.id(text), Some(id));
            assert_eq!(vocabulary.text(id), *text);
        }
        assert_eq!(vocabulary.id("t5000"), None);
        assert_eq!(vocabulary.id(""), None);
        assert_eq!(vocabulary.text(5000), "");
    }

    #[test]
    fn twins_are_refused_and_empty_texts_are_not() {
        assert!(vocabulary(&["", "a", ""]).is_ok());
        let twin = vocabulary(&["a", "b", "a"]).expect_err("a twin");
        assert_eq!(twin, Error::format("file", "tokens", "tokens 0 and 2 are both `a`"));
        assert!(vocabulary(&[]).is_err());
    }

    #[test]
    fn bytes_are_two_hexadecimal_digits() {
        assert_eq!(parse_byte("<0x0A>"), Some(10));
        assert_eq!(parse_byte("<0xff>"), Some(255));
        for text in ["<0x-1>", "<0x+1>", "<0x1>", "<0x123>", "0x12", "<0xé>", ""] {
            assert_eq!(parse_byte(text), None, "{text}");
        }
    }

    #[test]
    fn control_tokens_are_no_text() {
        let mut vocabulary = vocabulary(&["a", "<s>"]).expect("a vocabulary");
        vocabulary.set_kind(1, Kind::CONTROL);
        assert_eq!(vocabulary.kind(0), Kind::NORMAL);
        assert_eq!(vocabulary.id("<s>"), Some(1));
        assert_eq!(vocabulary.text_id("<s>"), None);
        assert_eq!(vocabulary.text_id("a"), Some(0));
    }
}

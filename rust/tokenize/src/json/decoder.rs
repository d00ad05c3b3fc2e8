//! The decoder of `tokenizer.json` as what each token adds to a text by itself.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokenizers::Result;

use crate::byte_level;
use crate::vocabulary::parse_byte;

/// What is done to a token's text; the steps of all decoders that are in use, in the order they are
/// used in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decoder {
    /// `<0xAB>` is a byte.
    byte_fallback: bool,
    /// Texts and what stands for them.
    replace: Vec<(String, String)>,
    /// Begins tokens that go on with a word; others get a blank.
    continuing_prefix: Option<String>,
    /// Blanks before punctuation are left out.
    cleanup: bool,
    /// Characters are bytes.
    byte_level: bool,
    /// Nothing joins tokens but a blank.
    joined_by_blank: bool,
    strips_leading_space: bool,
}

impl Default for Decoder {
    /// What is done where a file has no decoder.
    fn default() -> Self {
        Self { joined_by_blank: true, strips_leading_space: true, ..Self::EMPTY }
    }
}

impl Decoder {
    const EMPTY: Self = Self {
        byte_fallback: false,
        replace: Vec::new(),
        continuing_prefix: None,
        cleanup: false,
        byte_level: false,
        joined_by_blank: false,
        strips_leading_space: false,
    };

    /// Adds what one decoder does. It nests no deeper than the JSON that it came from.
    fn read(&mut self, value: &Value) {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        match text("type").unwrap_or("") {
            "Sequence" => {
                let inner = value.get("decoders").and_then(Value::as_array);
                inner.into_iter().flatten().for_each(|inner| self.read(inner));
            }
            "ByteLevel" => self.byte_level = true,
            "ByteFallback" => self.byte_fallback = true,
            "Metaspace" => {
                self.replace.push((text("replacement").unwrap_or("▁").to_owned(), " ".to_owned()));
                let never = text("prepend_scheme") == Some("never")
                    || value.get("add_prefix_space") == Some(&Value::Bool(false));
                self.strips_leading_space |= !never;
            }
            "WordPiece" => {
                self.continuing_prefix = Some(text("prefix").unwrap_or("##").to_owned());
                self.cleanup = value.get("cleanup") != Some(&Value::Bool(false));
                self.strips_leading_space = true;
            }
            "BPEDecoder" => self.replace.push((text("suffix").unwrap_or("</w>").to_owned(), " ".to_owned())),
            "Replace" => {
                let pattern =
                    value.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
                if let (Some(pattern), Some(content)) = (pattern, text("content")) {
                    self.replace.push((pattern.to_owned(), content.to_owned()));
                }
            }
            "Strip" => {
                let start = value.get("start").and_then(Value::as_u64).unwrap_or(0);
                self.strips_leading_space |= text("content") == Some(" ") && start > 0;
            }
            _ => {}
        }
    }

    /// Whether the text of a whole sequence loses a blank at its beginning.
    pub(crate) fn strips_leading_space(&self) -> bool {
        self.strips_leading_space
    }

    /// The bytes that a token adds to a text that has begun.
    pub(crate) fn bytes(&self, token: &str) -> Vec<u8> {
        if self.byte_fallback
            && let Some(byte) = parse_byte(token)
        {
            return vec![byte];
        }
        let mut text = token.to_owned();
        for (from, to) in self.replace.iter().filter(|(from, _)| !from.is_empty()) {
            text = text.replace(from, to);
        }
        if let Some(prefix) = &self.continuing_prefix {
            text = match text.strip_prefix(prefix.as_str()) {
                Some(rest) => rest.to_owned(),
                None => format!(" {text}"),
            };
        } else if self.joined_by_blank {
            text.insert(0, ' ');
        }
        if self.cleanup {
            text = clean_up(text);
        }
        if self.byte_level { byte_level::decode(&text) } else { text.into_bytes() }
    }
}

/// A word piece without the blank that stands before it only because it is a word of its own.
pub(crate) fn clean_up(piece: String) -> String {
    let joined = [" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're"];
    if joined.iter().any(|joined| piece == *joined) { piece[1..].to_owned() } else { piece }
}

impl<'de> Deserialize<'de> for Decoder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut decoder = Self::EMPTY;
        decoder.read(&Value::deserialize(deserializer)?);
        Ok(decoder)
    }
}

impl tokenizers::Decoder for Decoder {
    fn decode_chain(&self, tokens: Vec<String>) -> Result<Vec<String>> {
        let text = |token: &String| String::from_utf8_lossy(&self.bytes(token)).into_owned();
        Ok(tokens.iter().map(text).collect())
    }
}

//! Normalizers of `tokenizer.json`, looked over before the crate sees them.
//!
//! The crate takes the numbers of a precompiled map for good, as memory to reserve and as places to
//! read; a map that leads outside itself must not reach it, nor a replacement of nothing.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use tokenizers::{NormalizedString, NormalizerWrapper, Result};

use crate::models::CharsMap;

/// A normalizer that several pipelines share.
#[derive(Clone)]
pub(crate) struct Normalizer(Arc<NormalizerWrapper>);

impl<'de> Deserialize<'de> for Normalizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        check(&value).map_err(D::Error::custom)?;
        let normalizer = NormalizerWrapper::deserialize(value).map_err(D::Error::custom)?;
        Ok(Self(Arc::new(normalizer)))
    }
}

impl tokenizers::Normalizer for Normalizer {
    fn normalize(&self, text: &mut NormalizedString) -> Result<()> {
        self.0.normalize(text)
    }
}

/// Looks for maps and patterns in a normalizer. It nests no deeper than the JSON that it came from.
fn check(value: &Value) -> std::result::Result<(), &'static str> {
    for inner in value.get("normalizers").and_then(Value::as_array).into_iter().flatten() {
        check(inner)?;
    }
    if value.get("type").and_then(Value::as_str) == Some("Replace") {
        let pattern = value.get("pattern");
        let of = |kind: &str| pattern.and_then(|pattern| pattern.get(kind)).and_then(Value::as_str);
        // matched before every character, which the crate cannot do
        if of("String").or_else(|| of("Regex")) == Some("") {
            return Err("a normalizer that replaces an empty pattern");
        }
    }
    let Some(map) = value.get("precompiled_charsmap") else {
        let wanted = value.get("type").and_then(Value::as_str) == Some("Precompiled");
        return if wanted { Err("a normalizer without its `precompiled_charsmap`") } else { Ok(()) };
    };
    let bytes = map.as_str().and_then(decode_base64);
    let sound = bytes.and_then(|bytes| CharsMap::new(&bytes)).is_some_and(|map| map.is_sound());
    if sound { Ok(()) } else { Err("a `precompiled_charsmap` that leads outside itself") }
}

/// The bytes of base 64 with its padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let (quads, rest) = text.as_bytes().as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(quads.len() * 3);
    for (at, quad) in quads.iter().enumerate() {
        let last = at + 1 == quads.len();
        let padding = if last { quad.iter().rev().take_while(|&&c| c == b'=').count() } else { 0 };
        let mut bits = 0u32;
        for &c in &quad[..4 - padding.min(2)] {
            let six = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        bits <<= 6 * padding;
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn published_base64() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        for text in ["Z", "Zg=", "Zg==Zg==", "Z===", "====", "Zé=", "Zm 9"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }

    #[test]
    fn maps_are_checked_wherever_they_stand() {
        let nested = |map: &str| {
            json!({"type": "Sequence", "normalizers": [
                {"type": "NFC"}, {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": map}]},
            ]})
        };
        assert!(check(&nested("AAAA/wA=")).is_err());
        assert!(check(&nested("/////wA=")).is_err());
        assert!(check(&json!({"type": "Precompiled"})).is_err());
        assert!(check(&json!({"type": "NFC"})).is_ok());
    }
}

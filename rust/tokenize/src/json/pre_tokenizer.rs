//! Pre-tokenizers of `tokenizer.json`, their regular expressions run by this crate's engine.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};
use tokenizers::pattern::{Invert, Pattern as CratePattern};
use tokenizers::tokenizer::Offsets;
use tokenizers::{PreTokenizedString, PreTokenizerWrapper, Result, SplitDelimiterBehavior};

use crate::pattern::Pattern;

/// The words that a byte-level pre-tokenizer cuts unless told not to.
const BYTE_LEVEL_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Steps, each of which cuts what the one before left.
#[derive(Clone)]
pub(crate) struct PreTokenizer {
    steps: Arc<[Step]>,
}

enum Step {
    /// Cuts at a pattern.
    Split { pattern: Pattern, behavior: SplitDelimiterBehavior, invert: bool },
    /// Puts a blank before each part that has none.
    Prefix,
    /// One that needs no regular expression, or one that is not understood here.
    Other(PreTokenizerWrapper),
}

impl<'de> Deserialize<'de> for PreTokenizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut steps = Vec::new();
        read(Value::deserialize(deserializer)?, &mut steps).map_err(D::Error::custom)?;
        Ok(Self { steps: steps.into() })
    }
}

/// Appends the steps of one pre-tokenizer. It nests no deeper than the JSON that it came from.
fn read(mut value: Value, steps: &mut Vec<Step>) -> std::result::Result<(), serde_json::Error> {
    match value.get("type").and_then(Value::as_str) {
        Some("Sequence") => {
            let inner = value.get_mut("pretokenizers").map(Value::take);
            let Some(Value::Array(inner)) = inner else {
                return Err(serde_json::Error::custom("a sequence without `pretokenizers`"));
            };
            return inner.into_iter().try_for_each(|inner| read(inner, steps));
        }
        Some("Split") => {
            let regex = value.get("pattern").and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str);
            if let Some(pattern) = regex.and_then(|regex| Pattern::new(regex).ok()) {
                let behavior = value.get("behavior").cloned().unwrap_or(Value::Null);
                let invert = value.get("invert") == Some(&Value::Bool(true));
                let behavior = SplitDelimiterBehavior::deserialize(behavior)?;
                steps.push(Step::Split { pattern, behavior, invert });
                return Ok(());
            }
        }
        Some("ByteLevel") if value.get("use_regex") != Some(&Value::Bool(false)) => {
            if let Ok(pattern) = Pattern::new(BYTE_LEVEL_WORDS) {
                if value.get("add_prefix_space") != Some(&Value::Bool(false)) {
                    steps.push(Step::Prefix);
                }
                let behavior = SplitDelimiterBehavior::Isolated;
                steps.push(Step::Split { pattern, behavior, invert: false });
                value["add_prefix_space"] = json!(false);
                value["use_regex"] = json!(false);
            }
        }
        _ => {}
    }
    steps.push(Step::Other(PreTokenizerWrapper::deserialize(value)?));
    Ok(())
}

impl tokenizers::PreTokenizer for PreTokenizer {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<()> {
        for step in self.steps.iter() {
            match step {
                Step::Split { pattern, behavior, invert: false } => {
                    text.split(|_, part| part.split(pattern, *behavior))?;
                }
                Step::Split { pattern, behavior, invert: true } => {
                    text.split(|_, part| part.split(Invert(pattern), *behavior))?;
                }
                Step::Prefix => text.split(|_, mut part| {
                    if !part.get().starts_with(' ') {
                        part.prepend(" ");
                    }
                    Ok([part])
                })?,
                Step::Other(other) => other.pre_tokenize(text)?,
            }
        }
        Ok(())
    }
}

impl CratePattern for &Pattern {
    fn find_matches(&self, inside: &str) -> Result<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut parts = Vec::new();
        let mut end = 0;
        for (from, to) in self.matches(inside) {
            if from > end {
                parts.push(((end, from), false));
            }
            parts.push(((from, to), true));
            end = to;
        }
        if end < inside.len() {
            parts.push(((end, inside.len()), false));
        }
        Ok(parts)
    }
}

//! What a tokenizer puts before and behind a text: all that its post-processor means for one text.
//!
//! It is read here because the crate indexes the tokens that a template names without looking whether
//! the file has them.

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use tokenizers::{Encoding, PostProcessor, Result};

/// The ids before and behind a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Before it.
    pub(crate) before: Vec<u32>,
    /// Behind it.
    pub(crate) behind: Vec<u32>,
}

impl Frame {
    /// Puts another frame around this one.
    fn wrap(&mut self, outer: Self) {
        self.before.splice(0..0, outer.before);
        self.behind.extend(outer.behind);
    }

    /// Reads a post-processor. It nests no deeper than the JSON that it came from.
    fn read(value: &Value) -> std::result::Result<Self, String> {
        let part = |key: &str| value.get(key).ok_or_else(|| format!("a post-processor without `{key}`"));
        match part("type")?.as_str().unwrap_or("") {
            "ByteLevel" => Ok(Self::default()),
            "BertProcessing" | "RobertaProcessing" => {
                let token =
                    |key: &str| id_of(part(key)?.get(1)).ok_or_else(|| format!("`{key}` without an id"));
                Ok(Self { before: vec![token("cls")?], behind: vec![token("sep")?] })
            }
            "TemplateProcessing" => Self::read_template(part("single")?, part("special_tokens")?),
            "Sequence" => {
                let mut frame = Self::default();
                for processor in part("processors")?.as_array().into_iter().flatten() {
                    frame.wrap(Self::read(processor)?);
                }
                Ok(frame)
            }
            other => Err(format!("the post-processor `{other}` is not known")),
        }
    }

    fn read_template(single: &Value, tokens: &Value) -> std::result::Result<Self, String> {
        let mut frame = Self::default();
        let mut behind = false;
        for piece in single.as_array().ok_or("a template that is no list")? {
            if piece.get("Sequence").is_some() {
                behind = true;
                continue;
            }
            let name = piece.get("SpecialToken").and_then(|token| token.get("id")).and_then(Value::as_str);
            let name = name.ok_or("a template with a part that is neither text nor token")?;
            let ids = tokens.get(name).and_then(|token| token.get("ids")).and_then(Value::as_array);
            let ids: Option<Vec<u32>> = ids.and_then(|ids| ids.iter().map(|id| id_of(Some(id))).collect());
            let ids = ids.ok_or_else(|| format!("a template with `{name}`, which has no ids"))?;
            if behind { frame.behind.extend(ids) } else { frame.before.extend(ids) }
        }
        if behind { Ok(frame) } else { Err("a template that drops the text".to_owned()) }
    }
}

fn id_of(value: Option<&Value>) -> Option<u32> {
    u32::try_from(value?.as_u64()?).ok()
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::read(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl PostProcessor for Frame {
    fn added_tokens(&self, _is_pair: bool) -> usize {
        self.before.len() + self.behind.len()
    }

    /// Texts are encoded without what is around them.
    fn process_encodings(&self, encodings: Vec<Encoding>, _add_special: bool) -> Result<Vec<Encoding>> {
        Ok(encodings)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn frames_of_all_post_processors() {
        let frame =
            |before: &[u32], behind: &[u32]| Ok(Frame { before: before.into(), behind: behind.into() });
        let template = json!({
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "a", "type_id": 0}}, {"SpecialToken": {"id": "b", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "a", "type_id": 0}},
            ],
            "special_tokens": {"a": {"id": "a", "ids": [7], "tokens": ["a"]}, "b": {"ids": [8, 9]}},
        });
        assert_eq!(Frame::read(&template), frame(&[7, 8, 9], &[7]));
        let bert = json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]});
        assert_eq!(Frame::read(&bert), frame(&[2], &[3]));
        let both = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, bert, template]});
        assert_eq!(Frame::read(&both), frame(&[7, 8, 9, 2], &[3, 7]));
        for bad in [
            json!(5),
            json!({"type": "Nosuch"}),
            json!({"type": "BertProcessing", "sep": ["a"], "cls": ["b", -1]}),
            json!({"type": "TemplateProcessing", "single": [], "special_tokens": {}}),
            json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}], "special_tokens": {}}),
        ] {
            assert!(Frame::read(&bad).is_err(), "{bad}");
        }
    }
}

//! One configuration value, whichever file it comes from.

use alloyforge_types::{MetaArray, MetaValue};
use serde_json::Value;

/// A value borrowed from `config.json` or from GGUF metadata.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    /// From JSON; never null.
    Json(&'a Value),
    /// From GGUF metadata.
    Meta(&'a MetaValue),
    /// An integer out of an array.
    Integer(i128),
    /// A float out of an array.
    Float(f64),
    /// A boolean out of an array.
    Bool(bool),
    /// A string out of an array.
    Text(&'a str),
    /// An array out of an array, which no key has.
    Nested,
}

impl<'a> Item<'a> {
    /// As an integer; a float without a fraction counts, because JSON does not tell them apart.
    pub(super) fn integer(self) -> Option<i128> {
        match self {
            Self::Json(Value::Number(n)) => n
                .as_u64()
                .map(i128::from)
                .or_else(|| n.as_i64().map(i128::from))
                .or_else(|| whole(n.as_f64()?)),
            Self::Meta(MetaValue::U64(n)) => Some((*n).into()),
            Self::Meta(MetaValue::I64(n)) => Some((*n).into()),
            Self::Integer(n) => Some(n),
            _ => None,
        }
    }

    /// As a number.
    pub(super) fn number(self) -> Option<f64> {
        match self {
            Self::Json(Value::Number(n)) => n.as_f64(),
            Self::Meta(MetaValue::F64(x)) => Some(*x),
            Self::Float(x) => Some(x),
            _ => self.integer().map(|n| n as f64),
        }
    }

    /// As a boolean.
    pub(super) fn bool(self) -> Option<bool> {
        match self {
            Self::Json(Value::Bool(b)) | Self::Meta(MetaValue::Bool(b)) => Some(*b),
            Self::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// As a string.
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Json(Value::String(s)) => Some(s),
            Self::Meta(MetaValue::Str(s)) => Some(s),
            Self::Text(s) => Some(s),
            _ => None,
        }
    }

    /// Elements, where it is a list.
    pub(super) fn len(self) -> Option<usize> {
        match self {
            Self::Json(Value::Array(a)) => Some(a.len()),
            Self::Meta(MetaValue::Array(a)) => Some(a.len()),
            _ => None,
        }
    }

    /// Element `i`, where it is a list that long.
    pub(super) fn at(self, i: usize) -> Option<Item<'a>> {
        match self {
            Self::Json(Value::Array(a)) => a.get(i).map(Item::Json),
            Self::Meta(MetaValue::Array(a)) => match a {
                MetaArray::U64(a) => a.get(i).map(|&n| Item::Integer(n.into())),
                MetaArray::I64(a) => a.get(i).map(|&n| Item::Integer(n.into())),
                MetaArray::F32(a) => a.get(i).map(|&x| Item::Float(x.into())),
                MetaArray::F64(a) => a.get(i).map(|&x| Item::Float(x)),
                MetaArray::Bool(a) => a.get(i).map(|&b| Item::Bool(b)),
                MetaArray::Str(a) => a.get(i).map(|s| Item::Text(s)),
                MetaArray::Array(a) => a.get(i).map(|_| Item::Nested),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it switches nothing on: false, zero, an empty text, list or object.
    pub(super) fn is_off(self) -> bool {
        match self {
            Self::Json(Value::Object(o)) => o.is_empty(),
            _ => {
                self.bool() == Some(false)
                    || self.number() == Some(0.0)
                    || self.text() == Some("")
                    || self.len() == Some(0)
            }
        }
    }

    /// Its text for an error message, cut where it is long.
    pub(super) fn shown(self) -> String {
        const MOST: usize = 60;
        let text = match self {
            Self::Json(value) => value.to_string(),
            Self::Meta(MetaValue::Array(a)) => format!("an array of {}", a.len()),
            Self::Nested => "an array".to_owned(),
            _ => match (self.text(), self.bool(), self.integer(), self.number()) {
                (Some(s), ..) => format!("\"{s}\""),
                (_, Some(b), ..) => b.to_string(),
                (_, _, Some(n), _) => n.to_string(),
                (.., Some(x)) => x.to_string(),
                _ => "a value of another kind".to_owned(),
            },
        };
        match text.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// `x` as an integer, where it is one that doubles tell apart from its neighbours.
fn whole(x: f64) -> Option<i128> {
    (x.fract() == 0.0 && x.abs() < (1u64 << 53) as f64).then_some(x as i128)
}

//! JSON: what a caller passes in, and what `tojson` writes.

use std::rc::Rc;

use indexmap::IndexMap;
use serde_json::Value as Json;

use crate::args::Args;
use crate::budget::{Budget, MAX_NESTING};
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::value::{Buf, Dict, Key, Text, Value, float_repr, write_repr};

/// A caller's value as a template's.
pub(crate) fn from_json(budget: &Rc<Budget>, json: &Json, depth: usize) -> Outcome<Value> {
    if depth > MAX_NESTING {
        fail!("a variable is nested more than {MAX_NESTING} deep");
    }
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i128() {
            Some(value) => Value::Int(value),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Str(Text::from_caller(budget, text)?),
        Json::Array(items) => {
            let items = items.iter().map(|item| from_json(budget, item, depth + 1));
            Value::list(budget, items.collect::<Outcome<_>>()?)?
        }
        Json::Object(map) => {
            let mut entries = IndexMap::with_capacity(map.len());
            for (key, value) in map {
                let key = Value::Str(Text::from_caller(budget, key)?);
                entries.insert(Key::new(budget, key)?, from_json(budget, value, depth + 1)?);
            }
            Value::Dict(Dict::new(budget, entries)?)
        }
    })
}

/// How `tojson` writes.
struct Style {
    is_ascii: bool,
    /// One level of indentation; `None`: all on one line.
    indent: Option<Text>,
    item_separator: Text,
    key_separator: Text,
    sorts_keys: bool,
}

/// `tojson` as transformers defines it: `json.dumps` without HTML's escapes.
pub(crate) fn to_json(interp: &mut Interp<'_>, value: &Value, args: Args) -> Outcome<Value> {
    let [is_ascii, indent, separators, sorts_keys] =
        args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"], 0)?;
    let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(indent)) => Some(indent),
        Some(width) => {
            let width = usize::try_from(width.as_index()?.max(0)).unwrap_or(usize::MAX);
            let mut buf = interp.buf();
            buf.push_times(" ", width)?;
            Some(buf.finish()?)
        }
    };
    let (item_separator, key_separator) = match separators {
        None | Some(Value::None) => {
            let item_separator = if indent.is_some() { "," } else { ", " };
            (Text::new(&interp.budget, item_separator)?, Text::new(&interp.budget, ": ")?)
        }
        Some(pair) => match interp.items(&pair)?.as_slice() {
            [Value::Str(item), Value::Str(key)] => (item.clone(), key.clone()),
            _ => fail!("separators must be a pair of strings"),
        },
    };
    let style = Style {
        is_ascii: truth(is_ascii),
        indent,
        item_separator,
        key_separator,
        sorts_keys: truth(sorts_keys),
    };
    let mut out = interp.buf();
    style.write(interp, &mut out, value, 0)?;
    Ok(Value::Str(out.finish()?))
}

impl Style {
    fn write(&self, interp: &mut Interp<'_>, out: &mut Buf, value: &Value, depth: usize) -> Outcome<()> {
        match value {
            Value::None => out.push("null"),
            Value::Bool(true) => out.push("true"),
            Value::Bool(false) => out.push("false"),
            Value::Int(value) => out.push(&value.to_string()),
            Value::Float(value) => out.push(&json_float(*value)),
            Value::Str(text) => self.string(out, text),
            Value::List(seq) | Value::Tuple(seq) => {
                if seq.items().is_empty() {
                    return out.push("[]");
                }
                out.push("[")?;
                for (i, item) in seq.items().iter().enumerate() {
                    self.separate(out, i, depth + 1)?;
                    self.write(interp, out, item, depth + 1)?;
                }
                self.newline(out, depth)?;
                out.push("]")
            }
            Value::Dict(dict) => {
                if dict.len() == 0 {
                    return out.push("{}");
                }
                let mut entries: Vec<(&Value, &Value)> =
                    dict.entries().iter().map(|(key, value)| (key.value(), value)).collect();
                if self.sorts_keys {
                    interp.sort_by(&mut entries, |(key, _)| key)?;
                }
                out.push("{")?;
                for (i, (key, value)) in entries.into_iter().enumerate() {
                    self.separate(out, i, depth + 1)?;
                    self.key(out, key)?;
                    out.push(&self.key_separator)?;
                    self.write(interp, out, value, depth + 1)?;
                }
                self.newline(out, depth)?;
                out.push("}")
            }
            other => fail!("Object of type {} is not JSON serializable", other.type_name()),
        }
    }

    fn separate(&self, out: &mut Buf, index: usize, depth: usize) -> Outcome<()> {
        if index > 0 {
            out.push(&self.item_separator)?;
        }
        self.newline(out, depth)
    }

    fn newline(&self, out: &mut Buf, depth: usize) -> Outcome<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.push("\n")?;
        out.push_times(indent, depth)
    }

    fn key(&self, out: &mut Buf, key: &Value) -> Outcome<()> {
        match key {
            Value::Str(text) => self.string(out, text),
            Value::None => out.push("\"null\""),
            Value::Bool(value) => out.push(if *value { "\"true\"" } else { "\"false\"" }),
            Value::Float(value) => self.string(out, &json_float(*value)),
            Value::Int(_) => {
                out.push("\"")?;
                write_repr(out, key)?;
                out.push("\"")
            }
            other => fail!("keys must be str, int, float, bool or None, not {}", other.type_name()),
        }
    }

    fn string(&self, out: &mut Buf, text: &str) -> Outcome<()> {
        out.push("\"")?;
        // Everything up to `start` has been written.
        let mut start = 0;
        for (at, c) in text.char_indices() {
            let escape = match c {
                '"' => "\\\"".to_string(),
                '\\' => "\\\\".to_string(),
                '\n' => "\\n".to_string(),
                '\r' => "\\r".to_string(),
                '\t' => "\\t".to_string(),
                '\x08' => "\\b".to_string(),
                '\x0c' => "\\f".to_string(),
                c if c < ' ' => format!("\\u{:04x}", c as u32),
                c if self.is_ascii && !(' '..='~').contains(&c) => {
                    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                }
                _ => continue,
            };
            out.push(&text[start..at])?;
            out.push(&escape)?;
            start = at + c.len_utf8();
        }
        out.push(&text[start..])?;
        out.push("\"")
    }
}

fn json_float(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => float_repr(value),
    }
}

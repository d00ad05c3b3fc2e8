//! Python's `str` and `repr`.

use super::{Buf, Object, Value, ViewKind};
use crate::fault::{Outcome, fail};
use crate::unicode::is_printable;

/// How deep `repr` follows values; a namespace may hold itself.
const MAX_REPR_DEPTH: usize = 400;

/// Appends `str(value)`.
pub(crate) fn write_str(out: &mut Buf, value: &Value) -> Outcome<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Str(text) => out.push(text),
        other => write_repr(out, other),
    }
}

/// Appends `repr(value)`.
pub(crate) fn write_repr(out: &mut Buf, value: &Value) -> Outcome<()> {
    repr_at(out, value, 0)
}

fn repr_at(out: &mut Buf, value: &Value, depth: usize) -> Outcome<()> {
    if depth > MAX_REPR_DEPTH {
        fail!("maximum recursion depth exceeded while getting the repr of an object");
    }
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(value) => out.push(&value.to_string()),
        Value::Float(value) => out.push(&float_repr(*value)),
        Value::Str(text) if text.is_markup() => {
            out.push("Markup(")?;
            str_repr(text, &mut |piece| out.push(piece))?;
            out.push(")")
        }
        Value::Str(text) => str_repr(text, &mut |piece| out.push(piece)),
        Value::List(seq) => {
            out.push("[")?;
            list_at(out, seq.items().iter(), depth)?;
            out.push("]")
        }
        Value::Tuple(seq) => {
            out.push("(")?;
            list_at(out, seq.items().iter(), depth)?;
            out.push(if seq.items().len() == 1 { ",)" } else { ")" })
        }
        Value::Dict(dict) => {
            let entries = dict.entries().iter().map(|(key, value)| (key.value(), value));
            dict_at(out, entries, depth)
        }
        Value::Range(range) if range.step == 1 => {
            out.push(&format!("range({}, {})", range.start, range.stop))
        }
        Value::Range(range) => out.push(&format!("range({}, {}, {})", range.start, range.stop, range.step)),
        Value::Object(object) => object_at(out, object, depth),
    }
}

fn list_at<'a>(out: &mut Buf, items: impl Iterator<Item = &'a Value>, depth: usize) -> Outcome<()> {
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(", ")?;
        }
        repr_at(out, item, depth + 1)?;
    }
    Ok(())
}

fn dict_at<'a>(
    out: &mut Buf,
    entries: impl Iterator<Item = (&'a Value, &'a Value)>,
    depth: usize,
) -> Outcome<()> {
    out.push("{")?;
    for (i, (key, value)) in entries.enumerate() {
        if i > 0 {
            out.push(", ")?;
        }
        repr_at(out, key, depth + 1)?;
        out.push(": ")?;
        repr_at(out, value, depth + 1)?;
    }
    out.push("}")
}

fn object_at(out: &mut Buf, object: &Object, depth: usize) -> Outcome<()> {
    match object {
        Object::View(view) => {
            out.push(object.type_name())?;
            out.push("([")?;
            for (i, (key, value)) in view.dict.entries().iter().enumerate() {
                if i > 0 {
                    out.push(", ")?;
                }
                match view.kind {
                    ViewKind::Keys => repr_at(out, key.value(), depth + 1)?,
                    ViewKind::Values => repr_at(out, value, depth + 1)?,
                    ViewKind::Items => {
                        out.push("(")?;
                        list_at(out, [key.value(), value].into_iter(), depth + 1)?;
                        out.push(")")?;
                    }
                }
            }
            out.push("])")
        }
        Object::Namespace(namespace) => {
            out.push("<Namespace {")?;
            // A copy of the pairs, for a stream among them could write while it is read.
            let attrs: Vec<_> =
                namespace.attrs.borrow().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            for (i, (name, value)) in attrs.iter().enumerate() {
                if i > 0 {
                    out.push(", ")?;
                }
                str_repr(name, &mut |piece| out.push(piece))?;
                out.push(": ")?;
                repr_at(out, value, depth + 1)?;
            }
            out.push("}>")
        }
        Object::Macro(value) => {
            out.push("<Macro ")?;
            match &value.def.name {
                Some(name) => str_repr(name, &mut |piece| out.push(piece))?,
                None => out.push("anonymous")?,
            }
            out.push(">")
        }
        Object::Loop(state) => {
            let len = state.len.get().map_or("?".into(), |len| len.to_string());
            out.push(&format!("<LoopContext {}/{len}>", state.index0.get() + 1))
        }
        Object::Method(method) => {
            let owner = method.receiver.type_name();
            out.push(&format!("<built-in method {} of {owner} object>", method.name))
        }
        other => out.push(&format!("<{} object>", other.type_name())),
    }
}

/// Gives `repr` of a string to `push`, piece by piece.
pub(crate) fn str_repr(text: &str, push: &mut dyn FnMut(&str) -> Outcome<()>) -> Outcome<()> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut utf8 = [0; 4];
    push(quote.encode_utf8(&mut utf8))?;
    // Everything up to `start` has been given.
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let escape = match c {
            '\\' => "\\\\".to_string(),
            '\n' => "\\n".to_string(),
            '\r' => "\\r".to_string(),
            '\t' => "\\t".to_string(),
            c if c == quote => format!("\\{c}"),
            c if is_printable(c) => continue,
            c if (c as u32) < 0x100 => format!("\\x{:02x}", c as u32),
            c if (c as u32) < 0x10000 => format!("\\u{:04x}", c as u32),
            c => format!("\\U{:08x}", c as u32),
        };
        push(&text[start..at])?;
        push(&escape)?;
        start = at + c.len_utf8();
    }
    push(&text[start..])?;
    push(quote.encode_utf8(&mut utf8))
}

/// `repr` of a float: the shortest digits that give it back, an exponent below 1e-4 and from 1e16.
pub(crate) fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let plain = value.abs();
    if plain != 0.0 && !(1e-4..1e16).contains(&plain) {
        // Rust writes 1e16 and 1.5e-7; Python 1e+16 and 1.5e-07.
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let text = format!("{value}");
    if text.contains('.') { text } else { text + ".0" }
}

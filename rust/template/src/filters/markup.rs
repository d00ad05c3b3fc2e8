//! Filters for HTML and URLs, which a prompt hardly needs.
//!
//! jinja2 marks what `escape` and `safe` give as `Markup`, which then escapes what is added to it.

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Fault, Outcome, fail};
use crate::unicode::is_space;
use crate::value::{Buf, Text, Value, quoted};

fn push_escaped(out: &mut Buf, text: &str) -> Outcome<()> {
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let escape = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&#34;",
            '\'' => "&#39;",
            _ => continue,
        };
        out.push(&text[start..at])?;
        out.push(escape)?;
        start = at + 1;
    }
    out.push(&text[start..])
}

/// The value as `Markup`, escaped unless it is already.
pub(crate) fn escaped(interp: &Interp<'_>, value: &Value) -> Outcome<Text> {
    let text = interp.str_of(value)?;
    if text.is_markup() {
        return Ok(text);
    }
    let mut out = interp.buf();
    push_escaped(&mut out, &text)?;
    Ok(out.finish()?.with_markup(true))
}

pub(super) fn escape(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("escape")?;
    Ok(Value::Str(escaped(interp, &value)?))
}

pub(super) fn force_escape(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("forceescape")?;
    let text = interp.str_of(&value)?.with_markup(false);
    Ok(Value::Str(escaped(interp, &Value::Str(text))?))
}

pub(super) fn safe(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("safe")?;
    Ok(Value::Str(interp.str_of(&value)?.with_markup(true)))
}

pub(super) fn xml_attr(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [space] = args.bind("xmlattr", ["autospace"], 0)?;
    let has_space = space.is_none_or(|space| space.truth());
    let dict = match &value {
        Value::Dict(dict) => dict,
        Value::Undefined(missing) => return Err(missing.fault()),
        other => fail!("'{}' object has no attribute 'items'", other.type_name()),
    };
    let mut out = interp.buf();
    for (key, value) in dict.entries() {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let key = key.value().as_text("an attribute's name")?;
        if key.contains(|c: char| matches!(c, '/' | '>' | '=') || c.is_ascii_whitespace() || c == '\x0b') {
            return Err(Fault::new(format!("Invalid character in attribute name: {}", quoted(key))));
        }
        if has_space || !out.as_str().is_empty() {
            out.push(" ")?;
        }
        push_escaped(&mut out, key)?;
        out.push("=\"")?;
        let value = escaped(interp, value)?;
        out.push(&value)?;
        out.push("\"")?;
    }
    Ok(Value::Str(out.finish()?))
}

fn push_quoted(out: &mut Buf, text: &str, is_query: bool) -> Outcome<()> {
    out.work(text.len())?;
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push_char(char::from(byte))?;
            }
            b'/' if !is_query => out.push("/")?,
            b' ' if is_query => out.push("+")?,
            other => out.push(&format!("%{other:02X}"))?,
        }
    }
    Ok(())
}

pub(super) fn url_encode(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("urlencode")?;
    let mut out = interp.buf();
    let pairs = match &value {
        Value::Dict(dict) => {
            let pairs = dict.entries().iter();
            pairs.map(|(key, value)| vec![key.value().clone(), value.clone()]).collect()
        }
        Value::List(_) | Value::Tuple(_) | Value::Object(_) => {
            let mut pairs = Vec::new();
            for pair in interp.items(&value)? {
                pairs.push(interp.items(&pair)?);
            }
            pairs
        }
        other => {
            let text = interp.str_of(other)?;
            push_quoted(&mut out, &text, false)?;
            return Ok(Value::Str(out.finish()?));
        }
    };
    for (i, pair) in pairs.iter().enumerate() {
        let [key, value] = pair.as_slice() else { fail!("urlencode wants pairs, got {} values", pair.len()) };
        if i > 0 {
            out.push("&")?;
        }
        let (key, value) = (interp.str_of(key)?, interp.str_of(value)?);
        push_quoted(&mut out, &key, true)?;
        out.push("=")?;
        push_quoted(&mut out, &value, true)?;
    }
    Ok(Value::Str(out.finish()?))
}

pub(super) fn strip_tags(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("striptags")?;
    let text = interp.str_of(&value)?;
    let text = without(interp, &text, "<!--", "-->")?;
    let text = without(interp, text.as_str(), "<", ">")?;
    let mut out = interp.buf();
    for (i, word) in text.as_str().split(is_space).filter(|word| !word.is_empty()).enumerate() {
        if i > 0 {
            out.push(" ")?;
        }
        push_unescaped(&mut out, word)?;
    }
    Ok(Value::Str(out.finish()?))
}

/// The text less everything from `open` to `close`.
fn without(interp: &Interp<'_>, text: &str, open: &str, close: &str) -> Outcome<Buf> {
    let mut out = interp.buf();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once(open) {
        let Some((_, after)) = tail.split_once(close) else { break };
        out.push(head)?;
        rest = after;
    }
    out.push(rest)?;
    Ok(out)
}

/// Longest name of a character reference.
const MAX_REFERENCE: usize = 32;

/// The commonest of HTML's character references.
fn push_unescaped(out: &mut Buf, text: &str) -> Outcome<()> {
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('&') {
        out.push(head)?;
        let end = tail.bytes().take(MAX_REFERENCE).position(|c| c == b';');
        let (name, after) = end.map_or(("", tail), |end| (&tail[..end], &tail[end + 1..]));
        let code = match name.strip_prefix('#') {
            Some(hex) if hex.starts_with(['x', 'X']) => u32::from_str_radix(&hex[1..], 16).ok(),
            Some(decimal) => decimal.parse().ok(),
            None => None,
        };
        let c = match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "nbsp" => Some('\u{a0}'),
            _ => code.and_then(char::from_u32),
        };
        match c {
            Some(c) => {
                out.push_char(c)?;
                rest = after;
            }
            None => {
                out.push("&")?;
                rest = tail;
            }
        }
    }
    out.push(rest)
}

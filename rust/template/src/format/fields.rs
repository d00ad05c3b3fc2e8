//! `str.format`.

use super::formatted;
use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::filters::escaped;
use crate::value::{Buf, Text, Value, quoted, write_repr};

/// `text.format(...)`.
pub(crate) fn format_fields(interp: &mut Interp<'_>, text: &Text, args: &Args) -> Outcome<Text> {
    let mut out = interp.buf();
    let mut fields = Fields { args, auto: Some(0), escapes: text.is_markup() };
    fields.write(interp, &mut out, text, 3)?;
    Ok(out.finish()?.with_markup(text.is_markup()))
}

/// The fields of one call of `format`.
struct Fields<'a> {
    args: &'a Args,
    /// Counts fields without a number; `None` once one had its own.
    auto: Option<usize>,
    /// Whether the format is `Markup`, which escapes what it is given.
    escapes: bool,
}

impl Fields<'_> {
    /// Fields in specifications may nest `depth` deep.
    fn write(&mut self, interp: &mut Interp<'_>, out: &mut Buf, text: &str, depth: usize) -> Outcome<()> {
        if depth == 0 {
            fail!("Max string recursion exceeded");
        }
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            out.push(&rest[..at])?;
            let (brace, tail) = rest[at..].split_at(1);
            if let Some(tail) = tail.strip_prefix(brace) {
                out.push(brace)?;
                rest = tail;
                continue;
            }
            if brace == "}" {
                fail!("Single '}}' encountered in format string");
            }
            let mut open = 1;
            let close = tail.find(|c| {
                open += match c {
                    '{' => 1,
                    '}' => -1,
                    _ => 0,
                };
                open == 0
            });
            let Some(close) = close else { fail!("expected '}}' before end of string") };
            self.field(interp, out, &tail[..close], depth)?;
            rest = &tail[close + 1..];
        }
        out.push(rest)
    }

    fn field(&mut self, interp: &mut Interp<'_>, out: &mut Buf, field: &str, depth: usize) -> Outcome<()> {
        // A `:` or `!` inside brackets belongs to the name.
        let mut is_inside = false;
        let end = field.find(|c| {
            match c {
                '[' => is_inside = true,
                ']' => is_inside = false,
                _ => {}
            }
            !is_inside && matches!(c, ':' | '!')
        });
        let (name, rest) = field.split_at(end.unwrap_or(field.len()));
        let value = self.lookup(interp, name)?;
        let (conversion, spec) = match rest.strip_prefix('!') {
            Some(rest) => {
                let mut chars = rest.chars();
                let conversion = chars.next();
                match chars.as_str() {
                    "" => (conversion, ""),
                    rest => match rest.strip_prefix(':') {
                        Some(spec) => (conversion, spec),
                        None => fail!("expected ':' after conversion specifier"),
                    },
                }
            }
            None => (None, rest.strip_prefix(':').unwrap_or("")),
        };
        let value = match conversion {
            None => value,
            Some('s') => Value::Str(interp.str_of(&value)?),
            Some('r' | 'a') => {
                let mut repr = interp.buf();
                write_repr(&mut repr, &value)?;
                Value::Str(repr.finish()?)
            }
            Some(other) => fail!("Unknown conversion specifier '{other}'"),
        };
        let mut filled = interp.buf();
        self.write(interp, &mut filled, spec, depth - 1)?;
        let is_markup = matches!(&value, Value::Str(text) if text.is_markup());
        if !self.escapes || is_markup {
            return formatted(out, &value, filled.as_str());
        }
        let mut inner = interp.buf();
        formatted(&mut inner, &value, filled.as_str())?;
        out.push(&escaped(interp, &Value::Str(inner.finish()?))?)
    }

    /// What a field's name stands for: `0`, `name`, `0.attr`, `name[item]`.
    fn lookup(&mut self, interp: &mut Interp<'_>, name: &str) -> Outcome<Value> {
        let args = self.args;
        let (first, mut rest) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
        let position = |index: usize| match args.args.get(index) {
            Some(value) => Ok(value.clone()),
            None => fail!("Replacement index {index} out of range for positional args tuple"),
        };
        let mut value = if first.is_empty() {
            let Some(index) = self.auto else {
                fail!("cannot switch from manual field specification to automatic field numbering");
            };
            self.auto = Some(index + 1);
            position(index)?
        } else if first.bytes().all(|c| c.is_ascii_digit()) {
            if matches!(self.auto, Some(count) if count > 0) {
                fail!("cannot switch from automatic field numbering to manual field specification");
            }
            self.auto = None;
            position(first.parse().unwrap_or(usize::MAX))?
        } else {
            match args.kwargs.iter().find(|(known, _)| **known == *first) {
                Some((_, value)) => value.clone(),
                None => fail!("{}", quoted(first)),
            }
        };
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix('.') {
                let (attr, tail) = tail.split_at(tail.find(['.', '[']).unwrap_or(tail.len()));
                value = interp.get_attr(&value, attr)?;
                rest = tail;
            } else if let Some((item, tail)) = rest[1..].split_once(']') {
                let item = match item.parse::<i128>() {
                    Ok(index) if !item.starts_with(['-', '+']) => Value::Int(index),
                    _ => interp.new_text(item)?,
                };
                value = interp.get_item(&value, &item)?;
                rest = tail;
            } else {
                fail!("expected ']' before end of string");
            }
        }
        Ok(value)
    }
}

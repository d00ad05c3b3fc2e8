//! `str % values`.

use super::{MAX_PRECISION, MAX_WIDTH, Spec};
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::filters::escaped;
use crate::strings::Scan;
use crate::value::{Buf, Text, Value, quoted, write_repr, write_str};

/// `text % values`.
pub(crate) fn percent(interp: &mut Interp<'_>, text: &Text, values: &Value) -> Outcome<Text> {
    let escapes = text.is_markup();
    let mut out = interp.buf();
    let mut next = match values {
        Value::Tuple(seq) => seq.items().iter(),
        other => std::slice::from_ref(other).iter(),
    };
    let mut is_mapped = false;
    let mut rest = text.as_str();
    while let Some((head, tail)) = rest.split_once('%') {
        out.push(head)?;
        let mut tail = tail;
        let mut named = None;
        if let Some(name) = tail.strip_prefix('(') {
            let Some((name, after)) = name.split_once(')') else { fail!("incomplete format key") };
            let Value::Dict(dict) = values else { fail!("format requires a mapping") };
            named = match dict.get_str(name) {
                Some(value) => Some(value.clone()),
                None => fail!("{}", quoted(name)),
            };
            is_mapped = true;
            tail = after;
        }
        let mut chars = Scan { rest: tail };
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | ' ' | '0' | '#')) {
            match flag {
                '-' => spec.align = Some('<'),
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '0' => spec.is_zero = true,
                _ => spec.is_alternate = true,
            }
        }
        let take = |next: &mut std::slice::Iter<'_, Value>| match next.next() {
            Some(value) => Ok(value.clone()),
            None => fail!("not enough arguments for format string"),
        };
        let mut size = |chars: &mut Scan<'_>, most: usize| {
            if chars.next_if(|c| c == '*').is_none() {
                return chars.number(most);
            }
            match usize::try_from(take(&mut next)?.as_index()?) {
                Ok(size) if size <= most => Ok(Some(size)),
                _ => fail!("a width or precision of a format is out of range"),
            }
        };
        spec.width = size(&mut chars, MAX_WIDTH)?.unwrap_or(0);
        if chars.next_if(|c| c == '.').is_some() {
            spec.precision = Some(size(&mut chars, MAX_PRECISION)?.unwrap_or(0));
        }
        while chars.next_if(|c| matches!(c, 'h' | 'l' | 'L')).is_some() {}
        let Some(kind) = chars.next() else { fail!("incomplete format") };
        if kind == '%' {
            out.push("%")?;
        } else {
            let value = match named {
                Some(value) => value,
                None => take(&mut next)?,
            };
            let value = match kind {
                's' | 'r' | 'a' if escapes => Value::Str(escaped(interp, &value)?.with_markup(false)),
                _ => value,
            };
            percent_value(interp, &mut out, spec, kind, &value)?;
        }
        rest = chars.rest;
    }
    out.push(rest)?;
    let is_all_used = next.next().is_none() || is_mapped;
    if !is_all_used && !has_items(values) {
        fail!("not all arguments converted during string formatting");
    }
    Ok(out.finish()?.with_markup(escapes))
}

/// Whether Python lets `%` leave the value unused: it could be a mapping.
fn has_items(value: &Value) -> bool {
    matches!(value, Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_))
}

fn percent_value(
    interp: &mut Interp<'_>,
    out: &mut Buf,
    mut spec: Spec,
    kind: char,
    value: &Value,
) -> Outcome<()> {
    match kind {
        's' | 'r' | 'a' => {
            let mut text = interp.buf();
            if kind == 's' {
                write_str(&mut text, value)?
            } else {
                write_repr(&mut text, value)?
            }
            spec.is_zero = false;
            spec.align = spec.align.or(Some('>'));
            spec.text(out, text.as_str())
        }
        'c' => match value {
            Value::Str(text) if text.chars_len() == 1 => {
                spec.align = spec.align.or(Some('>'));
                spec.text(out, text)
            }
            Value::Int(_) => {
                spec.kind = Some('c');
                spec.align = spec.align.or(Some('>'));
                spec.apply(out, value)
            }
            _ => fail!("%c requires int or char"),
        },
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
            let value = match value {
                Value::Int(value) => *value,
                Value::Bool(value) => (*value).into(),
                Value::Float(value) if matches!(kind, 'd' | 'i' | 'u') && value.abs() < 1e38 => {
                    *value as i128
                }
                Value::Undefined(missing) => return Err(missing.fault()),
                other => {
                    fail!("%{kind} format: a real number is required, not {}", other.type_name())
                }
            };
            // A precision is a least count of digits here.
            let digits = spec.precision.take();
            spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
            match digits {
                None => spec.int(out, value),
                Some(digits) => {
                    let mut inner = Buf::new(&interp.budget);
                    let plain = Spec { kind: spec.kind, ..Spec::default() };
                    plain.int(&mut inner, value.checked_abs().unwrap_or(i128::MAX))?;
                    let text = inner.as_str();
                    let padded = "0".repeat(digits.saturating_sub(text.len())) + text;
                    spec.pad_number(out, value < 0, "", &padded)
                }
            }
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let value = match value {
                Value::Int(value) => *value as f64,
                Value::Bool(value) => f64::from(u8::from(*value)),
                Value::Float(value) => *value,
                Value::Undefined(missing) => return Err(missing.fault()),
                other => fail!("must be real number, not {}", other.type_name()),
            };
            spec.kind = Some(kind);
            spec.float(out, value)
        }
        other => fail!("unsupported format character '{other}'"),
    }
}

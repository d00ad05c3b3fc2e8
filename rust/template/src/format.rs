//! Python's three ways of formatting: `str.format`, `str % values`, and the format specification
//! that the first one uses.

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::filters::escaped;
use crate::strings::Scan;
use crate::value::{Buf, Text, Value, float_repr, quoted, write_repr, write_str};

/// Widest field and longest fraction: what is wider is an attack, and what is longer has no digits.
const MAX_WIDTH: usize = 1 << 20;
const MAX_PRECISION: usize = 1100;

/// A format specification, `[[fill]align][sign][#][0][width][,][.precision][type]`.
#[derive(Debug, Clone, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    is_alternate: bool,
    is_zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(text: &str) -> Outcome<Self> {
        let mut spec = Self::default();
        let mut chars = Scan { rest: text };
        let is_align = |c: char| matches!(c, '<' | '>' | '^' | '=');
        let mut ahead = text.chars();
        if let (Some(fill), Some(align)) = (ahead.next(), ahead.next())
            && is_align(align)
        {
            (spec.fill, spec.align) = (Some(fill), Some(align));
            chars.next();
            chars.next();
        } else if let Some(align) = chars.next_if(is_align) {
            spec.align = Some(align);
        }
        spec.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
        spec.is_alternate = chars.next_if(|c| c == '#').is_some();
        spec.is_zero = chars.next_if(|c| c == '0').is_some();
        spec.width = chars.number(MAX_WIDTH)?.unwrap_or(0);
        spec.grouping = chars.next_if(|c| matches!(c, ',' | '_'));
        if chars.next_if(|c| c == '.').is_some() {
            let Some(precision) = chars.number(MAX_PRECISION)? else {
                fail!("Format specifier missing precision");
            };
            spec.precision = Some(precision);
        }
        spec.kind = chars.next();
        if chars.next().is_some() {
            fail!("Invalid format specifier");
        }
        Ok(spec)
    }

    /// Pads a number: its sign and prefix stay in front of zeros.
    fn pad_number(&self, out: &mut Buf, is_negative: bool, prefix: &str, digits: &str) -> Outcome<()> {
        let sign = match (is_negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        let len = sign.len() + prefix.len() + digits.chars().count();
        let missing = self.width.saturating_sub(len);
        let is_zero = self.is_zero && self.align.is_none();
        let fill = self.fill.unwrap_or(if self.is_zero { '0' } else { ' ' }).to_string();
        let align = if is_zero { '=' } else { self.align.unwrap_or('>') };
        let (before, inside, after) = match align {
            '<' => (0, 0, missing),
            '^' => (missing / 2, 0, missing - missing / 2),
            '=' => (0, missing, 0),
            _ => (missing, 0, 0),
        };
        out.push_times(&fill, before)?;
        out.push(sign)?;
        out.push(prefix)?;
        out.push_times(&fill, inside)?;
        out.push(digits)?;
        out.push_times(&fill, after)
    }

    fn int(&self, out: &mut Buf, value: i128) -> Outcome<()> {
        let plain = value.unsigned_abs();
        let (prefix, digits) = match self.kind {
            Some('b') => ("0b", format!("{plain:b}")),
            Some('o') => ("0o", format!("{plain:o}")),
            Some('x') => ("0x", format!("{plain:x}")),
            Some('X') => ("0X", format!("{plain:X}")),
            Some('c') => {
                let c = u32::try_from(value).ok().and_then(char::from_u32);
                let Some(c) = c else { fail!("%c arg not in range(0x110000)") };
                return self.text(out, c.encode_utf8(&mut [0; 4]));
            }
            None | Some('d' | 'n') => ("", plain.to_string()),
            Some(kind) => fail!("Unknown format code '{kind}' for object of type 'int'"),
        };
        if self.precision.is_some() {
            fail!("Precision not allowed in integer format specifier");
        }
        let every = if matches!(self.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
        let digits = self.grouped(&digits, every);
        self.pad_number(out, value < 0, if self.is_alternate { prefix } else { "" }, &digits)
    }

    fn grouped(&self, digits: &str, every: usize) -> String {
        let Some(separator) = self.grouping else { return digits.into() };
        let mut out = String::new();
        for (i, c) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(every) {
                out.push(separator);
            }
            out.push(c);
        }
        out
    }

    fn float(&self, out: &mut Buf, value: f64) -> Outcome<()> {
        let plain = value.abs();
        let precision = self.precision.unwrap_or(6);
        let digits = match self.kind {
            _ if !plain.is_finite() => if plain.is_nan() { "nan" } else { "inf" }.into(),
            Some('f' | 'F') => fixed(plain, precision, self.is_alternate),
            Some('%') => fixed(plain * 100.0, precision, self.is_alternate) + "%",
            Some('e' | 'E') => exponent(plain, precision),
            Some('g' | 'G' | 'n') => general(plain, precision, self.is_alternate),
            None if self.precision.is_none() => float_repr(plain),
            None => {
                let digits = general(plain, precision, false);
                if digits.contains(['.', 'e']) { digits } else { digits + ".0" }
            }
            Some(kind) => fail!("Unknown format code '{kind}' for object of type 'float'"),
        };
        let digits = match digits.find(|c: char| !c.is_ascii_digit()) {
            Some(0) => digits,
            Some(at) => self.grouped(&digits[..at], 3) + &digits[at..],
            None => self.grouped(&digits, 3),
        };
        let digits = if matches!(self.kind, Some('E' | 'F' | 'G')) { digits.to_uppercase() } else { digits };
        self.pad_number(out, value.is_sign_negative() && !value.is_nan(), "", &digits)
    }

    fn text(&self, out: &mut Buf, text: &str) -> Outcome<()> {
        let text = match self.precision {
            Some(most) => text.char_indices().nth(most).map_or(text, |(at, _)| &text[..at]),
            None => text,
        };
        let missing = self.width.saturating_sub(text.chars().count());
        let fill = self.fill.unwrap_or(if self.is_zero { '0' } else { ' ' }).to_string();
        let before = match self.align {
            Some('>') => missing,
            Some('^') => missing / 2,
            Some('=') => fail!("'=' alignment not allowed in string format specifier"),
            _ => 0,
        };
        out.push_times(&fill, before)?;
        out.push(text)?;
        out.push_times(&fill, missing - before)
    }

    /// `format(value, spec)`.
    fn apply(&self, out: &mut Buf, value: &Value) -> Outcome<()> {
        match value {
            Value::Int(value) => match self.kind {
                Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => self.float(out, *value as f64),
                _ => self.int(out, *value),
            },
            Value::Bool(value) => self.apply(out, &Value::Int((*value).into())),
            Value::Float(value) => self.float(out, *value),
            Value::Str(text) => match self.kind {
                None | Some('s') => self.text(out, text),
                Some(kind) => fail!("Unknown format code '{kind}' for object of type 'str'"),
            },
            other => fail!("unsupported format string passed to {}.__format__", other.type_name()),
        }
    }
}

fn fixed(value: f64, precision: usize, keeps_point: bool) -> String {
    let digits = format!("{value:.precision$}");
    if keeps_point && precision == 0 { digits + "." } else { digits }
}

fn exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// C's `%g`: `precision` digits that matter, in whichever form is the shorter.
fn general(value: f64, precision: usize, keeps_zeros: bool) -> String {
    let precision = precision.max(1);
    let rounded = exponent(value, precision - 1);
    let power: i32 = rounded.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    let text = if power < -4 || power >= precision as i32 {
        rounded
    } else {
        fixed(value, usize::try_from(precision as i32 - 1 - power).unwrap_or(0), false)
    };
    if keeps_zeros {
        return text;
    }
    let (digits, power) = match text.split_once('e') {
        Some((digits, power)) => (digits, format!("e{power}")),
        None => (text.as_str(), String::new()),
    };
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    };
    format!("{digits}{power}")
}

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

/// Appends `format(value, spec)`.
fn formatted(out: &mut Buf, value: &Value, spec: &str) -> Outcome<()> {
    if spec.is_empty() {
        return write_str(out, value);
    }
    Spec::parse(spec)?.apply(out, value)
}

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

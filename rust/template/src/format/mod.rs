//! Python's formatting: a value by a format specification, which `str.format` and `%` share.

mod fields;
mod percent;

pub(crate) use fields::format_fields;
pub(crate) use percent::percent;

use crate::fault::{Outcome, fail};
use crate::strings::Scan;
use crate::value::{Buf, Value, float_repr, write_str};

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

/// Appends `format(value, spec)`.
fn formatted(out: &mut Buf, value: &Value, spec: &str) -> Outcome<()> {
    if spec.is_empty() {
        return write_str(out, value);
    }
    Spec::parse(spec)?.apply(out, value)
}

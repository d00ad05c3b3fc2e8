//! Filters that make numbers.

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::ops::negate;
use crate::unicode::is_space;
use crate::value::{Missing, Value};

pub(super) fn abs(_: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("abs")?;
    match value {
        Value::Float(value) => Ok(Value::Float(value.abs())),
        Value::Int(..0) => negate(value),
        Value::Int(_) => Ok(value),
        Value::Bool(value) => Ok(Value::Int(value.into())),
        Value::Undefined(_) => fail!("bad operand type for abs(): 'Undefined'"),
        other => fail!("bad operand type for abs(): '{}'", other.type_name()),
    }
}

/// A float as Python reads one: spaces around it, underscores between digits.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space);
    let lower = text.to_ascii_lowercase();
    let name = lower.trim_start_matches(['+', '-']);
    if matches!(name, "inf" | "infinity" | "nan") && lower.len() - name.len() <= 1 {
        return lower.parse().ok();
    }
    if name.starts_with(|c: char| c.is_alphabetic()) {
        return None;
    }
    without_underscores(text)?.parse().ok()
}

/// The text less single underscores between digits; `None` where there are others.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    for (at, c) in bytes.iter().enumerate() {
        if *c == b'_' {
            let is_digit = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
            if at == 0 || !is_digit(bytes.get(at - 1)) || !is_digit(bytes.get(at + 1)) {
                return None;
            }
        }
    }
    Some(text.replace('_', ""))
}

/// An integer as Python's `int(text, base)` reads one. The outer `None`: no integer; the inner: one
/// that is too large.
fn parse_int(text: &str, base: i128) -> Outcome<Option<i128>> {
    if base != 0 && !(2..=36).contains(&base) {
        fail!("int() base must be >= 2 and <= 36, or 0");
    }
    let text = text.trim_matches(is_space);
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let named = match prefix.as_deref() {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        Some("0b") => Some(2),
        _ => None,
    };
    let (base, digits) = match named {
        Some(named) if base == 0 || base == named => {
            (named, digits[2..].strip_prefix('_').unwrap_or(&digits[2..]))
        }
        _ if base == 0 => (10, digits),
        _ => (base, digits),
    };
    let is_plain = digits.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    let Some(digits) = without_underscores(digits).filter(|digits| is_plain && !digits.is_empty()) else {
        return Ok(None);
    };
    if !digits.chars().all(|c| c.is_digit(base as u32)) {
        return Ok(None);
    }
    match i128::from_str_radix(&digits, base as u32) {
        Ok(value) => Ok(Some(if is_negative { -value } else { value })),
        Err(_) => fail!("the integer does not fit 128 bits"),
    }
}

pub(super) fn int(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [default, base] = args.bind("int", ["default", "base"], 0)?;
    let default = default.unwrap_or(Value::Int(0));
    let float = match &value {
        Value::Int(value) => return Ok(Value::Int(*value)),
        Value::Bool(value) => return Ok(Value::Int((*value).into())),
        Value::Float(value) => Some(*value),
        Value::Str(text) => {
            interp.budget.work(text.len() / 8)?;
            let base = base.map_or(Ok(10), |base| base.as_index())?;
            if let Some(value) = parse_int(text, base)? {
                return Ok(Value::Int(value));
            }
            parse_float(text)
        }
        Value::Undefined(missing) => return Err(missing.fault()),
        _ => None,
    };
    match float {
        Some(float) if float.is_infinite() && matches!(value, Value::Float(_)) => {
            fail!("cannot convert float infinity to integer")
        }
        Some(float) if float.is_finite() && float.abs() < 1e38 => Ok(Value::Int(float as i128)),
        Some(float) if float.is_finite() => fail!("the integer does not fit 128 bits"),
        _ => Ok(default),
    }
}

pub(super) fn float(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [default] = args.bind("float", ["default"], 0)?;
    let float = match &value {
        Value::Int(value) => Some(*value as f64),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Float(value) => Some(*value),
        Value::Str(text) => {
            interp.budget.work(text.len() / 8)?;
            parse_float(text)
        }
        Value::Undefined(missing) => return Err(missing.fault()),
        _ => None,
    };
    Ok(float.map(Value::Float).or(default).unwrap_or(Value::Float(0.0)))
}

pub(super) fn round(_: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"], 0)?;
    let has_precision = !matches!(precision, Some(Value::None));
    let precision = match precision {
        Some(Value::None) | None => 0,
        Some(precision) => precision.as_index()?,
    };
    let method = match &method {
        None => "common",
        Some(Value::Str(method)) if matches!(method.as_str(), "common" | "ceil" | "floor") => method.as_str(),
        Some(_) => fail!("method must be common, ceil or floor"),
    };
    let float = match &value {
        Value::Int(_) | Value::Bool(_) => value.as_index()? as f64,
        Value::Float(value) => *value,
        Value::Undefined(missing) => {
            return Err(match &**missing {
                Missing::Hint(hint) => crate::fault::Fault::new(hint.clone()),
                _ => crate::fault::Fault::new("type Undefined doesn't define __round__ method"),
            });
        }
        other => fail!("type {} doesn't define __round__ method", other.type_name()),
    };
    if method != "common" {
        let scale = 10f64.powi(precision.clamp(-400, 400) as i32);
        let scaled = float * scale;
        if !scaled.is_finite() {
            fail!("cannot convert float infinity to integer");
        }
        let rounded = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
        return Ok(Value::Float(rounded / scale));
    }
    if let Value::Int(_) | Value::Bool(_) = value {
        return round_int(value.as_index()?, precision);
    }
    let rounded = round_float(float, precision.clamp(-400, 400) as i32);
    // Python's `round(x, None)` gives an integer.
    Ok(if has_precision { Value::Float(rounded) } else { Value::Int(rounded as i128) })
}

fn round_int(value: i128, precision: i128) -> Outcome<Value> {
    if precision >= 0 {
        return Ok(Value::Int(value));
    }
    let unit = u32::try_from(-precision).ok().and_then(|power| 10i128.checked_pow(power));
    let Some(unit) = unit else { return Ok(Value::Int(0)) };
    let rem = value.rem_euclid(unit);
    let down = value - rem;
    let is_up = rem > unit - rem || rem == unit - rem && (down / unit) % 2 != 0;
    let rounded = if is_up { down.checked_add(unit) } else { Some(down) };
    match rounded {
        Some(rounded) => Ok(Value::Int(rounded)),
        None => fail!("the result does not fit 128 bits"),
    }
}

/// Python's `round`: correctly, half to even.
fn round_float(value: f64, precision: i32) -> f64 {
    if !value.is_finite() || precision > 323 {
        return value;
    }
    if precision >= 0 {
        // Rust prints the exact value correctly rounded, ties to even.
        return format!("{value:.*}", precision as usize).parse().unwrap_or(value);
    }
    let unit = 10f64.powi(-precision);
    let scaled = value / unit;
    let rounded = scaled.round_ties_even() * unit;
    if rounded.is_finite() { rounded } else { 0.0 }
}

pub(super) fn file_size(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [binary] = args.bind("filesizeformat", ["binary"], 0)?;
    let is_binary = binary.is_some_and(|binary| binary.truth());
    let bytes = match &value {
        Value::Int(value) => *value as f64,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Float(value) => *value,
        Value::Str(text) => match parse_float(text) {
            Some(value) => value,
            None => fail!("could not convert string to float"),
        },
        Value::Undefined(missing) => return Err(missing.fault()),
        other => fail!("float() argument must be a string or a real number, not '{}'", other.type_name()),
    };
    let (base, suffix) = if is_binary { (1024.0, "iB") } else { (1000.0, "B") };
    if bytes == 1.0 {
        return interp.new_text("1 Byte");
    }
    if bytes < base {
        return interp.new_text(&format!("{} Bytes", bytes.trunc() as i128));
    }
    let mut unit = base;
    let prefixes = if is_binary { "KMGTPEZY" } else { "kMGTPEZY" };
    for prefix in prefixes.chars() {
        unit *= base;
        if bytes < unit || prefix == 'Y' {
            return interp.new_text(&format!("{:.1} {prefix}{suffix}", base * bytes / unit));
        }
    }
    Ok(value)
}

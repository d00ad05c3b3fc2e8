//! What Python's strings can do, without the arguments' handling.

use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::unicode::is_space;
use crate::value::{Text, Value};

/// A place in a text that is read character by character.
pub(crate) struct Scan<'a> {
    pub(crate) rest: &'a str,
}

impl Scan<'_> {
    pub(crate) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    pub(crate) fn next(&mut self) -> Option<char> {
        self.next_if(|_| true)
    }

    /// Steps over the next character where it `fits`.
    pub(crate) fn next_if(&mut self, fits: impl FnOnce(char) -> bool) -> Option<char> {
        let c = self.peek().filter(|c| fits(*c))?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// A decimal number, where one stands here that is at most `most`.
    pub(crate) fn number(&mut self, most: usize) -> Outcome<Option<usize>> {
        let mut value = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            let next = value.unwrap_or(0usize) * 10 + digit as usize;
            if next > most {
                fail!("a width or precision of a format is too large");
            }
            value = Some(next);
            self.next();
        }
        Ok(value)
    }
}

/// Which ends to strip.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Strip {
    Start,
    End,
    Both,
}

pub(crate) fn strip(text: &str, drops: impl Fn(char) -> bool, ends: Strip) -> &str {
    let text = if ends == Strip::End { text } else { text.trim_start_matches(&drops) };
    if ends == Strip::Start { text } else { text.trim_end_matches(&drops) }
}

/// Splits at whitespace, at most `limit` times.
pub(crate) fn split_space(text: &str, limit: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = if from_end { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
    while !rest.is_empty() {
        if parts.len() == limit {
            parts.push(rest);
            break;
        }
        let (part, more) = if from_end {
            match rest.char_indices().rev().find(|(_, c)| is_space(*c)) {
                Some((at, c)) => (&rest[at + c.len_utf8()..], rest[..at].trim_end_matches(is_space)),
                None => (rest, ""),
            }
        } else {
            match rest.find(is_space) {
                Some(at) => (&rest[..at], rest[at..].trim_start_matches(is_space)),
                None => (rest, ""),
            }
        };
        parts.push(part);
        rest = more;
    }
    if from_end {
        parts.reverse();
    }
    parts
}

/// Splits at `separator`, which is not empty, at most `limit` times.
pub(crate) fn split<'a>(text: &'a str, separator: &str, limit: usize, from_end: bool) -> Vec<&'a str> {
    let pieces = limit.saturating_add(1);
    if from_end {
        let mut parts: Vec<_> = text.rsplitn(pieces, separator).collect();
        parts.reverse();
        parts
    } else {
        text.splitn(pieces, separator).collect()
    }
}

/// The lines, split where Python's `splitlines` does.
pub(crate) fn lines(text: &str, keeps_ends: bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_end = |c: char| {
            matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
        };
        let at = rest.find(is_end).unwrap_or(rest.len());
        let tail = &rest[at..];
        let end_len = match tail.starts_with("\r\n") {
            true => 2,
            false => tail.chars().next().map_or(0, char::len_utf8),
        };
        let line = &rest[..if keeps_ends { at + end_len } else { at }];
        rest = &rest[at + end_len..];
        Some(line)
    })
}

/// Replaces the first `count` occurrences, all where it is negative.
pub(crate) fn replace(
    interp: &mut Interp<'_>,
    text: &Text,
    old: &str,
    new: &str,
    count: i128,
) -> Outcome<Value> {
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    interp.budget.touch(text.len())?;
    let mut buf = interp.buf();
    if old.is_empty() {
        // Between all characters, and at both ends.
        for c in text.chars() {
            if left > 0 {
                buf.push(new)?;
                left -= 1;
            }
            buf.push_char(c)?;
        }
        if left > 0 {
            buf.push(new)?;
        }
        return Ok(Value::Str(buf.finish()?));
    }
    let mut start = 0;
    for (at, _) in text.match_indices(old).take(left) {
        buf.push(&text[start..at])?;
        buf.push(new)?;
        start = at + old.len();
    }
    buf.push(&text[start..])?;
    Ok(Value::Str(buf.finish()?))
}

/// Where padding leaves the text.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Align {
    Left,
    Right,
    Center,
}

/// Pads to `width` characters.
pub(crate) fn pad(
    interp: &mut Interp<'_>,
    text: &Text,
    width: i128,
    fill: char,
    align: Align,
) -> Outcome<Value> {
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let missing = width.saturating_sub(text.chars_len());
    if missing == 0 {
        return Ok(Value::Str(text.clone()));
    }
    let left = match align {
        Align::Left => 0,
        Align::Right => missing,
        // CPython's own way of rounding.
        Align::Center => missing / 2 + (missing & width & 1),
    };
    let fill = fill.to_string();
    let mut buf = interp.buf();
    buf.push_times(&fill, left)?;
    buf.push(text)?;
    buf.push_times(&fill, missing - left)?;
    Ok(Value::Str(buf.finish()?))
}

pub(crate) fn one_char(text: &str) -> Outcome<char> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => fail!("The fill character must be exactly one character long"),
    }
}

pub(crate) fn expand_tabs(interp: &mut Interp<'_>, text: &Text, size: usize) -> Outcome<Value> {
    let mut buf = interp.buf();
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let gap = size - column % size;
                buf.push_times(" ", gap)?;
                column += gap;
            }
            '\t' => {}
            c => {
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                buf.push_char(c)?;
            }
        }
    }
    Ok(Value::Str(buf.finish()?))
}

/// A string made of one of about the same length.
pub(crate) fn mapped(
    interp: &mut Interp<'_>,
    text: &Text,
    map: impl FnOnce(&str) -> String,
) -> Outcome<Value> {
    // No mapping more than triples a character.
    interp.budget.take(text.len().saturating_mul(3))?;
    interp.budget.work(text.len() / 16)?;
    let mapped = map(text);
    interp.budget.give(text.len().saturating_mul(3));
    interp.new_text(&mapped)
}

pub(crate) fn upper(text: &str) -> String {
    text.to_uppercase()
}

/// Python's `casefold`, for the letters that occur in text: lower case, and the sharp s.
pub(crate) fn casefold(text: &str) -> String {
    text.to_lowercase().replace('ß', "ss").replace('ς', "σ")
}

/// The title case of one character.
fn push_title(out: &mut String, c: char) {
    // The letters that are two letters have a title case of their own.
    let title = match c {
        'Ǆ' | 'ǅ' | 'ǆ' => 'ǅ',
        'Ǉ' | 'ǈ' | 'ǉ' => 'ǈ',
        'Ǌ' | 'ǋ' | 'ǌ' => 'ǋ',
        'Ǳ' | 'ǲ' | 'ǳ' => 'ǲ',
        _ => {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
            return;
        }
    };
    out.push(title);
}

pub(crate) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::with_capacity(text.len());
    if let Some(first) = chars.next() {
        push_title(&mut out, first);
    }
    out + &chars.as_str().to_lowercase()
}

/// `str.title`: a letter after anything else begins a word.
pub(crate) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_inside = false;
    for c in text.chars() {
        if is_inside {
            out.extend(c.to_lowercase());
        } else {
            push_title(&mut out, c);
        }
        is_inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

pub(crate) fn is_title(text: &str) -> bool {
    let (mut is_inside, mut has_letter) = (false, false);
    for c in text.chars() {
        if c.is_uppercase() && is_inside || c.is_lowercase() && !is_inside {
            return false;
        }
        is_inside = c.is_uppercase() || c.is_lowercase();
        has_letter |= is_inside;
    }
    has_letter
}

pub(crate) fn swap_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() { out.extend(c.to_lowercase()) } else { out.extend(c.to_uppercase()) }
    }
    out
}

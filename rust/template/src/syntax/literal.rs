//! String literals as jinja2 reads them: Python's escapes.

use crate::fault::{Fault, Outcome};

/// The string that a literal's inside stands for.
pub(crate) fn unescape(text: &str, line: u16) -> Outcome<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    // The first half of a surrogate pair, waiting for the second.
    let mut high: Option<u32> = None;
    while let Some(c) = rest.next() {
        if c != '\\' {
            flush(&mut out, &mut high);
            out.push(c);
            continue;
        }
        let Some(escape) = rest.next() else {
            return Err(Fault::syntax(line, "\\ at end of string"));
        };
        let code = match escape {
            '\n' => continue,
            '\\' | '\'' | '"' => escape as u32,
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            'x' => hex(&mut rest, 2, line)?,
            'u' => hex(&mut rest, 4, line)?,
            'U' => hex(&mut rest, 8, line)?,
            '0'..='7' => {
                let mut code = escape as u32 - '0' as u32;
                for _ in 0..2 {
                    match rest.clone().next() {
                        Some(digit @ '0'..='7') => {
                            code = code * 8 + (digit as u32 - '0' as u32);
                            rest.next();
                        }
                        _ => break,
                    }
                }
                code
            }
            'N' => return Err(Fault::syntax(line, "\\N escapes are not supported")),
            // Python keeps what it does not know.
            other => {
                flush(&mut out, &mut high);
                out.push('\\');
                other as u32
            }
        };
        match (high, code) {
            (Some(first), 0xDC00..=0xDFFF) => {
                high = None;
                let pair = 0x10000 + ((first - 0xD800) << 10) + (code - 0xDC00);
                out.extend(char::from_u32(pair));
            }
            (_, 0xD800..=0xDBFF) => {
                flush(&mut out, &mut high);
                high = Some(code);
            }
            _ => {
                flush(&mut out, &mut high);
                if code > 0x10FFFF {
                    return Err(Fault::syntax(line, "illegal Unicode character in a string"));
                }
                // Half a pair has no UTF-8.
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
    }
    flush(&mut out, &mut high);
    Ok(out)
}

fn flush(out: &mut String, high: &mut Option<u32>) {
    if high.take().is_some() {
        out.push(char::REPLACEMENT_CHARACTER);
    }
}

fn hex(rest: &mut std::str::Chars<'_>, len: usize, line: u16) -> Outcome<u32> {
    let mut code = 0;
    for _ in 0..len {
        let digit = rest.next().and_then(|c| c.to_digit(16));
        let Some(digit) = digit else {
            return Err(Fault::syntax(line, "truncated escape in a string"));
        };
        code = (code << 4) | digit;
    }
    Ok(code)
}

//! Filters that make text.

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::filters::{AttrPath, escaped};
use crate::format::percent;
use crate::methods;
use crate::strings::{self, Align, Strip};
use crate::value::{Text, Value, write_str};

pub(super) fn string(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("string")?;
    Ok(Value::Str(interp.str_of(&value)?))
}

fn mapped(
    interp: &mut Interp<'_>,
    value: &Value,
    args: Args,
    map: impl FnOnce(&str) -> String,
) -> Outcome<Value> {
    args.none("filter")?;
    let text = interp.str_of(value)?;
    let mapped = strings::mapped(interp, &text, map)?;
    if text.is_markup() { mapped.marked(&interp.budget) } else { Ok(mapped) }
}

pub(super) fn upper(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    mapped(interp, &value, args, strings::upper)
}

pub(super) fn lower(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    mapped(interp, &value, args, str::to_lowercase)
}

pub(super) fn capitalize(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    mapped(interp, &value, args, strings::capitalize)
}

/// Words begin after spaces, hyphens and opening brackets: not as `str.title` has it.
pub(super) fn title(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let value = Value::Str(interp.str_of(&value)?.with_markup(false));
    mapped(interp, &value, args, |text| {
        let mut out = String::with_capacity(text.len());
        let mut is_inside = false;
        for c in text.chars() {
            if matches!(c, '-' | '(' | '{' | '[' | '<') || crate::unicode::is_space(c) {
                is_inside = false;
                out.push(c);
            } else if is_inside {
                out.extend(c.to_lowercase());
            } else {
                is_inside = true;
                out.extend(c.to_uppercase());
            }
        }
        out
    })
}

pub(super) fn trim(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [chars] = args.bind("trim", ["chars"], 0)?;
    let text = interp.str_of(&value)?;
    let stripped = methods::strip(interp, &text, chars.as_ref(), Strip::Both)?;
    if text.is_markup() { stripped.marked(&interp.budget) } else { Ok(stripped) }
}

pub(super) fn replace(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [old, new, count] = args.bind("replace", ["old", "new", "count"], 2)?;
    let text = interp.str_of(&value)?;
    let old = interp.str_of(&old.unwrap_or(Value::None))?;
    let new = interp.str_of(&new.unwrap_or(Value::None))?;
    let count = match count {
        None | Some(Value::None) => -1,
        Some(count) => count.as_index()?,
    };
    strings::replace(interp, &text, &old, &new, count)
}

pub(super) fn center(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [width] = args.bind("center", ["width"], 0)?;
    let width = width.map_or(Ok(80), |width| width.as_index())?;
    let text = interp.str_of(&value)?;
    let padded = strings::pad(interp, &text, width, ' ', Align::Center)?;
    if text.is_markup() { padded.marked(&interp.budget) } else { Ok(padded) }
}

pub(super) fn format(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let text = interp.str_of(&value)?;
    let Args { args, kwargs } = args;
    let values = match (args.is_empty(), kwargs.is_empty()) {
        (false, false) => fail!("can't handle positional and keyword arguments at the same time"),
        (_, true) => interp.new_tuple(args)?,
        (true, false) => {
            let entries = methods::make_dict(interp, Args { args, kwargs })?;
            interp.new_dict(entries)?
        }
    };
    Ok(Value::Str(percent(interp, &text, &values)?))
}

pub(super) fn join(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [separator, attribute] = args.bind("join", ["d", "attribute"], 0)?;
    let separator = match separator {
        Some(separator) => Some(interp.str_of(&separator)?),
        None => None,
    };
    let path = AttrPath::new(interp, &attribute.unwrap_or(Value::None))?;
    let mut cursor = interp.cursor(&value)?;
    let mut out = interp.buf();
    let mut is_first = true;
    while let Some(item) = cursor.next(interp)? {
        let item = path.get(interp, item, None)?;
        if let (false, Some(separator)) = (is_first, &separator) {
            out.push(separator)?;
        }
        is_first = false;
        write_str(&mut out, &item)?;
    }
    Ok(Value::Str(out.finish()?))
}

pub(super) fn indent(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"], 0)?;
    let is = |flag: Option<Value>| flag.is_some_and(|flag| flag.truth());
    let (has_first, has_blank) = (is(first), is(blank));
    let text = value.as_text("the value of indent")?;
    let (piece, times) = match &width {
        None => (" ", 4),
        Some(Value::Str(piece)) => (piece.as_str(), 1),
        Some(width) => (" ", usize::try_from(width.as_index()?.max(0)).unwrap_or(usize::MAX)),
    };
    let mut out = interp.buf();
    // A newline is added first, so that a last empty line counts.
    let mut with_newline = interp.buf();
    with_newline.push(text)?;
    with_newline.push("\n")?;
    for (i, line) in strings::lines(with_newline.as_str(), false).enumerate() {
        if i > 0 {
            out.push("\n")?;
        }
        let is_indented = if i == 0 { has_first } else { has_blank || !line.is_empty() };
        if is_indented {
            out.push_times(piece, times)?;
        }
        out.push(line)?;
    }
    Ok(Value::Str(out.finish()?.with_markup(text.is_markup())))
}

pub(super) fn truncate(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [length, kill_words, end, leeway] =
        args.bind("truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let length = length.map_or(Ok(255), |length| length.as_index())?;
    let end = match end {
        Some(end) => end.as_text("end")?.clone(),
        None => Text::new(&interp.budget, "...")?,
    };
    let leeway = match leeway {
        None | Some(Value::None) => 5,
        Some(leeway) => leeway.as_index()?,
    };
    let end_len = end.chars_len() as i128;
    if length < end_len {
        fail!("expected length >= {end_len}, got {length}");
    }
    if leeway < 0 {
        fail!("expected leeway >= 0, got {leeway}");
    }
    let Some(len) = interp.len_of(&value) else {
        fail!("object of type '{}' has no len()", value.type_name());
    };
    if len as i128 <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let text = value.as_text("the value of truncate")?;
    let kept = &text[..text.offset((length - end_len) as usize)];
    let kept = match kill_words.is_some_and(|flag| flag.truth()) {
        true => kept,
        false => kept.rsplit_once(' ').map_or(kept, |(head, _)| head),
    };
    let mut out = interp.buf();
    out.push(kept)?;
    match text.is_markup() {
        true => out.push(&escaped(interp, &Value::Str(end))?)?,
        false => out.push(&end)?,
    }
    Ok(Value::Str(out.finish()?.with_markup(text.is_markup())))
}

pub(super) fn word_count(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    args.none("wordcount")?;
    let text = interp.str_of(&value)?;
    interp.budget.touch(text.len())?;
    let words = text.split(|c: char| !(crate::unicode::is_alnum(c) || c == '_'));
    Ok(Value::Int(words.filter(|word| !word.is_empty()).count() as i128))
}

pub(super) fn word_wrap(interp: &mut Interp<'_>, value: Value, args: Args) -> Outcome<Value> {
    let [width, break_long, separator, break_hyphens] =
        args.bind("wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"], 0)?;
    let width = width.map_or(Ok(79), |width| width.as_index())?;
    let breaks_words = break_long.is_none_or(|flag| flag.truth());
    let breaks_hyphens = break_hyphens.is_none_or(|flag| flag.truth());
    let separator = match separator {
        None | Some(Value::None) => Text::new(&interp.budget, "\n")?,
        Some(separator) => separator.as_text("wrapstring")?.clone(),
    };
    let text = value.as_text("the value of wordwrap")?;
    interp.budget.work(text.len() / 4)?;
    let mut out = interp.buf();
    for (i, line) in strings::lines(text, false).enumerate() {
        if i > 0 {
            out.push(&separator)?;
        }
        if width <= 0 {
            fail!("invalid width {width} (must be > 0)");
        }
        // The chunks of a line, and the characters of one, are listed.
        let listed = line.len().saturating_mul(2 * size_of::<&str>());
        interp.budget.take(listed)?;
        let width = usize::try_from(width).unwrap_or(usize::MAX);
        let mut is_first = true;
        wrap(line, width, breaks_words, breaks_hyphens, &mut |pieces| {
            if !std::mem::take(&mut is_first) {
                out.push(&separator)?;
            }
            pieces.iter().try_for_each(|piece| out.push(piece))
        })?;
        interp.budget.give(listed);
    }
    Ok(Value::Str(out.finish()?))
}

/// Python's `textwrap.wrap`, which leaves tabs and other spaces as they are. Each line is given to
/// `push` in pieces.
fn wrap(
    line: &str,
    width: usize,
    breaks_words: bool,
    breaks_hyphens: bool,
    push: &mut dyn FnMut(&[&str]) -> Outcome<()>,
) -> Outcome<()> {
    let mut chunks: Vec<&str> = chunks(line, breaks_hyphens);
    chunks.reverse();
    let mut is_first = true;
    // Counting goes no further than it matters: a word may be as long as the text.
    let len_of = |chunk: &str| chunk.chars().take(width.saturating_add(1)).count();
    let is_blank = |chunk: &str| chunk.trim_matches(is_wrap_space).is_empty();
    while !chunks.is_empty() {
        let (mut current, mut len) = (Vec::new(), 0);
        if !is_first && chunks.last().is_some_and(|chunk| is_blank(chunk)) {
            chunks.pop();
        }
        while let Some(chunk) = chunks.last() {
            let more = len_of(chunk);
            if len + more > width {
                break;
            }
            len += more;
            current.extend(chunks.pop());
        }
        if let Some(chunk) = chunks.last().copied()
            && len_of(chunk) > width
        {
            if breaks_words {
                let room = width.saturating_sub(len).max(usize::from(len == 0));
                let mut at = chunk.char_indices().nth(room).map_or(chunk.len(), |(at, _)| at);
                if breaks_hyphens
                    && let Some(hyphen) = chunk[..at].rfind('-')
                    && hyphen > 0
                    && chunk[..hyphen].contains(|c| c != '-')
                {
                    at = hyphen + 1;
                }
                let (head, tail) = chunk.split_at(at);
                current.push(head);
                chunks.pop();
                chunks.push(tail);
            } else if current.is_empty() {
                current.extend(chunks.pop());
            }
        }
        if current.last().is_some_and(|chunk| is_blank(chunk)) {
            current.pop();
        }
        if !current.is_empty() {
            push(&current)?;
            is_first = false;
        }
    }
    Ok(())
}

fn is_wrap_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Words, the spaces between them, and the parts of words with hyphens.
fn chunks(line: &str, breaks_hyphens: bool) -> Vec<&str> {
    let mut chunks = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let is_space = is_wrap_space(first);
        let end = rest.find(|c| is_wrap_space(c) != is_space).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        rest = tail;
        if is_space || !breaks_hyphens {
            chunks.push(run);
            continue;
        }
        let letters: Vec<(usize, char)> = run.char_indices().collect();
        let is_letter = |at: Option<usize>| {
            at.and_then(|at| letters.get(at)).is_some_and(|(_, c)| c.is_alphabetic() || *c == '_')
        };
        let is_punct = |at: Option<usize>| {
            at.and_then(|at| letters.get(at)).is_some_and(|(_, c)| {
                c.is_alphanumeric() || matches!(c, '_' | '!' | '"' | '\'' | '&' | '.' | ',' | '?')
            })
        };
        let mut start = 0;
        let mut at = 0;
        while at < letters.len() {
            if letters[at].1 != '-' {
                at += 1;
                continue;
            }
            let dashes = letters[at..].iter().take_while(|(_, c)| *c == '-').count();
            let after = letters.get(at + dashes).map(|(_, c)| *c);
            if dashes >= 2 {
                // A dash between words is a chunk of its own.
                let is_word_after = after.is_some_and(|c| c.is_alphanumeric() || c == '_');
                if is_word_after && is_punct(at.checked_sub(1)) {
                    if letters[at].0 > start {
                        chunks.push(&run[start..letters[at].0]);
                    }
                    let end = letters[at + dashes].0;
                    chunks.push(&run[letters[at].0..end]);
                    start = end;
                }
                at += dashes;
                continue;
            }
            let before = is_letter(at.checked_sub(1))
                && (is_letter(at.checked_sub(2))
                    || is_letter(at.checked_sub(3)) && letters.get(at - 2).is_some_and(|(_, c)| *c == '-'));
            let follows = is_letter(Some(at + 1))
                && (is_letter(Some(at + 2))
                    || letters.get(at + 2).is_some_and(|(_, c)| *c == '-') && is_letter(Some(at + 3)));
            at += 1;
            if before && follows {
                let end = letters[at].0;
                chunks.push(&run[start..end]);
                start = end;
            }
        }
        if start < run.len() {
            chunks.push(&run[start..]);
        }
    }
    chunks
}

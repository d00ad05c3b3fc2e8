//! Methods of strings.

use crate::args::Args;
use crate::eval::Interp;
use crate::fault::{Outcome, fail};
use crate::filters::escaped;
use crate::format::format_fields;
use crate::strings::{self, Strip};
use crate::unicode;
use crate::value::{Text, Value};

pub(super) const METHODS: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

/// Bytes that are looked at character by character in one unit of work.
const SCANNED_PER_UNIT: usize = 8;

pub(super) fn call(interp: &mut Interp<'_>, text: &Text, name: &str, args: Args) -> Outcome<Value> {
    // Looking at characters costs more than copying bytes.
    interp.budget.work(text.len() / SCANNED_PER_UNIT)?;
    if !text.is_markup() {
        return call_plain(interp, text, name, args);
    }
    // `Markup` escapes what goes into it, and what comes out of it is `Markup`.
    let mut args = args;
    match name {
        "replace" => {
            if let Some(new) = args.args.get_mut(1) {
                *new = Value::Str(escaped(interp, new)?);
            }
        }
        "join" => {
            let [items] = args.positional(name, 1)?;
            let items = interp.items(&items.unwrap_or(Value::None))?;
            let items = items.iter().map(|item| escaped(interp, item).map(Value::Str));
            args = Args { args: vec![interp.new_list(items.collect::<Outcome<_>>()?)?], kwargs: Vec::new() };
        }
        _ => {}
    }
    call_plain(interp, text, name, args)?.marked(&interp.budget)
}

fn call_plain(interp: &mut Interp<'_>, text: &Text, name: &str, args: Args) -> Outcome<Value> {
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.positional(name, 0)?;
            let ends = match name {
                "lstrip" => Strip::Start,
                "rstrip" => Strip::End,
                _ => Strip::Both,
            };
            strip(interp, text, chars.as_ref(), ends)
        }
        "split" | "rsplit" => split(interp, text, name, args),
        "startswith" | "endswith" => starts_or_ends(interp, text, name, args),
        "find" | "rfind" | "index" | "rindex" | "count" => find(interp, text, name, args),
        "removeprefix" | "removesuffix" => {
            let [part] = args.positional(name, 1)?;
            let part = part.unwrap_or(Value::None);
            let part = part.as_text(name)?;
            let rest = match name {
                "removeprefix" => text.strip_prefix(part.as_str()),
                _ => text.strip_suffix(part.as_str()),
            };
            rest.map_or(Ok(Value::Str(text.clone())), |rest| interp.new_text(rest))
        }
        "replace" => {
            let [old, new, count] = args.positional(name, 2)?;
            let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
            let count = count.map_or(Ok(-1), |count| count.as_index())?;
            let (old, new) = (old.as_text("replace() argument 1")?, new.as_text("replace() argument 2")?);
            strings::replace(interp, text, old, new, count)
        }
        "join" => {
            let [items] = args.positional(name, 1)?;
            let mut cursor = interp.cursor(&items.unwrap_or(Value::None))?;
            let mut buf = interp.buf();
            let mut at = 0;
            while let Some(item) = cursor.next(interp)? {
                let Value::Str(item) = &item else {
                    fail!("sequence item {at}: expected str instance, {} found", item.type_name());
                };
                if at > 0 {
                    buf.push(text)?;
                }
                buf.push(item)?;
                at += 1;
            }
            Ok(Value::Str(buf.finish()?))
        }
        "partition" | "rpartition" => partition(interp, text, name, args),
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"], 0)?;
            let keep = keep.is_some_and(|keep| keep.truth());
            let lines = strings::lines(text, keep);
            let lines = lines.map(|line| interp.new_text(line)).collect::<Outcome<_>>()?;
            interp.new_list(lines)
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = args.positional(name, 1)?;
            let fill = match &fill {
                None => ' ',
                Some(fill) => strings::one_char(fill.as_text(name)?)?,
            };
            let width = width.unwrap_or(Value::None).as_index()?;
            let align = match name {
                "center" => strings::Align::Center,
                "ljust" => strings::Align::Left,
                _ => strings::Align::Right,
            };
            strings::pad(interp, text, width, fill, align)
        }
        "zfill" => {
            let [width] = args.positional(name, 1)?;
            let width = width.unwrap_or(Value::None).as_index()?;
            let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars_len());
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let mut buf = interp.buf();
            buf.push(sign)?;
            buf.push_times("0", missing)?;
            buf.push(digits)?;
            Ok(Value::Str(buf.finish()?))
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"], 0)?;
            let size = size.map_or(Ok(8), |size| size.as_index())?;
            strings::expand_tabs(interp, text, usize::try_from(size).unwrap_or(0))
        }
        "format" => Ok(Value::Str(format_fields(interp, text, &args)?)),
        "format_map" => {
            let [map] = args.positional(name, 1)?;
            let Some(Value::Dict(dict)) = map else { fail!("format_map() argument must be a mapping") };
            let mut args = Args::default();
            for (key, value) in dict.entries() {
                if let Value::Str(key) = key.value() {
                    interp.budget.touch(key.len())?;
                    args.kwargs.push((key.as_str().into(), value.clone()));
                }
            }
            Ok(Value::Str(format_fields(interp, text, &args)?))
        }
        _ => {
            args.none(name)?;
            simple(interp, text, name)
        }
    }
}

/// The methods without arguments.
fn simple(interp: &mut Interp<'_>, text: &Text, name: &str) -> Outcome<Value> {
    let is_cased = |c: char| c.is_uppercase() || c.is_lowercase();
    let all = |holds: fn(char) -> bool| Value::Bool(!text.is_empty() && text.chars().all(holds));
    Ok(match name {
        "upper" => strings::mapped(interp, text, strings::upper)?,
        "lower" => strings::mapped(interp, text, str::to_lowercase)?,
        "casefold" => strings::mapped(interp, text, strings::casefold)?,
        "capitalize" => strings::mapped(interp, text, strings::capitalize)?,
        "title" => strings::mapped(interp, text, strings::title)?,
        "swapcase" => strings::mapped(interp, text, strings::swap_case)?,
        "isalpha" => all(unicode::is_alpha),
        "isalnum" => all(unicode::is_alnum),
        "isdecimal" => all(unicode::is_decimal),
        "isdigit" => all(unicode::is_digit),
        "isnumeric" => all(unicode::is_numeric),
        "isspace" => all(unicode::is_space),
        "isascii" => Value::Bool(text.is_ascii()),
        "isprintable" => Value::Bool(text.chars().all(unicode::is_printable)),
        "islower" => Value::Bool(text.chars().any(is_cased) && !text.chars().any(char::is_uppercase)),
        "isupper" => Value::Bool(text.chars().any(is_cased) && !text.chars().any(char::is_lowercase)),
        "istitle" => Value::Bool(strings::is_title(text)),
        _ => {
            let mut chars = text.chars();
            let starts = chars.next().is_some_and(|c| c == '_' || unicode::is_alpha(c));
            Value::Bool(starts && chars.all(|c| c == '_' || unicode::is_alnum(c)))
        }
    })
}

/// `strip` and its like: whitespace, or any of `chars`.
pub(crate) fn strip(
    interp: &mut Interp<'_>,
    text: &Text,
    chars: Option<&Value>,
    ends: Strip,
) -> Outcome<Value> {
    let rest = match chars {
        None | Some(Value::None) => strings::strip(text, unicode::is_space, ends),
        Some(chars) => {
            let chars = chars.as_text("strip arg")?;
            interp.budget.work(text.len().min(1 << 20).saturating_mul(1 + chars.len() / 64) / 16)?;
            strings::strip(text, |c| chars.contains(c), ends)
        }
    };
    if rest.len() == text.len() {
        return Ok(Value::Str(text.clone()));
    }
    interp.new_text(rest)
}

fn split(interp: &mut Interp<'_>, text: &Text, name: &str, args: Args) -> Outcome<Value> {
    let [separator, limit] = args.bind(name, ["sep", "maxsplit"], 0)?;
    let limit = limit.map_or(Ok(-1), |limit| limit.as_index())?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let from_end = name == "rsplit";
    let parts = match separator {
        None | Some(Value::None) => strings::split_space(text, limit, from_end),
        Some(separator) => {
            let separator = separator.as_text("sep")?;
            if separator.is_empty() {
                fail!("empty separator");
            }
            interp.budget.touch(text.len())?;
            strings::split(text, separator, limit, from_end)
        }
    };
    interp.budget.work(parts.len())?;
    let parts = parts.into_iter().map(|part| interp.new_text(part)).collect::<Outcome<_>>()?;
    interp.new_list(parts)
}

/// The part of `text` that optional `start` and `end` arguments leave, and where it begins, in
/// characters; `None` where they leave less than nothing.
fn window(text: &Text, start: Option<Value>, end: Option<Value>) -> Outcome<Option<(&str, usize)>> {
    let len = text.chars_len() as i128;
    let bound = |bound: Option<Value>, default: i128| -> Outcome<i128> {
        match bound {
            None | Some(Value::None) => Ok(default),
            Some(bound) => {
                let bound = bound.as_index()?;
                Ok(if bound < 0 { bound.saturating_add(len).max(0) } else { bound })
            }
        }
    };
    let (start, end) = (bound(start, 0)?, bound(end, len)?.min(len));
    if start > end {
        return Ok(None);
    }
    let (start, end) = (start as usize, end as usize);
    Ok(text.get(text.offset(start)..text.offset(end)).map(|part| (part, start)))
}

fn starts_or_ends(interp: &mut Interp<'_>, text: &Text, name: &str, args: Args) -> Outcome<Value> {
    let [wanted, start, end] = args.positional(name, 1)?;
    let wanted = wanted.unwrap_or(Value::None);
    let window = window(text, start, end)?;
    let holds = |wanted: &Value| -> Outcome<bool> {
        let wanted = match wanted {
            Value::Str(wanted) => wanted,
            Value::Undefined(_) => {
                fail!("{name} first arg must be str or a tuple of str, not Undefined")
            }
            other => fail!("{name} first arg must be str or a tuple of str, not {}", other.type_name()),
        };
        interp.budget.touch(wanted.len())?;
        let Some((part, _)) = window else { return Ok(false) };
        Ok(match name {
            "startswith" => part.starts_with(wanted.as_str()),
            _ => part.ends_with(wanted.as_str()),
        })
    };
    match &wanted {
        Value::Tuple(options) => {
            for option in options.items() {
                if holds(option)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        wanted => holds(wanted).map(Value::Bool),
    }
}

fn find(interp: &mut Interp<'_>, text: &Text, name: &str, args: Args) -> Outcome<Value> {
    let [wanted, start, end] = args.positional(name, 1)?;
    let wanted = wanted.unwrap_or(Value::None);
    let wanted = wanted.as_text(name)?;
    interp.budget.work(wanted.len() / SCANNED_PER_UNIT)?;
    let window = window(text, start, end)?;
    if name == "count" {
        let count = window.map_or(0, |(part, _)| match wanted.is_empty() {
            true => part.chars().count() + 1,
            false => part.matches(wanted.as_str()).count(),
        });
        return Ok(Value::Int(count as i128));
    }
    let found = window.and_then(|(part, start)| {
        let at = match name {
            "rfind" | "rindex" => part.rfind(wanted.as_str()),
            _ => part.find(wanted.as_str()),
        };
        at.map(|at| (part[..at].chars().count() + start) as i128)
    });
    match found {
        Some(at) => Ok(Value::Int(at)),
        None if name.ends_with("index") => fail!("substring not found"),
        None => Ok(Value::Int(-1)),
    }
}

fn partition(interp: &mut Interp<'_>, text: &Text, name: &str, args: Args) -> Outcome<Value> {
    let [separator] = args.positional(name, 1)?;
    let separator = separator.unwrap_or(Value::None);
    let separator = separator.as_text(name)?;
    if separator.is_empty() {
        fail!("empty separator");
    }
    let parts = match name {
        "partition" => text.split_once(separator.as_str()),
        _ => text.rsplit_once(separator.as_str()),
    };
    let parts = match (parts, name) {
        (Some((head, tail)), _) => [head, separator, tail],
        (None, "partition") => [text.as_str(), "", ""],
        (None, _) => ["", "", text.as_str()],
    };
    let parts = parts.map(|part| interp.new_text(part)).into_iter().collect::<Outcome<_>>()?;
    interp.new_tuple(parts)
}

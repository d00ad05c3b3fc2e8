//! Spellings of special tokens in what others wrote.

use std::collections::HashSet;
use std::ops::Range;

use alloyforge_interfaces::{MediaPrompts, Tokenizer};
use alloyforge_types::{Error, MediaKind, Result};
use serde_json::Value;

/// How a vocabulary's special tokens are spelled.
#[derive(Debug, Default)]
pub(super) struct Spellings {
    known: HashSet<String>,
    /// For each first byte, the lengths that there are, the longest first.
    lens: Vec<Vec<usize>>,
}

impl Spellings {
    /// Those of `tokenizer`, and the placeholders of `media`, which need not be tokens.
    pub(super) fn of(tokenizer: &dyn Tokenizer, media: Option<&dyn MediaPrompts>) -> Self {
        let mut known = HashSet::new();
        let mut lens = vec![Vec::new(); 256];
        for text in
            MediaKind::ALL.into_iter().flat_map(|kind| media.map_or(&[][..], |m| m.placeholders(kind)))
        {
            if let Some(&first) = text.as_bytes().first() {
                known.insert(text.clone());
                lens[usize::from(first)].push(text.len());
            }
        }
        for id in 0..u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX) {
            let Some(bytes) = tokenizer.token_bytes(id) else { continue };
            let (Some(&first), Ok(text)) = (bytes.first(), std::str::from_utf8(&bytes)) else { continue };
            // tokens that structure a message are not always marked as special
            let is_structure = text.len() > 4 && text.starts_with("<|") && text.ends_with("|>");
            if is_structure || tokenizer.is_special(id) {
                known.insert(text.to_owned());
                lens[usize::from(first)].push(text.len());
            }
        }
        for lens in &mut lens {
            lens.sort_unstable_by(|a, b| b.cmp(a));
            lens.dedup();
        }
        Self { known, lens }
    }

    /// The longest spelling that `text` begins with.
    fn at_start(&self, text: &str) -> Option<&str> {
        let lens = self.lens.get(usize::from(*text.as_bytes().first()?))?;
        lens.iter().find_map(|&len| self.known.get(text.get(..len)?)).map(String::as_str)
    }

    /// Adds those that occur in `text` to `found`, in their order.
    fn find_in<'a>(&'a self, text: &str, found: &mut Vec<&'a str>) {
        let mut rest = text;
        while !rest.is_empty() {
            let len = match self.at_start(rest) {
                Some(spelling) => {
                    if !found.contains(&spelling) {
                        found.push(spelling);
                    }
                    spelling.len()
                }
                None => first_char_len(rest),
            };
            rest = &rest[len..];
        }
    }
}

/// One private character for each spelling that occurs.
#[derive(Debug)]
pub(super) struct Substitutes<'a> {
    spellings: &'a Spellings,
    pairs: Vec<(&'a str, char)>,
}

impl<'a> Substitutes<'a> {
    /// Characters for the spellings in the texts of `values`, `None` where there are none.
    ///
    /// # Errors
    /// `InvalidRequest` where the texts use up all private characters.
    pub(super) fn for_spellings_in(spellings: &'a Spellings, values: &[&Value]) -> Result<Option<Self>> {
        let mut found = Vec::new();
        let mut used = HashSet::new();
        for value in values {
            each_text(value, &mut |text| {
                spellings.find_in(text, &mut found);
                used.extend(text.chars().filter(|c| PRIVATE.contains(c)));
            });
        }
        if found.is_empty() {
            return Ok(None);
        }
        let mut free = PRIVATE.filter(|c| !used.contains(c));
        let pairs: Option<Vec<_>> =
            found.into_iter().map(|spelling| Some((spelling, free.next()?))).collect();
        let pairs = pairs.ok_or_else(|| Error::invalid("messages", "hold too many private characters"))?;
        Ok(Some(Self { spellings, pairs }))
    }

    /// `value` with a character in place of every spelling.
    pub(super) fn put_into(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.put_into_text(&text)),
            Value::Array(list) => Value::Array(list.into_iter().map(|v| self.put_into(v)).collect()),
            Value::Object(map) => Value::Object(
                map.into_iter().map(|(k, v)| (self.put_into_text(&k), self.put_into(v))).collect(),
            ),
            other => other,
        }
    }

    fn put_into_text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let spelling = self.spellings.at_start(rest);
            let pair = spelling.and_then(|s| self.pairs.iter().find(|(known, _)| *known == s));
            let len = match pair {
                Some((spelling, substitute)) => {
                    out.push(*substitute);
                    spelling.len()
                }
                None => {
                    let len = first_char_len(rest);
                    out.push_str(&rest[..len]);
                    len
                }
            };
            rest = &rest[len..];
        }
        out
    }

    /// `rendered` with the spellings back in their places, and where those are.
    pub(super) fn take_out_of(&self, rendered: &str) -> (String, Vec<Range<usize>>) {
        let mut text = String::with_capacity(rendered.len());
        let mut places = Vec::new();
        for c in rendered.chars() {
            match self.pairs.iter().find(|(_, substitute)| *substitute == c) {
                Some((spelling, _)) => {
                    let start = text.len();
                    text.push_str(spelling);
                    places.push(start..text.len());
                }
                None => text.push(c),
            }
        }
        (text, places)
    }
}

/// Supplementary Private Use Area-B, which no tokenizer's vocabulary or script knows.
const PRIVATE: std::ops::RangeInclusive<char> = '\u{10_0000}'..='\u{10_fffd}';

fn first_char_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// Calls `f` with every text in `value`, keys included.
fn each_text(value: &Value, f: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => f(text),
        Value::Array(list) => list.iter().for_each(|v| each_text(v, f)),
        Value::Object(map) => map.iter().for_each(|(key, v)| {
            f(key);
            each_text(v, f);
        }),
        _ => {}
    }
}

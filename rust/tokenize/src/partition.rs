//! Finds special tokens written in a text.

use std::ops::Range;

use aho_corasick::AhoCorasick;
use memchr::memmem::Finder;

use crate::vocabulary::{Kind, Vocabulary};

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// A special token.
    Token(u32),
    /// Text between them, as bytes of the whole; never empty.
    Text(Range<usize>),
}

/// The special tokens of a vocabulary.
#[derive(Debug)]
pub(crate) struct Partition {
    // Longest text first, then by id.
    tokens: Vec<u32>,
    // Finds all of them at once; its patterns are `tokens`.
    automaton: Option<AhoCorasick>,
}

impl Partition {
    /// Collects the special tokens; the error is a limit of the search itself.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<Self, String> {
        let special = Kind::CONTROL.and(Kind::USER_DEFINED).and(Kind::UNKNOWN);
        let is_special = |id: &u32| vocabulary.kind(*id).is(special) && !vocabulary.text(*id).is_empty();
        let mut tokens: Vec<u32> = vocabulary.ids().filter(is_special).collect();
        tokens.sort_by_key(|&id| std::cmp::Reverse(vocabulary.text(id).len()));
        let automaton = if tokens.is_empty() {
            None
        } else {
            let texts = tokens.iter().map(|&id| vocabulary.text(id));
            Some(AhoCorasick::new(texts).map_err(|fault| fault.to_string())?)
        };
        Ok(Self { tokens, automaton })
    }

    /// The parts of `text`: tokens that users define are always found, others where `special`.
    ///
    /// Longer tokens come first wherever they stand: a token is found in what all longer ones left.
    pub(crate) fn split(&self, vocabulary: &Vocabulary, text: &str, special: bool) -> Vec<Fragment> {
        let mut fragments: Vec<Fragment> = Vec::new();
        if !text.is_empty() {
            fragments.push(Fragment::Text(0..text.len()));
        }
        let Some(automaton) = &self.automaton else { return fragments };
        // One pass says which of what may be thousands of tokens occur at all.
        let mut occurs = vec![false; self.tokens.len()];
        for found in automaton.find_overlapping_iter(text) {
            occurs[found.pattern().as_usize()] = true;
        }
        let never = if special { Kind::UNDEFINED } else { Kind::CONTROL.and(Kind::UNKNOWN) };
        for (&id, _) in self.tokens.iter().zip(&occurs).filter(|(_, occurs)| **occurs) {
            let kind = vocabulary.kind(id);
            if kind.is(never) {
                continue;
            }
            let finder = Finder::new(vocabulary.text(id));
            let mut finer = Vec::with_capacity(fragments.len());
            for fragment in fragments {
                match fragment {
                    Fragment::Text(range) => cut(text, range, &finder, id, kind, &mut finer),
                    token => finer.push(token),
                }
            }
            fragments = finer;
        }
        fragments
    }
}

/// Appends `range` of `text` cut at the occurrences of one token.
fn cut(text: &str, range: Range<usize>, finder: &Finder<'_>, id: u32, kind: Kind, out: &mut Vec<Fragment>) {
    let is_blank = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    let bytes = text.as_bytes();
    let mut begin = range.start;
    while let Some(found) = finder.find(&bytes[begin..range.end]) {
        let (mut before, mut after) = (begin + found, begin + found + finder.needle().len());
        if kind.is(Kind::STRIPS_LEFT) {
            before -= bytes[begin..before].iter().rev().take_while(|byte| is_blank(byte)).count();
        }
        if kind.is(Kind::STRIPS_RIGHT) {
            after += bytes[after..range.end].iter().take_while(|byte| is_blank(byte)).count();
        }
        if before > begin {
            out.push(Fragment::Text(begin..before));
        }
        out.push(Fragment::Token(id));
        begin = after;
    }
    if begin < range.end {
        out.push(Fragment::Text(begin..range.end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(tokens: &[(&str, Kind)], text: &str, special: bool) -> Vec<String> {
        let texts: Vec<Box<str>> = tokens.iter().map(|(text, _)| (*text).into()).collect();
        let kinds = tokens.iter().map(|(_, kind)| *kind).collect();
        let vocabulary = Vocabulary::new(texts.into(), kinds, Vec::new(), "", "").expect("a vocabulary");
        let partition = Partition::new(&vocabulary).expect("a partition");
        let show = |fragment| match fragment {
            Fragment::Token(id) => format!("#{id}"),
            Fragment::Text(range) => text[range].to_owned(),
        };
        partition.split(&vocabulary, text, special).into_iter().map(show).collect()
    }

    #[test]
    fn control_tokens_are_text_unless_asked_for() {
        let tokens = [
            ("<s>", Kind::CONTROL),
            ("<u>", Kind::USER_DEFINED),
            ("<unk>", Kind::UNKNOWN),
            ("a", Kind::NORMAL),
        ];
        assert_eq!(split(&tokens, "a<s><u> <unk>", false), ["a<s>", "#1", " <unk>"]);
        assert_eq!(split(&tokens, "a<s><u> <unk>", true), ["a", "#0", "#1", " ", "#2"]);
        assert_eq!(split(&tokens, "", true), [""; 0]);
        assert_eq!(split(&tokens[3..], "<s>", true), ["<s>"]);
    }

    #[test]
    fn longer_tokens_come_first_wherever_they_stand() {
        let tokens = [("abc", Kind::USER_DEFINED), ("cdef", Kind::USER_DEFINED), ("b", Kind::USER_DEFINED)];
        assert_eq!(split(&tokens, "abcdefabc", false), ["a", "#2", "#1", "#0"]);
        let runs = [("  ", Kind::USER_DEFINED), ("    ", Kind::USER_DEFINED)];
        assert_eq!(split(&runs, "x       y", false), ["x", "#1", "#0", " y"]);
    }

    #[test]
    fn some_take_blanks_with_them() {
        let tokens = [
            ("<l>", Kind::USER_DEFINED.and(Kind::STRIPS_LEFT)),
            ("<r>", Kind::USER_DEFINED.and(Kind::STRIPS_RIGHT)),
        ];
        assert_eq!(split(&tokens, " \n<l> a <r> \t<r> b", false), ["#0", " a ", "#1", "#1", "b"]);
    }
}

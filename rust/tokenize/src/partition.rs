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

    /// The parts of `text`: tokens that users define are always found, others where `special`; and none
    /// that means more than its text where it touches one of `literal`, ascending and disjoint.
    ///
    /// Longer tokens come first wherever they stand: a token is found in what all longer ones left.
    pub(crate) fn split(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        special: bool,
        literal: &[Range<usize>],
    ) -> Vec<Fragment> {
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
            let spelling = vocabulary.text(id);
            let is_plain = kind.is(Kind::USER_DEFINED) && !is_structure(spelling);
            let token = Occurrences {
                id,
                kind,
                finder: Finder::new(spelling),
                literal: if is_plain { &[] } else { literal },
            };
            let mut finer = Vec::with_capacity(fragments.len());
            for fragment in fragments {
                match fragment {
                    Fragment::Text(range) => token.cut(text, range, &mut finer),
                    token => finer.push(token),
                }
            }
            fragments = finer;
        }
        fragments
    }
}

/// Whether a token looks like one that structures a conversation, whatever the vocabulary calls it: some
/// files list such tokens as their users' own, which are text.
pub(crate) fn is_structure(spelling: &str) -> bool {
    spelling.len() > 4 && spelling.starts_with("<|") && spelling.ends_with("|>")
}

/// Where a token is found in a text.
struct Occurrences<'a> {
    id: u32,
    kind: Kind,
    finder: Finder<'a>,
    /// Where it is not.
    literal: &'a [Range<usize>],
}

impl Occurrences<'_> {
    /// Appends `range` of `text` cut at the occurrences of the token.
    fn cut(&self, text: &str, range: Range<usize>, out: &mut Vec<Fragment>) {
        let is_blank = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
        let bytes = text.as_bytes();
        let (mut begin, mut from) = (range.start, range.start);
        while let Some(found) = self.finder.find(&bytes[from..range.end]) {
            let (mut before, mut after) = (from + found, from + found + self.finder.needle().len());
            // the first that does not end before it
            let near = self.literal.partition_point(|literal| literal.end <= before);
            if self.literal.get(near).is_some_and(|literal| literal.start < after) {
                from = before + 1;
                continue;
            }
            if self.kind.is(Kind::STRIPS_LEFT) {
                before -= bytes[begin..before].iter().rev().take_while(|byte| is_blank(byte)).count();
            }
            if self.kind.is(Kind::STRIPS_RIGHT) {
                after += bytes[after..range.end].iter().take_while(|byte| is_blank(byte)).count();
            }
            if before > begin {
                out.push(Fragment::Text(begin..before));
            }
            out.push(Fragment::Token(self.id));
            (begin, from) = (after, after);
        }
        if begin < range.end {
            out.push(Fragment::Text(begin..range.end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(tokens: &[(&str, Kind)], text: &str, special: bool) -> Vec<String> {
        split_around(tokens, text, special, &[])
    }

    fn split_around(
        tokens: &[(&str, Kind)],
        text: &str,
        special: bool,
        literal: &[Range<usize>],
    ) -> Vec<String> {
        let texts: Vec<Box<str>> = tokens.iter().map(|(text, _)| (*text).into()).collect();
        let kinds = tokens.iter().map(|(_, kind)| *kind).collect();
        let vocabulary = Vocabulary::new(texts.into(), kinds, Vec::new(), "", "").expect("a vocabulary");
        let partition = Partition::new(&vocabulary).expect("a partition");
        let show = |fragment| match fragment {
            Fragment::Token(id) => format!("#{id}"),
            Fragment::Text(range) => text[range].to_owned(),
        };
        partition.split(&vocabulary, text, special, literal).into_iter().map(show).collect()
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
    fn none_is_found_where_the_text_is_literal() {
        let tokens = [
            ("<s>", Kind::CONTROL),
            ("<|im|>", Kind::USER_DEFINED),
            ("  ", Kind::USER_DEFINED),
            ("<s><s>", Kind::CONTROL),
        ];
        let text = "<s>a<s>  <|im|><|im|><s><s>";
        // the second <s> with the blanks behind it, the second <|im|>, the last <s>
        let literal = [4..9, 15..21, 24..27];
        assert_eq!(
            split_around(&tokens, text, true, &literal),
            ["#0", "a<s>", "#2", "#1", "<|im|>", "#0", "<s>"]
        );
        assert_eq!(split_around(&tokens, text, true, &[]), ["#0", "a", "#0", "#2", "#1", "#1", "#3"]);
        // touching is enough
        assert_eq!(split_around(&tokens, "<s><s>", true, std::slice::from_ref(&(2..3))), ["<s>", "#0"]);
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

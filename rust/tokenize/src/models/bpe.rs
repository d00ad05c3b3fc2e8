//! Byte pair encoding by ranked merges.
//!
//! Merges are pairs of strings, and need not lead to tokens: what a published file lists on its way to
//! a token may itself be none. So strings are numbered, tokens by their ids and the others above, and
//! merging compares numbers alone.

use std::hash::BuildHasher;

use alloyforge_types::{Error, Result};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::merge::Merger;
use crate::byte_level;
use crate::splitter::Splitter;
use crate::vocabulary::Vocabulary;

/// How a text is turned into the characters that merges are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// Each byte is a character, as GPT-2 writes them.
    Bytes,
    /// As it is; characters without a token become byte tokens.
    Plain,
}

/// Ranked merges over a vocabulary.
#[derive(Debug)]
pub(crate) struct Bpe {
    splitter: Splitter,
    spelling: Spelling,
    // Whether a word that is a token is taken whole.
    ignore_merges: bool,
    // The same, for words of newlines alone.
    whole_newlines: bool,
    // By pair of strings: the merge's rank and the string it makes.
    merges: HashMap<(u32, u32), (u32, u32)>,
    // Strings in merges that are no token; their numbers follow the tokens' ids.
    others: Others,
    // By byte: the string that is its character.
    bytes: Vec<u32>,
}

/// No string: a character that neither a token nor a merge knows.
const UNKNOWN: u32 = u32::MAX;

#[derive(Debug)]
struct Others {
    first: u32,
    strings: Vec<Box<str>>,
    by_text: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Others {
    fn find(&self, text: &str) -> Option<u32> {
        if self.strings.is_empty() {
            return None;
        }
        let equal = |&index: &u32| *self.strings[index as usize] == *text;
        self.by_text.find(self.hasher.hash_one(text), equal).map(|index| self.first + index)
    }

    fn intern(&mut self, text: &str) -> u32 {
        if let Some(id) = self.find(text) {
            return id;
        }
        let index = self.strings.len() as u32;
        self.strings.push(text.into());
        let (strings, hasher) = (&self.strings, &self.hasher);
        let rehash = |&index: &u32| hasher.hash_one(&*strings[index as usize]);
        self.by_text.insert_unique(hasher.hash_one(text), index, rehash);
        self.first + index
    }
}

fn is_joined(text: &str, left: &str, right: &str) -> bool {
    text.strip_prefix(left).is_some_and(|rest| rest == right)
}

impl Bpe {
    /// The model of `merges`, each two strings with a blank between them, best first.
    ///
    /// # Errors
    /// `Format`, under `key`, for a merge that is not two strings.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        merges: &[Box<str>],
        splitter: Splitter,
        spelling: Spelling,
        (label, key): (&str, &str),
    ) -> Result<Self> {
        let mut others = Others {
            first: vocabulary.len() as u32,
            strings: Vec::new(),
            by_text: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        };
        let mut map = HashMap::with_capacity(merges.len());
        let mut joined = String::new();
        let mut product = UNKNOWN;
        for (rank, merge) in (0u32..).zip(merges) {
            // The blank is never the first character: that would leave nothing to its left.
            let begin = merge.chars().next().map_or(0, char::len_utf8);
            let parts = merge.get(begin..).and_then(|rest| rest.find(' ')).map(|at| {
                let (left, right) = merge.split_at(begin + at);
                (left, &right[1..])
            });
            let Some((left, right)) = parts.filter(|(_, right)| !right.is_empty()) else {
                return Err(Error::format(
                    label,
                    key,
                    format!("merge {rank}, `{merge}`, is not two strings"),
                ));
            };
            let mut number = |text: &str| vocabulary.text_id(text).unwrap_or_else(|| others.intern(text));
            let pair = (number(left), number(right));
            // Merges mostly come in the order of the tokens they make: then no search is needed.
            let makes = |id: &u32| vocabulary.is_text(*id) && is_joined(vocabulary.text(*id), left, right);
            product = match [product, product.wrapping_add(1)].iter().find(|id| makes(id)) {
                Some(id) => *id,
                None => {
                    joined.clear();
                    joined.push_str(left);
                    joined.push_str(right);
                    number(&joined)
                }
            };
            map.entry(pair).or_insert((rank, product));
        }
        let mut model = Self {
            splitter,
            spelling,
            ignore_merges: false,
            whole_newlines: false,
            merges: map,
            others,
            bytes: Vec::new(),
        };
        let character = |byte| model.number(vocabulary, byte_level::char_of(byte).encode_utf8(&mut [0; 4]));
        model.bytes = (0..=u8::MAX).map(character).collect();
        Ok(model)
    }

    /// Takes words that are tokens whole.
    pub(crate) fn ignore_merges(mut self, ignore: bool) -> Self {
        self.ignore_merges = ignore;
        self
    }

    /// Takes words of newlines that are tokens whole.
    pub(crate) fn whole_newlines(mut self, whole: bool) -> Self {
        self.whole_newlines = whole;
        self
    }

    fn number(&self, vocabulary: &Vocabulary, text: &str) -> u32 {
        vocabulary.text_id(text).or_else(|| self.others.find(text)).unwrap_or(UNKNOWN)
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let mut spelled = String::new();
        let mut begin = 0;
        for end in self.splitter.split(text) {
            let word = &text[begin..end];
            begin = end;
            let whole = self.ignore_merges || (self.whole_newlines && word.bytes().all(|b| b == b'\n'));
            if whole && let Some(id) = self.whole(vocabulary, word, &mut spelled) {
                out.push(id);
                continue;
            }
            merger.clear();
            match self.spelling {
                Spelling::Bytes => word.bytes().for_each(|b| merger.push(self.bytes[usize::from(b)], 1)),
                Spelling::Plain => {
                    for c in word.chars() {
                        let id = self.number(vocabulary, c.encode_utf8(&mut [0; 4]));
                        merger.push(id, c.len_utf8());
                    }
                }
            }
            merger.merge(|a, b| self.merges.get(&(a.id, b.id)).copied());
            for symbol in merger.symbols() {
                if (symbol.id as usize) < vocabulary.len() {
                    out.push(symbol.id);
                } else {
                    let from = symbol.start as usize;
                    self.spell(vocabulary, &word.as_bytes()[from..from + symbol.len as usize], out);
                }
            }
        }
    }

    fn whole(&self, vocabulary: &Vocabulary, word: &str, spelled: &mut String) -> Option<u32> {
        match self.spelling {
            Spelling::Plain => vocabulary.text_id(word),
            Spelling::Bytes => {
                // A byte is at least one byte when spelled: a longer word is no token.
                if word.len() > vocabulary.max_len() {
                    return None;
                }
                spelled.clear();
                spelled.extend(word.bytes().map(byte_level::char_of));
                vocabulary.text_id(spelled)
            }
        }
    }

    /// Appends bytes that merged into no token one by one; those without a token are dropped.
    fn spell(&self, vocabulary: &Vocabulary, bytes: &[u8], out: &mut Vec<u32>) {
        match self.spelling {
            Spelling::Bytes => {
                let ids = bytes.iter().map(|&byte| self.bytes[usize::from(byte)]);
                out.extend(ids.filter(|&id| (id as usize) < vocabulary.len()));
            }
            Spelling::Plain => out.extend(bytes.iter().filter_map(|&byte| vocabulary.byte_id(byte))),
        }
    }
}

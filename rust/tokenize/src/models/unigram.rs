//! SentencePiece's unigram model: of all ways to cut a text into tokens, the one of best total score.

use super::Inexpressible;
use super::charsmap::CharsMap;
use crate::trie::Trie;
use crate::vocabulary::{Kind, Vocabulary};

/// How much worse than the worst token an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A unigram model and its normaliser.
#[derive(Debug)]
pub(crate) struct Unigram {
    trie: Trie,
    unknown_score: f64,
    charsmap: CharsMap,
    /// Whether a blank is put before the text.
    pub(crate) add_space_prefix: bool,
    /// Whether several blanks become one, and those at the ends none.
    pub(crate) remove_extra_whitespaces: bool,
}

/// The best way to cut the text up to a place.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    // Where its last token begins; `None`: that token is the unknown one.
    from: u32,
    token: Option<u32>,
}

impl Unigram {
    /// The model over every token that may be text.
    pub(crate) fn new(vocabulary: &Vocabulary, charsmap: CharsMap) -> Self {
        let text = Kind::NORMAL.and(Kind::USER_DEFINED).and(Kind::UNUSED);
        let matched = |id: &u32| {
            let kind = vocabulary.kind(*id);
            kind.is(text) && !kind.is(Kind::CONTROL) && !vocabulary.text(*id).is_empty()
        };
        let tokens = vocabulary.ids().filter(matched).map(|id| (vocabulary.text(id).as_bytes(), id));
        let normal = vocabulary.ids().filter(|&id| vocabulary.kind(id).is(Kind::NORMAL));
        let worst = normal.map(|id| vocabulary.score(id)).fold(f32::MAX, f32::min);
        Self {
            trie: Trie::new(tokens),
            unknown_score: f64::from(worst - UNKNOWN_PENALTY),
            charsmap,
            add_space_prefix: false,
            remove_extra_whitespaces: false,
        }
    }

    /// Appends the ids of `text`; characters that no token expresses are `unknown`, several in a row
    /// one of them, or the error.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        unknown: Option<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), Inexpressible> {
        let text = self.normalize(text);
        if text.is_empty() {
            return Ok(());
        }
        let unreached = Best { score: f64::MIN, from: 0, token: None };
        let mut best = vec![unreached; text.len() + 1];
        best[0].score = 0.0;
        let mut at = 0;
        while at < text.len() {
            let score = best[at].score;
            let character = character_len(text[at]).min(text.len() - at);
            let mut offer = |len: usize, token: Option<u32>, score: f64| {
                if score > best[at + len].score {
                    best[at + len] = Best { score, from: at as u32, token };
                }
            };
            let mut known = false;
            for (len, id) in self.trie.prefixes(&text[at..]) {
                known |= len == character;
                // What users define is preferred to any ordinary token: those score below 0.
                let defined = vocabulary.kind(id).is(Kind::USER_DEFINED);
                offer(len, Some(id), score + if defined { 0.0 } else { f64::from(vocabulary.score(id)) });
            }
            if !known {
                offer(character, None, score + self.unknown_score);
            }
            at += character;
        }
        let begin = out.len();
        let mut end = text.len();
        let mut was_unknown = false;
        while end > 0 {
            let Best { from, token, .. } = best[end];
            let from = from as usize;
            match token.or(unknown) {
                Some(id) => {
                    let is_unknown = Some(id) == unknown;
                    if !(is_unknown && was_unknown) {
                        out.push(id);
                    }
                    was_unknown = is_unknown;
                }
                None => {
                    return Err(Inexpressible::first_of(&String::from_utf8_lossy(&text[from..end])));
                }
            }
            end = from;
        }
        out[begin..].reverse();
        Ok(())
    }

    /// The text with its characters mapped and its blanks written and counted as the model wants.
    fn normalize(&self, text: &str) -> Vec<u8> {
        let blank = "▁".as_bytes();
        let mut normal = Vec::with_capacity(text.len() + text.len() / 2);
        let (mut prepended, mut in_word) = (false, false);
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (len, mapped) = match self.charsmap.longest(rest.as_bytes()) {
                // A damaged map could end inside a character.
                Some((len, mapped)) if rest.is_char_boundary(len) => (len, mapped),
                _ => (first.len_utf8(), &rest.as_bytes()[..first.len_utf8()]),
            };
            for &byte in mapped {
                if byte != b' ' {
                    if !in_word && (self.remove_extra_whitespaces || (self.add_space_prefix && !prepended)) {
                        normal.extend_from_slice(blank);
                        prepended = true;
                    }
                    in_word = true;
                    normal.push(byte);
                } else {
                    in_word = false;
                    if !self.remove_extra_whitespaces {
                        normal.extend_from_slice(blank);
                    }
                }
            }
            rest = &rest[len..];
        }
        normal
    }
}

/// Bytes of the character that begins with `byte`.
fn character_len(byte: u8) -> usize {
    match byte {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    }
}

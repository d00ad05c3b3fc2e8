//! BERT's WordPiece: normalised words, each cut into the longest tokens from its beginning on.
//!
//! A GGUF vocabulary marks tokens that begin a word with `▁`, where the published ones mark the others
//! with `##`; so a word is looked up with that mark before it.

use std::sync::LazyLock;

use regex_syntax::hir::ClassUnicode;
use unicode_normalization::char::decompose_canonical;

use super::Inexpressible;
use crate::pattern::{ClassTable, parse_class};
use crate::trie::Trie;
use crate::vocabulary::Vocabulary;

const BLANK: u64 = 1;
const CONTROL: u64 = 1 << 1;
const MARK: u64 = 1 << 2;
const ALONE: u64 = 1 << 3;

/// What the normaliser asks of a character: is it a blank, never text, an accent, a word of its own.
static CLASSES: LazyLock<ClassTable> = LazyLock::new(|| {
    // Words of their own are punctuation, ASCII symbols and the CJK blocks, of which one begins later
    // than it should: so it does in the reference, by which vocabularies were trained.
    let alone = r"[\p{P}[\p{S}&&[\x00-\x7e]]\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{f900}-\u{faff}\u{2f800}-\u{2fa1f}]";
    let classes = [r"\s", r"[\p{Cc}\p{Cf}\p{Co}]", r"\p{M}", alone];
    ClassTable::new(&classes.map(|class| parse_class(class, false).unwrap_or_else(ClassUnicode::empty)))
});

/// Longest-match word pieces.
#[derive(Debug)]
pub(crate) struct WordPiece {
    trie: Trie,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    /// The model over every token that may be text.
    pub(crate) fn new(vocabulary: &Vocabulary, lowercase: bool, strip_accents: bool) -> Self {
        let text = |id: &u32| vocabulary.is_text(*id);
        let tokens = vocabulary.ids().filter(text).map(|id| (vocabulary.text(id).as_bytes(), id));
        Self { trie: Trie::new(tokens.filter(|(text, _)| !text.is_empty())), lowercase, strip_accents }
    }

    /// Appends the ids of `text`; a word that no tokens make up is `unknown`, or the error.
    pub(crate) fn encode(
        &self,
        text: &str,
        unknown: Option<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), Inexpressible> {
        for word in self.words(text) {
            let before = out.len();
            let marked = format!("▁{word}");
            let mut rest = marked.as_bytes();
            while !rest.is_empty() {
                let Some((len, id)) = self.trie.longest(rest) else {
                    out.truncate(before);
                    out.push(unknown.ok_or_else(|| Inexpressible::first_of(&word))?);
                    break;
                };
                out.push(id);
                rest = &rest[len..];
            }
        }
        Ok(())
    }

    fn words(&self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = String::new();
        let end = |word: &mut String, words: &mut Vec<String>| {
            if !word.is_empty() {
                words.push(std::mem::take(word));
            }
        };
        for mut c in text.chars() {
            if self.strip_accents {
                // What follows the first character of a decomposition are accents.
                let mut base = None;
                decompose_canonical(c, |part| _ = base.get_or_insert(part));
                c = base.unwrap_or(c);
            }
            let classes = CLASSES.get(c);
            if classes & BLANK != 0 {
                end(&mut word, &mut words);
                continue;
            }
            let accent = self.strip_accents && classes & MARK != 0;
            if classes & CONTROL != 0 || accent || matches!(c, '\0' | char::REPLACEMENT_CHARACTER) {
                continue;
            }
            let lower = if self.lowercase { c.to_lowercase().next().unwrap_or(c) } else { c };
            if classes & ALONE != 0 {
                end(&mut word, &mut words);
                words.push(lower.to_string());
            } else {
                word.push(lower);
            }
        }
        end(&mut word, &mut words);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, uncased: bool) -> Vec<String> {
        let model =
            WordPiece { trie: Trie::new(std::iter::empty()), lowercase: uncased, strip_accents: uncased };
        model.words(text)
    }

    #[test]
    fn words_are_normalised_as_the_model_says() {
        assert_eq!(words(" \u{c4}pfel\u{a0}Cafe\u{301}!", true), ["apfel", "cafe", "!"]);
        assert_eq!(words("\u{c4}pfel e\u{301}", false), ["\u{c4}pfel", "e\u{301}"]);
        assert_eq!(words("a\u{0}b\u{200d}c\u{fffd}d\u{1}", true), ["abcd"]);
        assert_eq!(words("ab\u{4e2d}\u{6587}c", true), ["ab", "\u{4e2d}", "\u{6587}", "c"]);
        assert_eq!(words("a+b\u{20ac}c\u{d7}d", true), ["a", "+", "b\u{20ac}c\u{d7}d"]);
        assert_eq!(words(" \t\n", true), [""; 0]);
    }
}

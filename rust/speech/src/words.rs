//! A text's tokens, word by word.

use crate::Vocabulary;

/// Marks that belong to the word behind them.
const PREPENDED: &str = "\"'“¿([{-";

/// Marks that belong to the word before them.
const APPENDED: &str = "\"'.。,，!！?？:：”)]}、";

/// Languages that are written without spaces.
const UNSPACED: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];

/// A word: its text and tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spelled {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
}

/// Cuts `tokens` between characters, and, where the language has spaces, joins what stands between them.
pub(crate) fn split(vocabulary: &Vocabulary, tokens: &[u32], language: Option<&str>) -> Vec<Spelled> {
    let characters = by_characters(vocabulary, tokens);
    if language.is_some_and(|code| UNSPACED.contains(&code)) {
        return characters;
    }
    let mut words: Vec<Spelled> = Vec::new();
    for piece in characters {
        let trimmed = piece.text.trim();
        let is_mark = !trimmed.is_empty() && trimmed.chars().all(|c| c.is_ascii_punctuation());
        match words.last_mut() {
            Some(word) if !piece.text.starts_with(' ') && !is_mark => {
                word.text.push_str(&piece.text);
                word.tokens.extend(piece.tokens);
            }
            _ => words.push(piece),
        }
    }
    words
}

/// The smallest groups of tokens that are whole characters.
fn by_characters(vocabulary: &Vocabulary, tokens: &[u32]) -> Vec<Spelled> {
    let mut out = Vec::new();
    let (mut bytes, mut held) = (Vec::new(), Vec::new());
    for &id in tokens {
        if let Some(piece) = vocabulary.tokenizer.token_bytes(id) {
            bytes.extend_from_slice(&piece);
        }
        held.push(id);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            out.push(Spelled { text: text.to_owned(), tokens: std::mem::take(&mut held) });
            bytes.clear();
        }
    }
    if !held.is_empty() {
        out.push(Spelled { text: String::from_utf8_lossy(&bytes).into_owned(), tokens: held });
    }
    out
}

/// A word with its times.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timed {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) probability: f32,
}

/// Joins marks with the words that they belong to; what they are joined with keeps its times.
pub(crate) fn join_marks(words: &mut Vec<Timed>) {
    let mut i = words.len();
    while i > 1 {
        i -= 1;
        let mark = &words[i - 1].text;
        if mark.starts_with(' ') && !mark.trim().is_empty() && PREPENDED.contains(mark.trim()) {
            let mark = words.remove(i - 1);
            let word = &mut words[i - 1];
            word.text.insert_str(0, &mark.text);
            word.tokens.splice(0..0, mark.tokens);
        }
    }
    let mut i = 1;
    while i < words.len() {
        if !words[i].text.is_empty()
            && APPENDED.contains(words[i].text.as_str())
            && !words[i - 1].text.ends_with(' ')
        {
            let mark = words.remove(i);
            words[i - 1].text.push_str(&mark.text);
            words[i - 1].tokens.extend(mark.tokens);
        } else {
            i += 1;
        }
    }
}

//! PLaMo-2's tokenizer: the way to cut a text of best total score, found from its end.

use crate::trie::Trie;
use crate::vocabulary::{Kind, Vocabulary};

/// Cost of a character written as bytes, in the units of [`cost`].
const UNKNOWN: i64 = 10_000_000;

/// A score in ten-thousandths, rounded; `None` where it is too bad ever to be chosen.
fn cost(score: f32) -> Option<i64> {
    let units = (score * 1e4).round();
    (units.is_finite() && units > -20_000_000.0).then_some(-units as i64)
}

/// Best-scored tokens with byte fallback.
#[derive(Debug)]
pub(crate) struct Plamo2 {
    trie: Trie,
    bytes: Vec<u32>,
}

/// The best way to cut the text from a place on.
#[derive(Clone, Copy)]
struct Best {
    cost: i64,
    len: u32,
    token: Option<u32>,
}

impl Plamo2 {
    /// The model over every token that may be text; `None` where a byte has no token.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Option<Self> {
        let bytes = (0..=u8::MAX).map(|byte| vocabulary.byte_id(byte)).collect::<Option<_>>()?;
        let never = Kind::BYTE.and(Kind::CONTROL).and(Kind::UNKNOWN);
        let matched = |id: &u32| {
            let text = vocabulary.text(*id);
            !vocabulary.kind(*id).is(never) && !text.is_empty() && cost(vocabulary.score(*id)).is_some()
        };
        let tokens = vocabulary.ids().filter(matched).map(|id| (vocabulary.text(id).as_bytes(), id));
        Some(Self { trie: Trie::new(tokens), bytes })
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut best = vec![Best { cost: 0, len: 0, token: None }; text.len() + 1];
        for (at, c) in text.char_indices().rev() {
            let len = c.len_utf8();
            let mut choice = Best { cost: best[at + len].cost + UNKNOWN, len: len as u32, token: None };
            // Of equal ways the longest token wins, and bytes come last.
            for (len, id) in self.trie.prefixes(&text.as_bytes()[at..]) {
                let total = best[at + len].cost + cost(vocabulary.score(id)).unwrap_or(UNKNOWN);
                if total <= choice.cost {
                    choice = Best { cost: total, len: len as u32, token: Some(id) };
                }
            }
            best[at] = choice;
        }
        let mut at = 0;
        while at < text.len() {
            let Best { len, token, .. } = best[at];
            let end = at + len as usize;
            match token {
                Some(id) => out.push(id),
                None => out.extend(text.as_bytes()[at..end].iter().map(|&b| self.bytes[usize::from(b)])),
            }
            at = end;
        }
    }
}

//! SentencePiece's byte pair encoding: the neighbours whose union scores best are merged first.
//!
//! There is no list of merges. Any two neighbours whose texts together are a token may merge, and the
//! token's score says how soon; so a pair is looked up by its text, not by two ids.

use super::Inexpressible;
use super::merge::Merger;
use crate::vocabulary::Vocabulary;

/// A character that is yet no token.
const UNKNOWN: u32 = u32::MAX;

/// Cost of a merge: the less, the better the score.
fn cost(score: f32) -> u32 {
    // Adding 0 makes -0 equal to 0, as it is to a comparison of floats.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { !(bits | 1 << 31) } else { bits }
}

/// Appends the ids of `text`, in which blanks are already `▁`. Characters that no token expresses
/// become byte tokens, or `unknown`; the first of them that cannot is the error.
pub(crate) fn encode(
    vocabulary: &Vocabulary,
    unknown: Option<u32>,
    text: &str,
    out: &mut Vec<u32>,
) -> Result<(), Inexpressible> {
    let mut merger = Merger::default();
    for c in text.chars() {
        merger.push(UNKNOWN, c.len_utf8());
    }
    merger.merge(|a, b| {
        let (from, to) = (a.start as usize, (b.start + b.len) as usize);
        let id = vocabulary.text_id(&text[from..to])?;
        Some((cost(vocabulary.score(id)), id))
    });
    for symbol in merger.symbols() {
        if symbol.id != UNKNOWN {
            out.push(symbol.id);
            continue;
        }
        // A character that met no neighbour; it may be a token all the same.
        let from = symbol.start as usize;
        let character = &text[from..from + symbol.len as usize];
        if let Some(id) = vocabulary.text_id(character) {
            out.push(id);
            continue;
        }
        let before = out.len();
        for byte in character.bytes() {
            match vocabulary.byte_id(byte) {
                Some(id) => out.push(id),
                None => {
                    out.truncate(before);
                    break;
                }
            }
        }
        if out.len() == before {
            out.push(unknown.ok_or_else(|| Inexpressible::first_of(character))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_scores_cost_less() {
        let scores = [f32::INFINITY, 7.5, 1e-30, 0.0, -1e-30, -1.0, -2.5, -1e9, f32::NEG_INFINITY];
        assert!(scores.windows(2).all(|pair| cost(pair[0]) < cost(pair[1])));
        assert_eq!(cost(0.0), cost(-0.0));
    }
}

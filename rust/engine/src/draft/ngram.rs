//! Guesses from the text so far: what followed the last time that it ended as it does now.
//!
//! The search is that of LZ77 compressors (Ziv and Lempel 1977): pairs of tokens lead to the places
//! where they stood before, and among the latest of these the one whose text before agrees longest is
//! gone on from. Known as prompt lookup decoding.

use std::collections::HashMap;

/// Places that are looked at for one guess.
const MOST_PLACES: usize = 16;

/// Agreement, in tokens, beyond which no longer one is looked for.
const LONG_ENOUGH: usize = 24;

/// No place: there is none before the first.
const NOWHERE: u32 = u32::MAX;

/// Where each pair of neighbouring tokens of a text stood.
#[derive(Debug, Default)]
pub(crate) struct NgramIndex {
    /// The latest place behind each pair.
    latest: HashMap<(u32, u32), u32>,
    /// For each place, the one before it behind the same pair. Its length is that of the text known.
    earlier: Vec<u32>,
}

impl NgramIndex {
    /// Takes in what `tokens` has more than the text known so far.
    pub(crate) fn extend(&mut self, tokens: &[u32]) {
        for place in self.earlier.len()..tokens.len().min(NOWHERE as usize) {
            // the place behind the token of this index
            let before = match place.checked_sub(1) {
                Some(first) => self.latest.insert((tokens[first], tokens[place]), place as u32 + 1),
                None => None,
            };
            self.earlier.push(before.unwrap_or(NOWHERE));
        }
    }

    /// Puts at most `most` guesses at what follows `tokens`, which the index knows, into `guesses`.
    /// Returns for how many tokens the place gone on from agrees with the end of the text: 0 without
    /// one.
    pub(crate) fn guess(&self, tokens: &[u32], most: usize, guesses: &mut Vec<u32>) -> usize {
        guesses.clear();
        let Some(mut place) = self.earlier.last().copied() else { return 0 };
        let mut best = (0, 0);
        for _ in 0..MOST_PLACES {
            if place == NOWHERE {
                break;
            }
            let at = place as usize;
            let ends = tokens[..at].iter().rev().zip(tokens.iter().rev());
            let agreement = ends.take(LONG_ENOUGH).take_while(|(a, b)| a == b).count();
            if agreement > best.0 {
                best = (agreement, at);
            }
            if agreement >= LONG_ENOUGH {
                break;
            }
            place = self.earlier[at - 1];
        }
        let (agreement, at) = best;
        if agreement == 0 {
            return 0;
        }
        for i in 0..most {
            // a text that repeats itself goes on into the guesses
            let next = match tokens.get(at + i) {
                Some(&token) => token,
                None => guesses[at + i - tokens.len()],
            };
            guesses.push(next);
        }
        agreement
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guess(tokens: &[u32], most: usize) -> (usize, Vec<u32>) {
        let mut index = NgramIndex::default();
        index.extend(tokens);
        let mut guesses = Vec::new();
        (index.guess(tokens, most, &mut guesses), guesses)
    }

    #[test]
    fn the_longest_agreement_wins_and_the_latest_among_equals() {
        assert_eq!(guess(&[1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 2), (3, vec![9, 2]));
        assert_eq!(guess(&[2, 3, 9, 2, 3, 8, 7, 2, 3], 1), (2, vec![8]));
        assert_eq!(guess(&[1, 2, 3, 4], 3), (0, vec![]));
        assert_eq!(guess(&[], 3), (0, vec![]));
    }

    #[test]
    fn a_loop_goes_on() {
        assert_eq!(guess(&[5, 6, 7, 5, 6, 7, 5, 6], 5).1, [7, 5, 6, 7, 5]);
        assert_eq!(guess(&[4, 4, 4], 4).1, [4, 4, 4, 4]);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_of_everything_finds(tokens in prop::collection::vec(0u32..3, 0..40)) {
            let (agreement, guesses) = guess(&tokens, 1);
            let agreement_at = |at: usize| {
                tokens[..at].iter().rev().zip(tokens.iter().rev()).take_while(|(a, b)| a == b).count()
            };
            // of the places behind the pair that the text ends with, the latest few count
            let places = (2..tokens.len()).rev().filter(|&at| agreement_at(at) >= 2).take(MOST_PLACES);
            let best = places.max_by_key(|&at| (agreement_at(at).min(LONG_ENOUGH), at));
            match best {
                Some(at) => {
                    prop_assert_eq!(agreement, agreement_at(at).min(LONG_ENOUGH));
                    prop_assert_eq!(guesses, vec![tokens[at]]);
                }
                None => prop_assert_eq!((agreement, guesses), (0, vec![])),
            }
        }
    }
}

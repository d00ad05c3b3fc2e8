//! "Don't repeat yourself": a penalty on tokens that would continue a repeated sequence.

use std::collections::HashMap;

use alloyforge_types::DryParams;

use super::breakers::Breakers;

/// Lowers the logit of every token that, were it next, would lengthen a repeat of the latest tokens:
/// by `multiplier * base ^ (repeat - allowed_length)` for the longest such repeat.
pub(super) fn apply(logits: &mut [f32], tokens: &[u32], params: &DryParams, breakers: &Breakers) {
    let allowed = params.allowed_length.max(1);
    let limit = breakers.tokens_since_last(tokens);
    if limit < allowed {
        return;
    }
    // keep the power finite
    let most = if params.base > 1.0 { (f32::MAX.ln() / params.base.ln()) as usize } else { usize::MAX };
    for (token, repeat) in longest_repeats(tokens, limit) {
        if repeat < allowed || breakers.is_single(token) {
            continue;
        }
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        let power = params.base.powi((repeat - allowed).min(most).min(i32::MAX as usize) as i32);
        *logit -= params.multiplier * power;
    }
}

/// For every token that stood after an earlier occurrence of the latest tokens, how many of them had
/// occurred (at most `limit`), the longest where there are several.
fn longest_repeats(tokens: &[u32], limit: usize) -> HashMap<u32, usize> {
    let mut longest = HashMap::new();
    for (back, len) in matches_from_the_end(tokens).into_iter().enumerate().skip(1) {
        let repeat = len.min(limit);
        if repeat > 0 {
            // the latest tokens occurred `back` places earlier, and this stood after them
            let next = tokens[tokens.len() - back];
            let entry = longest.entry(next).or_insert(0);
            *entry = repeat.max(*entry);
        }
    }
    longest
}

/// Entry `k`: how many of the latest tokens equal those that stand `k` places before them. The
/// Z-algorithm on the reversed sequence (Gusfield, "Algorithms on strings, trees and sequences", 1.4):
/// linear in its length.
fn matches_from_the_end(tokens: &[u32]) -> Vec<usize> {
    let n = tokens.len();
    let at = |i: usize| tokens[n - 1 - i];
    let mut z = vec![0; n];
    let (mut left, mut right) = (0, 0); // the furthest-reaching match found: [left, right)
    for k in 1..n {
        let mut len = if k < right { z[k - left].min(right - k) } else { 0 };
        while k + len < n && at(len) == at(k + len) {
            len += 1;
        }
        if k + len > right {
            (left, right) = (k, k + len);
        }
        z[k] = len;
    }
    z
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(tokens: &[u32], limit: usize) -> HashMap<u32, usize> {
        let n = tokens.len();
        let mut longest = HashMap::new();
        for end in 1..n {
            // tokens[..end] ends like the whole for `len` tokens; tokens[end] followed
            let len = (0..end).take_while(|&i| tokens[end - 1 - i] == tokens[n - 1 - i]).count().min(limit);
            if len > 0 {
                let entry = longest.entry(tokens[end]).or_insert(0);
                *entry = len.max(*entry);
            }
        }
        longest
    }

    proptest! {
        #[test]
        fn repeats_match_a_naive_search(tokens in prop::collection::vec(0u32..3, 0..60), limit in 0usize..20) {
            prop_assert_eq!(longest_repeats(&tokens, limit), naive(&tokens, limit));
        }
    }

    /// llama.cpp's published cases (`tests/test-sampling.cpp`, test_dry): the penalty in logits.
    #[test]
    fn published_cases() {
        let run = |tokens: &[u32], n, base, allowed, breakers: &[&[u32]]| {
            let params =
                DryParams { multiplier: 1.0, base, allowed_length: allowed, sequence_breakers: vec![] };
            let mut logits = vec![0.0f32; n];
            apply(&mut logits, tokens, &params, &Breakers::from_tokens(breakers));
            logits
        };
        assert_eq!(run(&[0, 1], 4, 1.1, 2, &[]), [0.0; 4]);
        assert_eq!(run(&[0, 1, 2, 0, 1], 4, 1.1, 2, &[]), [0.0, 0.0, -1.0, 0.0]);
        assert_eq!(run(&[0, 1, 3, 4, 0, 1], 5, 1.1, 2, &[&[3]]), [0.0; 5]);
        assert_eq!(run(&[0, 1, 2, 3, 4, 0, 1], 5, 1.1, 4, &[]), [0.0; 5]);
    }
}

//! When each word is said.

use alloyforge_types::Result;

use super::{Plan, Transcriber};
use crate::FRAMES_PER_SECOND;
use crate::align::starts;
use crate::logits::log_sum_exp;
use crate::segments::Pieces;
use crate::transcript::{Segment, Word};
use crate::words::{Timed, join_marks, split};

impl Transcriber {
    /// Finds when each word of the segments is said (OpenAI's `timing.py`).
    pub(super) fn words(
        &mut self,
        plan: &Plan<'_>,
        segments: &mut [Segment],
        slot: usize,
        offset: f64,
        size: usize,
    ) -> Result<()> {
        let v = &self.vocabulary;
        let text: Vec<u32> = segments
            .iter()
            .flat_map(|s| s.tokens.iter().copied())
            .filter(|&id| !v.is_timestamp(id) && id != v.end)
            .collect();
        if text.is_empty() {
            return Ok(());
        }
        let mut tokens = plan.begin.clone();
        tokens.extend(v.no_timestamps);
        let before = tokens.len();
        tokens.extend_from_slice(&text);
        tokens.push(v.end);
        tokens.truncate(self.decoder.limits().target_len);
        let heads = v.alignment_heads.clone();
        let mut probabilities = vec![0.0; text.len()];
        let watched = self.decoder.force(slot, &tokens, &heads, |row, logits| {
            // the row before a token says how probable it is
            if let Some(i) = (row + 1).checked_sub(before).filter(|&i| i < text.len()) {
                probabilities[i] = (logits[text[i] as usize] - log_sum_exp(logits)).exp();
            }
        })?;
        let source = self.decoder.limits().source_len;
        let shape = (heads.len(), tokens.len(), source);
        let last = tokens.len() - 1;
        // from the token before the text on, each row foretells the next token
        let found = starts(&watched, shape, (before - 1, last), size.div_ceil(2));
        let time = |token: usize| found[token.min(found.len() - 1)] as f64 * 0.02;
        let mut words = Vec::new();
        let mut at = 0;
        for word in split(&self.vocabulary, &text, plan.language) {
            let len = word.tokens.len();
            let mean = probabilities[at..at + len].iter().sum::<f32>() / len as f32;
            let (start, end) = (time(at), time(at + len));
            words.push(Timed { text: word.text, tokens: word.tokens, start, end, probability: mean });
            at += len;
        }
        bound(&mut words);
        join_marks(&mut words);
        let mut words = words.into_iter();
        for segment in segments {
            let mut left = segment
                .tokens
                .iter()
                .filter(|&&id| !self.vocabulary.is_timestamp(id) && id != self.vocabulary.end)
                .count();
            while left > 0 {
                let Some(word) = words.next() else { break };
                left = left.saturating_sub(word.tokens.len());
                segment.words.push(Word {
                    text: word.text,
                    start: offset + word.start,
                    end: offset + word.end,
                    probability: word.probability,
                });
            }
            if let (Some(first), Some(last)) = (segment.words.first(), segment.words.last()) {
                let (first, last) = (first.start, last.end);
                // the decoder's own times where the words' are not sound
                if last > first {
                    (segment.start, segment.end) = (first, last);
                }
            }
        }
        Ok(())
    }
}

/// Where the next window begins once words are known: behind the last one, where text was cut off.
pub(super) fn after_words(pieces: &Pieces, segments: &[Segment], offset: f64, frames: usize) -> usize {
    let last = segments.iter().rev().find_map(|s| s.words.last()).map(|word| word.end);
    match last {
        Some(end) if !pieces.is_closed && end > offset => {
            (((end - offset) * FRAMES_PER_SECOND as f64).round() as usize).clamp(1, frames.max(1))
        }
        _ => frames,
    }
}

/// Shortens words beside the ends of sentences that are far longer than the median word.
fn bound(words: &mut [Timed]) {
    const MARKS: &str = ".。!！?？";
    let mut lengths: Vec<f64> = words.iter().map(|w| w.end - w.start).filter(|d| *d > 0.0).collect();
    if lengths.is_empty() {
        return;
    }
    lengths.sort_by(f64::total_cmp);
    let most = 2.0 * lengths[lengths.len() / 2].min(0.7);
    for i in 1..words.len() {
        if words[i].end - words[i].start > most {
            if MARKS.contains(words[i].text.as_str()) {
                words[i].end = words[i].start + most;
            } else if MARKS.contains(words[i - 1].text.as_str()) {
                words[i].start = words[i].end - most;
            }
        }
    }
}

//! From a window's tokens to segments of text with times.

use crate::Vocabulary;

/// A piece of a window's text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    /// In seconds from the window's start.
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) tokens: Vec<u32>,
}

/// What a window came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pieces {
    pub(crate) pieces: Vec<Piece>,
    /// Frames that are done with; the next window begins behind them.
    pub(crate) frames: usize,
    /// Whether the last piece ended with one timestamp, so that nothing is cut off.
    pub(crate) is_closed: bool,
}

/// Frames that a step of a timestamp stands for.
const STEP: usize = 2;

/// Seconds of such a step.
const SECONDS: f64 = 0.02;

/// Cuts `tokens` of a window of `frames` frames at its pairs of timestamps (OpenAI's `transcribe.py`).
pub(crate) fn cut(vocabulary: &Vocabulary, tokens: &[u32], frames: usize) -> Pieces {
    let seconds = frames as f64 / crate::FRAMES_PER_SECOND as f64;
    let first = vocabulary.first_timestamp.unwrap_or(u32::MAX);
    let is_time = |i: usize| tokens[i] >= first;
    let steps = |id: u32| (id - first) as usize;
    let len = tokens.len();
    let is_closed = len >= 2 && !is_time(len - 2) && is_time(len - 1);
    let mut ends: Vec<usize> = (1..len).filter(|&i| is_time(i - 1) && is_time(i)).collect();
    if ends.is_empty() {
        let last = tokens.iter().rfind(|&&id| id >= first).map(|&id| steps(id));
        let end = last.filter(|&n| n > 0).map_or(seconds, |n| n as f64 * SECONDS);
        let pieces = vec![Piece { start: 0.0, end, tokens: tokens.to_vec() }];
        return Pieces { pieces, frames, is_closed };
    }
    if is_closed {
        ends.push(len);
    }
    let mut pieces = Vec::with_capacity(ends.len());
    let mut begin = 0;
    for end in ends {
        let part = &tokens[begin..end];
        let time = |id: u32| if id >= first { steps(id) as f64 * SECONDS } else { 0.0 };
        pieces.push(Piece { start: time(part[0]), end: time(part[part.len() - 1]), tokens: part.to_vec() });
        begin = end;
    }
    let done = if is_closed { frames } else { (steps(tokens[begin - 1]) * STEP).min(frames) };
    // a window that ends where it begins would come again for ever
    Pieces { pieces, frames: if done == 0 { frames } else { done }, is_closed }
}

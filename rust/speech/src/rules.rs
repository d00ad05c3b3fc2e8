//! What a step's logits must obey (Radford et al., arXiv 2212.04356, and OpenAI's `decoding.py`).

use crate::Vocabulary;
use crate::logits::{log_sum_exp, max};

/// The rules of one task.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Never written.
    pub suppressed: Vec<u32>,
    /// Not written first.
    pub suppressed_first: Vec<u32>,
    /// Whether timestamps are written, in pairs and in order.
    pub timestamps: bool,
    /// The latest first timestamp, in steps of 0.02 s.
    pub max_initial_timestamp: Option<usize>,
}

impl Rules {
    /// None: every token may be written at any time.
    pub fn none() -> Self {
        Self {
            suppressed: Vec::new(),
            suppressed_first: Vec::new(),
            timestamps: false,
            max_initial_timestamp: None,
        }
    }

    /// Makes minus infinity of every logit that may not come behind `written`.
    pub fn apply(&self, vocabulary: &Vocabulary, written: &[u32], logits: &mut [f32]) {
        let mut forbid = |ids: &[u32]| {
            for &id in ids {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        };
        forbid(&self.suppressed);
        if written.is_empty() {
            forbid(&self.suppressed_first);
        }
        if let (true, Some(first)) = (self.timestamps, vocabulary.first_timestamp) {
            if let Some(id) = vocabulary.no_timestamps {
                forbid(&[id]);
            }
            self.timestamps(vocabulary, first as usize, written, logits);
        }
    }

    fn timestamps(&self, vocabulary: &Vocabulary, first: usize, written: &[u32], logits: &mut [f32]) {
        let first = first.min(logits.len());
        let is_timestamp = |id: &u32| *id as usize >= first;
        let last_is = written.last().is_some_and(is_timestamp);
        let before_is = written.len() < 2 || is_timestamp(&written[written.len() - 2]);
        if last_is {
            if before_is {
                // a pair is complete: text follows
                logits[first..].fill(f32::NEG_INFINITY);
            } else {
                // one of a pair: its other half follows, or the end
                let end = (vocabulary.end as usize).min(first);
                logits[..end].fill(f32::NEG_INFINITY);
            }
        }
        if let Some(&latest) = written.iter().rfind(|id| is_timestamp(id)) {
            // in order, and a segment takes time
            let least = latest as usize + usize::from(!last_is || before_is);
            let least = least.min(logits.len());
            logits[first..least.max(first)].fill(f32::NEG_INFINITY);
        }
        if written.is_empty() {
            logits[..first].fill(f32::NEG_INFINITY);
            if let Some(most) = self.max_initial_timestamp {
                let from = (first + most + 1).min(logits.len());
                logits[from..].fill(f32::NEG_INFINITY);
            }
        }
        // all timestamps together more probable than any one piece of text
        if log_sum_exp(&logits[first..]) > max(&logits[..first]) {
            logits[..first].fill(f32::NEG_INFINITY);
        }
    }
}

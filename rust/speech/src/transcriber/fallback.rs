//! Windows decoded again, at higher temperatures, until their text is neither repetitive nor improbable.

use std::io::Write;

use alloyforge_types::{Error, Result};
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::{Plan, Transcriber};
use crate::decode::{Decoded, How, Task};

/// A window, decoded.
pub(super) struct Window {
    pub(super) decoded: Decoded,
    pub(super) temperature: f32,
    pub(super) ratio: f32,
}

impl Transcriber {
    /// Decodes at each temperature what the one before did not get right.
    pub(super) fn with_fallback(
        &mut self,
        plan: &Plan<'_>,
        tasks: &[Task],
        round: u64,
    ) -> Result<Vec<Window>> {
        let options = plan.options;
        let mut out: Vec<Option<Window>> = tasks.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..tasks.len()).collect();
        for (i, &temperature) in options.temperatures.iter().enumerate() {
            let how = How {
                temperature,
                beam_size: options.beam_size,
                patience: options.patience,
                best_of: options.best_of,
                max_tokens: plan.max_tokens,
                ignore_end: false,
                seed: options.seed.wrapping_add((round << 36).wrapping_add((i as u64) << 32)),
            };
            let asked: Vec<Task> = left.iter().map(|&t| tasks[t].clone()).collect();
            let decoded = self.decoder.decode(&self.vocabulary, &asked, &how)?;
            let mut again = Vec::new();
            for (&task, decoded) in left.iter().zip(decoded) {
                let text = self.vocabulary.text(&decoded.tokens);
                let ratio = compression_ratio(text.trim());
                let is_repetitive = options.compression_ratio_threshold.is_some_and(|most| ratio > most);
                let is_improbable =
                    options.logprob_threshold.is_some_and(|least| decoded.mean_logprob < least);
                let is_silent =
                    options.no_speech_threshold.is_some_and(|most| decoded.no_speech > most) && is_improbable;
                if (is_repetitive || is_improbable) && !is_silent {
                    again.push(task);
                }
                out[task] = Some(Window { decoded, temperature, ratio });
            }
            left = again;
            if left.is_empty() {
                break;
            }
        }
        out.into_iter().map(|w| w.ok_or_else(|| Error::internal("a window without text"))).collect()
    }
}

/// How many times smaller `text` becomes when it is compressed.
fn compression_ratio(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    packed.map_or(1.0, |packed| text.len() as f32 / packed.len().max(1) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_compressed() {
        let varied = "the quick brown fox jumps over the lazy dog";
        assert!(compression_ratio(varied) < 1.2);
        assert!(compression_ratio(&"no no no ".repeat(30)) > 2.4);
        assert!(compression_ratio("") < 1.0);
    }
}

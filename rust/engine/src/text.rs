//! An answer's text while it is written: whole characters, and stop texts held back.

use std::sync::Arc;

use alloyforge_interfaces::Tokenizer;
use alloyforge_tokenize::StreamDecoder;

/// Where a text ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It goes on.
    Open,
    /// A stop text has come; what stands before it is the whole text.
    Stopped,
}

/// Turns tokens into text that can be shown: nothing of it is ever taken back.
pub(crate) struct TextStream {
    decoder: StreamDecoder,
    stops: Vec<String>,
    /// Text that may turn out to be the beginning of a stop text.
    held: String,
}

impl TextStream {
    /// A text that ends before the first of `stops`, none of which is empty.
    /// Special tokens have a text where `special`.
    pub(crate) fn new(tokenizer: Arc<dyn Tokenizer>, stops: Vec<String>, special: bool) -> Self {
        let decoder = StreamDecoder::continuing(tokenizer);
        let decoder = if special { decoder.with_special() } else { decoder };
        Self { decoder, stops, held: String::new() }
    }

    /// Takes a token and adds the text that is certain now to `out`.
    pub(crate) fn push(&mut self, token: u32, out: &mut String) -> Flow {
        let text = self.decoder.push(token);
        self.accept(&text, out)
    }

    /// Adds the rest to `out`: the text ends here, whatever might have come.
    pub(crate) fn finish(&mut self, out: &mut String) -> Flow {
        let text = self.decoder.finish();
        let flow = self.accept(&text, out);
        if flow == Flow::Open {
            out.push_str(&self.held);
        }
        self.held.clear();
        flow
    }

    fn accept(&mut self, text: &str, out: &mut String) -> Flow {
        if self.stops.is_empty() {
            out.push_str(text);
            return Flow::Open;
        }
        if text.is_empty() {
            return Flow::Open;
        }
        self.held.push_str(text);
        // the stop text that is complete first, as if the text came character by character
        let found = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        if let Some((_, start)) = found.min() {
            out.push_str(&self.held[..start]);
            self.held.clear();
            return Flow::Stopped;
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let sure = self.held.len() - keep;
        out.push_str(&self.held[..sure]);
        self.held.drain(..sure);
        Flow::Open
    }
}

/// The longest end of `text`, in bytes, that `stop` begins with, shorter than `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest)
        .rev()
        .find(|&n| stop.is_char_boundary(n) && text.as_bytes().ends_with(&stop.as_bytes()[..n]))
        .unwrap_or(0)
}

//! The vocabulary as llguidance takes it.

use std::sync::Arc;

use alloyforge_interfaces::Tokenizer;
use alloyforge_types::{Error, Result};
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::panic_utils;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

/// The longest token that a constrained answer may hold, in bytes: the trie is no deeper.
const MAX_TOKEN: usize = 1000;

/// Lexer states that one form may lead to, of one or two thousand bytes each.
const MAX_STATES: usize = 50_000;

/// A maker of parsers over the tokens of `tokenizer`, for a model of `vocab_size`.
///
/// # Errors
/// `Internal` where the vocabulary is none that a trie can hold.
pub(super) fn factory(tokenizer: &dyn Tokenizer, vocab_size: usize) -> Result<ParserFactory> {
    let made = panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut words: Vec<Vec<u8>> = (0..vocab_size as u32).map(|id| word(tokenizer, id)).collect();
        let mut ends: Vec<u32> =
            tokenizer.eos().iter().copied().filter(|&id| (id as usize) < vocab_size).collect();
        if ends.is_empty() {
            // one that the model does not have and never draws
            ends.push(words.len() as u32);
            words.push(b"\xff<end>".to_vec());
        }
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, ends[0]), &words).with_eos_tokens(&ends);
        // not canonical: how a text is cut into tokens is the model's to say
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices)?;
        factory.quiet();
        factory.limits_mut().max_lexer_states = MAX_STATES;
        factory.limits_mut().verbose_errors = false;
        Ok(factory)
    }));
    made.map_err(|error| {
        Error::internal(format!("no constraints on this vocabulary: {}", super::said(&error.to_string())))
    })
}

/// The bytes of a token; of a special one, its name behind llguidance's mark for them; none where it has
/// none and may not be drawn.
fn word(tokenizer: &dyn Tokenizer, id: u32) -> Vec<u8> {
    let Some(bytes) = tokenizer.token_bytes(id).filter(|bytes| bytes.len() <= MAX_TOKEN) else {
        return Vec::new();
    };
    if tokenizer.is_special(id) && !bytes.is_empty() {
        return [&[TokTrie::SPECIAL_TOKEN_MARKER], &*bytes].concat();
    }
    bytes.into_owned()
}

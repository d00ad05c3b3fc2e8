//! The token that begins a text, as callers mean it.

use alloyforge_interfaces::Tokenizer;
use alloyforge_types::Result;

/// The ids of `text`, with BOS first where `add_bos` says so (`None`: where the model wants it), unless
/// it is there already.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn encode_with_bos(
    tokenizer: &dyn Tokenizer,
    text: &str,
    special: bool,
    add_bos: Option<bool>,
) -> Result<Vec<u32>> {
    let mut tokens = tokenizer.encode(text, special)?;
    let (bos, by_default) = tokenizer.bos();
    if let Some(bos) = bos
        && add_bos.unwrap_or(by_default)
        && tokens.first() != Some(&bos)
    {
        tokens.insert(0, bos);
    }
    Ok(tokens)
}

/// `tokens` without a BOS token in front, which encoding puts there and which is no text.
pub fn without_bos<'a>(tokenizer: &dyn Tokenizer, tokens: &'a [u32]) -> &'a [u32] {
    match (tokens, tokenizer.bos().0) {
        ([first, rest @ ..], Some(bos)) if *first == bos => rest,
        _ => tokens,
    }
}

//! The models of GGUF vocabularies: text without special tokens to ids.

mod bpe;
mod charsmap;
mod merge;
mod plamo2;
mod rwkv;
mod spm;
mod unigram;
mod wordpiece;

pub(crate) use bpe::{Bpe, Spelling};
pub(crate) use charsmap::CharsMap;
pub(crate) use plamo2::Plamo2;
pub(crate) use rwkv::{Rwkv, unescape};
pub(crate) use spm::encode as encode_spm;
pub(crate) use unigram::Unigram;
pub(crate) use wordpiece::WordPiece;

/// A character that no token of the vocabulary expresses, and that has no unknown token either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inexpressible(pub(crate) char);

impl Inexpressible {
    fn first_of(text: &str) -> Self {
        Self(text.chars().next().unwrap_or_default())
    }
}

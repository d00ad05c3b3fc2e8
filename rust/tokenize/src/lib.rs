//! Text to token ids and back.
//!
//! Two kinds of files describe a tokenizer. A `tokenizer.json` is run by the `tokenizers` crate. The
//! vocabulary in a GGUF file is not: what its model means is defined by llama.cpp, and the crate cannot
//! say it exactly. Its byte pair encoding refuses merges whose product is no token; its unigram and
//! word-piece models match control tokens in text, and its word pieces take the square of a long word's
//! length; it has no SentencePiece merging by score; and it would copy each string of the vocabulary
//! several times. So those models are written here, over the file's own strings, none of them slower
//! than n log n.
//!
//! Special tokens written in a text are text, unless the caller asks for them to be read.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod bos;
mod byte_level;
mod decode;
mod gguf;
mod json;
mod keys;
mod models;
mod partition;
mod pattern;
mod pre_tokenizers;
mod special;
mod splitter;
mod tokenizer;
mod trie;
mod vocabulary;

pub use bos::{encode_with_bos, without_bos};
pub use decode::{StreamDecoder, decode};
pub use gguf::from_gguf;
pub use json::from_json;
pub use tokenizer::TextTokenizer;

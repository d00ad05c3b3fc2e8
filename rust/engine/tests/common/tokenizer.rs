//! One token a byte, and a few special ones.

use std::borrow::Cow;

use alloyforge_interfaces::Tokenizer;
use alloyforge_types::Result;

pub const BOS: u32 = 256;
pub const EOS: u32 = 257;
pub const START: u32 = 258;
pub const END: u32 = 259;
/// A token without a text, which may be a reason to panic.
pub const UNSPEAKABLE: u32 = 260;
/// Several bytes in one token: the pair `ab`, and a whole emoji.
const PIECES: [(u32, &str); 2] = [(261, "ab"), (262, "😀")];

const SPECIAL: [(u32, &str); 4] = [(BOS, "<s>"), (EOS, "</s>"), (START, "<|start|>"), (END, "<|end|>")];

#[derive(Default)]
pub struct ByteTokenizer {
    /// Whether asking for the text of [`UNSPEAKABLE`] panics.
    pub panics: bool,
}

impl Tokenizer for ByteTokenizer {
    fn vocab_size(&self) -> usize {
        263
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let found = SPECIAL.iter().find(|(_, piece)| special && rest.starts_with(piece));
            let found = found.or_else(|| PIECES.iter().find(|(_, piece)| rest.starts_with(piece)));
            match found {
                Some((id, piece)) => {
                    tokens.push(*id);
                    rest = &rest[piece.len()..];
                }
                None => {
                    let c = rest.chars().next().unwrap();
                    tokens.extend(rest[..c.len_utf8()].bytes().map(u32::from));
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        Ok(tokens)
    }

    fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        assert!(!self.panics || id != UNSPEAKABLE, "the unspeakable token was spoken");
        if let Ok(byte) = u8::try_from(id) {
            return Some(Cow::Owned(vec![byte]));
        }
        let piece = SPECIAL.iter().chain(&PIECES).find(|(token, _)| *token == id)?.1;
        Some(Cow::Borrowed(piece.as_bytes()))
    }

    fn is_special(&self, id: u32) -> bool {
        (BOS..=END).contains(&id)
    }

    fn token_id(&self, piece: &str) -> Option<u32> {
        if let Some((id, _)) = SPECIAL.iter().chain(&PIECES).find(|(_, p)| *p == piece) {
            return Some(*id);
        }
        match piece.as_bytes() {
            [byte] => Some(u32::from(*byte)),
            _ => None,
        }
    }

    fn strips_leading_space(&self) -> bool {
        false
    }

    fn bos(&self) -> (Option<u32>, bool) {
        (Some(BOS), true)
    }

    fn eos(&self) -> &[u32] {
        &[EOS]
    }
}

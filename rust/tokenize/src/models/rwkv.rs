//! RWKV's world tokenizer: always the longest token.

use super::Inexpressible;
use crate::trie::Trie;
use crate::vocabulary::Vocabulary;

/// Longest-match tokens, written with escapes in the file.
#[derive(Debug)]
pub(crate) struct Rwkv {
    trie: Trie,
}

impl Rwkv {
    /// The model over every token that may be text.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Self {
        let text = |id: &u32| vocabulary.is_text(*id);
        let tokens = vocabulary.ids().filter(text).map(|id| (unescape(vocabulary.text(id)), id));
        let tokens: Vec<(Vec<u8>, u32)> = tokens.filter(|(text, _)| !text.is_empty()).collect();
        Self { trie: Trie::new(tokens.iter().map(|(text, id)| (text.as_slice(), *id))) }
    }

    /// Appends the ids of `text`; a byte that begins no token is `unknown`, or the error.
    pub(crate) fn encode(
        &self,
        text: &str,
        unknown: Option<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), Inexpressible> {
        let mut rest = text.as_bytes();
        while let Some(&byte) = rest.first() {
            let (len, id) = match self.trie.longest(rest) {
                Some(found) => found,
                None => (1, unknown.ok_or(Inexpressible(char::from(byte)))?),
            };
            out.push(id);
            rest = &rest[len..];
        }
        Ok(())
    }
}

/// The bytes that a token's text stands for: `\t`, `\n`, `\r`, `\xAB`, and `\` before any other
/// character for that character.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let Some((&escape, after)) = rest.split_first() else { break };
        rest = after;
        bytes.push(match escape {
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'x' => match after.split_at_checked(2).and_then(|(hex, after)| {
                let digits =
                    std::str::from_utf8(hex).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                Some((u8::from_str_radix(digits, 16).ok()?, after))
            }) {
                Some((byte, after)) => {
                    rest = after;
                    byte
                }
                None => b'x',
            },
            other => other,
        });
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(unescape(r"a\t\n\r\x00\xFf\\\'"), b"a\t\n\r\x00\xff\\'");
        assert_eq!(unescape("é\\"), "é".as_bytes());
        assert_eq!(unescape(r"\x+1\xg"), b"x+1xg");
    }
}

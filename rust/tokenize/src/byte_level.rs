//! GPT-2's way of writing bytes as printable characters.

use std::sync::LazyLock;

/// The character that stands for each byte: itself where it is printable and no blank, else the next
/// of those from U+0100 on.
static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    })
});

/// The character that stands for `byte`.
pub(crate) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// The byte that `c` stands for.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    if let Ok(byte) = u8::try_from(c)
        && CHARS[usize::from(byte)] == c
    {
        return Some(byte);
    }
    // The others stand in the order of their bytes: 0x00 to 0x20, 0x7f to 0xa0, 0xad.
    match c as u32 {
        rank @ 0x100..=0x120 => Some((rank - 0x100) as u8),
        rank @ 0x121..=0x142 => Some((rank - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The bytes that a token's text stands for; where a character stands for none, the text is meant as it
/// is.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    text.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_a_character_of_its_own() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!(byte_of('\u{144}'), None);
        assert_eq!(byte_of(' '), None);
    }

    /// The published examples: a blank is `Ġ`, a newline `Ċ`, the first byte of `é` is `Ã`.
    #[test]
    fn published_characters() {
        assert_eq!([b' ', b'\n', b'\t', 0xc3].map(char_of), ['Ġ', 'Ċ', 'ĉ', 'Ã']);
        assert_eq!(decode("ĠcafÃ©"), " café".as_bytes());
        assert_eq!(decode("▁"), "▁".as_bytes());
    }
}

//! SentencePiece's precompiled normalisation: which beginnings of a text are replaced, and by what.
//!
//! The map is a double array in which a node's children are found by XOR (S. Kanda, Space- and
//! Time-Efficient String Dictionaries, 2018), followed by the replacements, each ended by a zero byte.
//! Its numbers are the file's, so every step is checked.

/// The map; an empty one replaces nothing.
#[derive(Debug, Default)]
pub(crate) struct CharsMap {
    nodes: Vec<u32>,
    replacements: Vec<u8>,
}

impl CharsMap {
    /// Reads the bytes of `precompiled_charsmap`; `None` where they are too few for what they say.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (nodes, replacements) = rest.split_at_checked(length)?;
        if replacements.last() != Some(&0) {
            return None;
        }
        let nodes = nodes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        Some(Self { nodes, replacements: replacements.to_vec() })
    }

    /// The longest beginning of `text` that is replaced, as its length, and what replaces it.
    pub(crate) fn longest(&self, text: &[u8]) -> Option<(usize, &[u8])> {
        let mut at = base(*self.nodes.first()?);
        let mut found = None;
        for (index, &byte) in text.iter().enumerate() {
            at ^= u32::from(byte);
            let Some(&node) = self.nodes.get(at as usize) else { break };
            if byte == 0 || label(node) != u32::from(byte) {
                break;
            }
            at ^= base(node);
            if has_leaf(node)
                && let Some(leaf) = self.nodes.get(at as usize)
                && let Some(replacement) = self.replacements.get(value(*leaf)..)
            {
                let len = replacement.iter().position(|&byte| byte == 0).unwrap_or(replacement.len());
                found = Some((index + 1, &replacement[..len]));
            }
        }
        found
    }

    /// Whether no text leads outside the map, and every replacement is text.
    pub(crate) fn is_sound(&self) -> bool {
        let Ok(replacements) = std::str::from_utf8(&self.replacements) else { return false };
        let Some(root) = self.nodes.first() else { return false };
        let mut seen = vec![false; self.nodes.len()];
        let mut open = vec![base(*root)];
        while let Some(parent) = open.pop() {
            for byte in 1..=255 {
                let at = (parent ^ byte) as usize;
                let Some(&node) = self.nodes.get(at) else { return false };
                if label(node) != byte || std::mem::replace(&mut seen[at], true) {
                    continue;
                }
                let next = at as u32 ^ base(node);
                let leaf = self.nodes.get(next as usize).map(|leaf| value(*leaf));
                if has_leaf(node) && !leaf.is_some_and(|at| replacements.is_char_boundary(at)) {
                    return false;
                }
                open.push(next);
            }
        }
        true
    }
}

/// Where a node's children are found: at this place XOR their byte.
fn base(node: u32) -> u32 {
    (node >> 10) << ((node & 1 << 9) >> 6)
}

/// The byte that leads to a node; more than a byte for a leaf.
fn label(node: u32) -> u32 {
    node & (1 << 31 | 0xff)
}

/// Whether a string ends at a node, and its leaf lies at its children's place.
fn has_leaf(node: u32) -> bool {
    node & 1 << 8 != 0
}

/// Where a leaf's replacement begins.
fn value(leaf: u32) -> usize {
    (leaf & !(1 << 31)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn too_short_a_map_is_refused() {
        for bytes in [&[1][..], &[0, 0, 0, 0], &[4, 0, 0, 0, 1, 2, 3, 4], &[255; 9], &[0, 0, 0, 0, b'a']] {
            assert!(CharsMap::new(bytes).is_none(), "{bytes:?}");
        }
        assert!(CharsMap::new(&[]).is_some_and(|map| map.longest(b"a").is_none()));
        assert!(CharsMap::new(&[0, 0, 0, 0, 0]).is_some_and(|map| map.longest(b"a").is_none()));
    }

    proptest! {
        #[test]
        fn no_map_leads_outside_itself(
            nodes in proptest::collection::vec(any::<u32>(), 1..64),
            text in any::<Vec<u8>>(),
        ) {
            let mut bytes = (nodes.len() as u32 * 4).to_le_bytes().to_vec();
            bytes.extend(nodes.iter().flat_map(|node| node.to_le_bytes()));
            bytes.extend(b"ab\0c\0");
            let map = CharsMap::new(&bytes).expect("a map");
            map.is_sound();
            if let Some((len, replacement)) = map.longest(&text) {
                prop_assert!(len <= text.len() && !replacement.contains(&0));
            }
        }
    }
}

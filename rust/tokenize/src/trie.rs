//! All strings of a set that begin a text.

/// A prefix tree over bytes, in three flat arrays.
///
/// Nodes are numbered breadth first, so that a node's children lie side by side and in the order of
/// their bytes; one number a node says where they begin.
#[derive(Debug, Clone)]
pub(crate) struct Trie {
    // children[n]..children[n + 1] are the children of node n.
    children: Vec<u32>,
    // The byte that leads to a node.
    bytes: Vec<u8>,
    // The value of the string that ends at a node.
    values: Vec<u32>,
    // The root's children by their byte: most searches end there.
    first: Box<[u32; 256]>,
}

const NONE: u32 = u32::MAX;

impl Trie {
    /// The tree of `entries`, each a string and its value; of equal strings the last stays.
    pub(crate) fn new<'a>(entries: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let mut entries: Vec<(&[u8], u32)> = entries.collect();
        entries.sort_by(|a, b| a.0.cmp(b.0));
        let mut trie =
            Self { children: Vec::new(), bytes: vec![0], values: vec![NONE], first: Box::new([NONE; 256]) };
        // Each node's entries and depth, in the nodes' order.
        let mut groups = vec![(0, entries.len(), 0)];
        let mut node = 0;
        while let Some(&(mut from, to, depth)) = groups.get(node) {
            trie.children.push(groups.len() as u32);
            while from < to && entries[from].0.len() == depth {
                trie.values[node] = entries[from].1;
                from += 1;
            }
            while from < to {
                let byte = entries[from].0[depth];
                let after = from + entries[from..to].partition_point(|entry| entry.0[depth] == byte);
                trie.bytes.push(byte);
                trie.values.push(NONE);
                groups.push((from, after, depth + 1));
                from = after;
            }
            node += 1;
        }
        trie.children.push(groups.len() as u32);
        for child in trie.range(0) {
            trie.first[usize::from(trie.bytes[child])] = child as u32;
        }
        trie
    }

    fn range(&self, node: usize) -> std::ops::Range<usize> {
        self.children[node] as usize..self.children[node + 1] as usize
    }

    fn child(&self, node: usize, byte: u8) -> Option<usize> {
        if node == 0 {
            let child = self.first[usize::from(byte)];
            return (child != NONE).then_some(child as usize);
        }
        let range = self.range(node);
        let at = self.bytes[range.clone()].binary_search(&byte).ok()?;
        Some(range.start + at)
    }

    /// The strings that begin `text`, as their lengths and values, shortest first.
    pub(crate) fn prefixes<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = (usize, u32)> + 't {
        let mut node = 0;
        let mut depth = 0;
        std::iter::from_fn(move || {
            loop {
                node = self.child(node, *text.get(depth)?)?;
                depth += 1;
                if self.values[node] != NONE {
                    return Some((depth, self.values[node]));
                }
            }
        })
    }

    /// The longest string that begins `text`, as its length and value.
    pub(crate) fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.prefixes(text).last()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prefixes_are_those_of_a_plain_search(
            strings in proptest::collection::hash_set("[ab\u{e9}\u{ea}]{1,6}", 0..40),
            text in "[ab\u{e9}\u{ea}]{0,10}",
        ) {
            let strings: Vec<String> = strings.into_iter().collect();
            let trie = Trie::new(strings.iter().map(|s| s.as_bytes()).zip(0..));
            let mut plain: Vec<(usize, u32)> =
                strings.iter().zip(0..).filter(|(s, _)| text.starts_with(*s)).map(|(s, id)| (s.len(), id)).collect();
            plain.sort_unstable();
            prop_assert_eq!(trie.prefixes(text.as_bytes()).collect::<Vec<_>>(), plain.clone());
            prop_assert_eq!(trie.longest(text.as_bytes()), plain.last().copied());
        }
    }

    #[test]
    fn an_empty_tree_finds_nothing() {
        let trie = Trie::new(std::iter::empty());
        assert_eq!(trie.longest(b"a"), None);
        assert_eq!(trie.longest(b""), None);
    }

    #[test]
    fn of_equal_strings_the_last_stays() {
        let trie = Trie::new([(&b"a"[..], 1), (b"b", 2), (b"a", 3)].into_iter());
        assert_eq!(trie.longest(b"ab"), Some((1, 3)));
    }
}

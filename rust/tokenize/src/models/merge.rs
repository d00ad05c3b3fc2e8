//! Merging neighbours, best pair first, in time n log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A piece of the text that is being merged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol {
    /// Which string it is.
    pub(crate) id: u32,
    /// Where it begins in the text, in bytes.
    pub(crate) start: u32,
    /// How long it is, in bytes; 0 once it has become part of its left neighbour.
    pub(crate) len: u32,
    previous: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// A pair that could be merged: its cost and left symbol in one key, its right symbol, its length and
/// what it would become.
type Candidate = Reverse<(u64, u32, u32, u32)>;

/// Symbols in a row, and the pairs of them that could be merged; reused from text to text.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
}

impl Merger {
    /// Begins a text.
    pub(crate) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Puts a symbol of `len` bytes behind the last.
    pub(crate) fn push(&mut self, id: u32, len: usize) {
        let index = self.symbols.len() as u32;
        let mut start = 0;
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
            start = last.start + last.len;
        }
        let previous = index.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { id, start, len: len as u32, previous, next: NONE });
    }

    /// Merges as long as a pair can be: `pair` gives a pair's cost and what it becomes. The pair of
    /// least cost goes first, of equal ones the leftmost.
    pub(crate) fn merge(&mut self, pair: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for left in 1..self.symbols.len() as u32 {
            self.propose(left - 1, left, &pair);
        }
        while let Some(Reverse((key, right, len, product))) = self.queue.pop() {
            let left = (key & u64::from(u32::MAX)) as u32;
            let (a, b) = (self.symbols[left as usize], self.symbols[right as usize]);
            // One of them was merged since: a symbol that lives has only ever grown.
            if a.len == 0 || b.len == 0 || a.len + b.len != len {
                continue;
            }
            self.symbols[right as usize].len = 0;
            let merged = &mut self.symbols[left as usize];
            merged.id = product;
            merged.len = len;
            merged.next = b.next;
            if b.next != NONE {
                self.symbols[b.next as usize].previous = left;
                self.propose(left, b.next, &pair);
            }
            if a.previous != NONE {
                self.propose(a.previous, left, &pair);
            }
        }
    }

    fn propose(&mut self, left: u32, right: u32, pair: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let (a, b) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((cost, product)) = pair(a, b) {
            let key = u64::from(cost) << 32 | u64::from(left);
            self.queue.push(Reverse((key, right, a.len + b.len, product)));
        }
    }

    /// The symbols that are left, in their order.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// The definition: look for the best pair anew after each merge.
    fn naive(text: &[u32], rules: &HashMap<(u32, u32), (u32, u32)>) -> Vec<u32> {
        let mut ids = text.to_vec();
        let best =
            |ids: &[u32]| (1..ids.len()).filter_map(|i| Some((rules.get(&(ids[i - 1], ids[i]))?.0, i))).min();
        while let Some((_, at)) = best(&ids) {
            ids[at - 1] = rules[&(ids[at - 1], ids[at])].1;
            ids.remove(at);
        }
        ids
    }

    proptest! {
        #[test]
        fn merges_as_the_definition_does(
            text in proptest::collection::vec(0u32..4, 0..40),
            pairs in proptest::collection::vec((0u32..12, 0u32..12, 0u32..6), 0..24),
        ) {
            // Equal strings must be equal ids for lengths to tell pairs apart, as they do in use.
            let mut strings: Vec<String> = (0..4).map(|id| format!("{id}")).collect();
            let mut rules = HashMap::new();
            for (a, b, cost) in pairs {
                let known = strings.len() as u32;
                let (a, b) = (a % known, b % known);
                let product = format!("{}{}", strings[a as usize], strings[b as usize]);
                let id = strings.iter().position(|s| *s == product).unwrap_or_else(|| {
                    strings.push(product);
                    strings.len() - 1
                });
                rules.entry((a, b)).or_insert((cost, id as u32));
            }
            let mut merger = Merger::default();
            merger.clear();
            for &id in &text {
                merger.push(id, 1);
            }
            merger.merge(|a, b| rules.get(&(a.id, b.id)).copied());
            let merged: Vec<u32> = merger.symbols().map(|symbol| symbol.id).collect();
            prop_assert_eq!(merged, naive(&text, &rules));
        }
    }

    #[test]
    fn a_long_run_is_merged_from_the_left() {
        let mut merger = Merger::default();
        merger.clear();
        for _ in 0..300_001 {
            merger.push(0, 1);
        }
        merger.merge(|a, b| (a.id == 0 && b.id == 0).then_some((0, 1)));
        let ids: Vec<u32> = merger.symbols().map(|symbol| symbol.id).collect();
        assert_eq!(ids.len(), 150_001);
        assert_eq!((ids[0], ids[150_000]), (1, 0));
    }
}

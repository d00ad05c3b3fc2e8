//! The prefix cache: blocks found by the tokens that they and all blocks before them hold.
//!
//! A node stands for one full block of tokens behind a given parent node. Nodes are found by the
//! parent's number, which is never used twice, and the tokens themselves, so that a hash collision
//! costs a comparison and can never give another text's block. Rows that a picture put in place of
//! tokens take part by a digest of the picture. What a block holds depends also on the
//! rotary tables that its tokens were turned by; each such regime has a root of its own.

use std::collections::HashMap;

use alloyforge_types::{BLOCK_LEN, BlockId, NO_BLOCK};

/// The number of a node, never used twice.
pub type NodeId = u64;

/// Where a chain of nodes begins or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Parent {
    /// The beginning, in one regime of rotary tables.
    Root(u64),
    /// Behind a node.
    Node(NodeId),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    parent: Parent,
    tokens: [u32; BLOCK_LEN],
    /// A digest of the media rows among them; 0 where there are none.
    mark: u128,
}

#[derive(Debug)]
struct Node {
    key: Box<Key>,
    /// The block of each KV group, or [`NO_BLOCK`].
    blocks: Box<[BlockId]>,
    /// Nodes behind it and sequences whose last full block it is.
    refs: usize,
}

/// The tree of known blocks.
#[derive(Debug, Default)]
pub struct PrefixCache {
    ids: HashMap<Box<Key>, NodeId>,
    nodes: HashMap<NodeId, Node>,
    next_id: NodeId,
}

fn key(parent: Option<NodeId>, regime: u64, tokens: &[u32], mark: u128) -> Option<Key> {
    let parent = parent.map_or(Parent::Root(regime), Parent::Node);
    Some(Key { parent, tokens: tokens.try_into().ok()?, mark })
}

impl PrefixCache {
    /// Nodes in the tree.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The longest known chain for the full blocks of `tokens`, whose first ones have `marks`.
    pub fn walk(&self, regime: u64, tokens: &[u32], marks: &[u128]) -> Vec<NodeId> {
        let mut chain = Vec::new();
        for (i, block) in tokens.chunks_exact(BLOCK_LEN).enumerate() {
            let mark = marks.get(i).copied().unwrap_or(0);
            let key = key(chain.last().copied(), regime, block, mark);
            let found = key.and_then(|k| self.ids.get(&k).copied());
            match found {
                Some(id) => chain.push(id),
                None => break,
            }
        }
        chain
    }

    /// The block of `group` that serves `node`.
    pub fn block(&self, node: NodeId, group: usize) -> Option<BlockId> {
        let block = *self.nodes.get(&node)?.blocks.get(group)?;
        (block != NO_BLOCK).then_some(block)
    }

    /// Makes `block` serve `node` in `group`, unless another block does already.
    pub fn offer(&mut self, node: NodeId, group: usize, block: BlockId) -> bool {
        match self.nodes.get_mut(&node).and_then(|n| n.blocks.get_mut(group)) {
            Some(slot) if *slot == NO_BLOCK => {
                *slot = block;
                true
            }
            _ => false,
        }
    }

    /// The node for `tokens` with `mark` behind `parent`, made where it is new, with one reference for the caller
    /// in place of the caller's one on `parent`.
    pub fn advance(
        &mut self,
        parent: Option<NodeId>,
        regime: u64,
        tokens: &[u32],
        mark: u128,
        num_groups: usize,
    ) -> Option<NodeId> {
        let key = Box::new(key(parent, regime, tokens, mark)?);
        if let Some(&id) = self.ids.get(&key) {
            self.pin(id);
            if let Some(parent) = parent {
                self.unpin(parent);
            }
            return Some(id);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.ids.insert(key.clone(), id);
        // the caller's reference on the parent becomes the new node's
        self.nodes.insert(id, Node { key, blocks: vec![NO_BLOCK; num_groups].into(), refs: 1 });
        Some(id)
    }

    /// Adds a reference to `node`.
    pub fn pin(&mut self, node: NodeId) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.refs += 1;
        }
    }

    /// Drops a reference to `node`.
    pub fn unpin(&mut self, node: NodeId) {
        if let Some(n) = self.nodes.get_mut(&node) {
            n.refs = n.refs.saturating_sub(1);
        }
        self.prune(node);
    }

    /// Notes that `node` lost its block of `group`.
    pub fn evict(&mut self, node: NodeId, group: usize) {
        if let Some(slot) = self.nodes.get_mut(&node).and_then(|n| n.blocks.get_mut(group)) {
            *slot = NO_BLOCK;
        }
        self.prune(node);
    }

    /// Forgets `node` and those before it that serve nothing and nobody.
    fn prune(&mut self, mut id: NodeId) {
        while let Some(node) = self.nodes.get(&id) {
            if node.refs > 0 || node.blocks.iter().any(|&b| b != NO_BLOCK) {
                return;
            }
            let parent = node.key.parent;
            if let Some(node) = self.nodes.remove(&id) {
                self.ids.remove(&node.key);
            }
            let Parent::Node(parent) = parent else { return };
            if let Some(node) = self.nodes.get_mut(&parent) {
                node.refs = node.refs.saturating_sub(1);
            }
            id = parent;
        }
    }
}

#[cfg(test)]
impl PrefixCache {
    /// Counts every reference again and compares: `tails` are those of all sequences.
    pub(super) fn check_books(&self, tails: impl Iterator<Item = NodeId>) {
        let mut refs: HashMap<NodeId, usize> = HashMap::new();
        let parents = self.nodes.values().filter_map(|n| match n.key.parent {
            Parent::Node(parent) => Some(parent),
            Parent::Root(_) => None,
        });
        for id in parents.chain(tails) {
            *refs.entry(id).or_default() += 1;
        }
        assert_eq!(self.ids.len(), self.nodes.len());
        for (id, node) in &self.nodes {
            assert_eq!(self.ids.get(&node.key), Some(id));
            assert_eq!(node.refs, refs.remove(id).unwrap_or(0));
            assert!(node.refs > 0 || node.blocks.iter().any(|&b| b != NO_BLOCK), "a node that serves nobody");
        }
        assert!(refs.is_empty(), "nodes are missing");
    }
}

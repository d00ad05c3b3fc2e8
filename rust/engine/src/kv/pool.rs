//! The blocks of one KV group: who holds which, and which may be taken.

use std::collections::BTreeMap;

use alloyforge_types::BlockId;

use super::prefix::NodeId;

/// What the pool knows of a block.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    /// Block tables that it stands in.
    refs: u32,
    /// The prefix node whose tokens it holds, where the prefix cache knows it.
    node: Option<NodeId>,
    /// Its place in the order of eviction, while it is idle.
    stamp: u64,
    /// How many want it kept for longer than others.
    pins: u32,
}

impl Block {
    fn place(&self) -> (bool, u64) {
        (self.pins > 0, self.stamp)
    }
}

/// A fixed count of blocks with reference counts.
///
/// A block is *held* (in a table), *idle* (in none, but findable by the prefix cache) or *free*. Idle
/// blocks are taken when no free one is left, the one that has been idle longest first, and those that
/// are pinned after all others.
#[derive(Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    /// Last in, first out: blocks whose memory has been touched before are taken again first.
    free: Vec<BlockId>,
    idle: BTreeMap<(bool, u64), BlockId>,
    next_stamp: u64,
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks.
    pub fn new(num_blocks: usize) -> Self {
        let num_blocks = num_blocks.min(BlockId::MAX as usize);
        Self {
            blocks: vec![Block::default(); num_blocks],
            free: (0..num_blocks as BlockId).rev().collect(),
            idle: BTreeMap::new(),
            next_stamp: 0,
        }
    }

    /// All blocks.
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that can be taken: free and idle ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Blocks that stand in a table.
    pub fn held(&self) -> usize {
        self.total() - self.available()
    }

    /// Block tables that `id` stands in.
    pub fn refs(&self, id: BlockId) -> u32 {
        self.blocks[id as usize].refs
    }

    /// The prefix node that `id` serves.
    pub fn node(&self, id: BlockId) -> Option<NodeId> {
        self.blocks[id as usize].node
    }

    /// Notes that `id` serves `node`.
    pub fn set_node(&mut self, id: BlockId, node: NodeId) {
        self.blocks[id as usize].node = Some(node);
    }

    /// Takes a block, with one reference. The second value is the prefix node that lost it.
    pub fn take(&mut self) -> Option<(BlockId, Option<NodeId>)> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => self.idle.pop_first()?.1,
        };
        let block = &mut self.blocks[id as usize];
        block.refs = 1;
        block.pins = 0;
        Some((id, block.node.take()))
    }

    /// Makes an idle block free: it serves no node any more.
    pub fn forget(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        if block.refs == 0 && self.idle.remove(&block.place()).is_some() {
            block.node = None;
            block.pins = 0;
            self.free.push(id);
        }
    }

    /// Whether a block can be taken that nobody has pinned.
    pub fn has_unpinned(&self) -> bool {
        !self.free.is_empty() || self.idle.first_key_value().is_some_and(|(&(is_pinned, _), _)| !is_pinned)
    }

    /// Wants a block that serves a node kept for longer than others, until [`unpin`](Self::unpin).
    pub fn pin(&mut self, id: BlockId) {
        self.change_pins(id, |pins| pins + 1);
    }

    /// Takes a [`pin`](Self::pin) back.
    pub fn unpin(&mut self, id: BlockId) {
        self.change_pins(id, |pins| pins.saturating_sub(1));
    }

    fn change_pins(&mut self, id: BlockId, change: impl Fn(u32) -> u32) {
        let block = &mut self.blocks[id as usize];
        let before = block.place();
        block.pins = change(block.pins);
        if block.refs == 0 && self.idle.remove(&before).is_some() {
            self.idle.insert(block.place(), id);
        }
    }

    /// Adds a reference to a held or idle block.
    pub fn share(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        if block.refs == 0 {
            self.idle.remove(&block.place());
        }
        block.refs += 1;
    }

    /// Drops a reference to a held block.
    pub fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        debug_assert!(block.refs > 0, "block {id} was released once too often");
        block.refs = block.refs.saturating_sub(1);
        if block.refs > 0 {
            return;
        }
        if block.node.is_some() {
            block.stamp = self.next_stamp;
            self.idle.insert(block.place(), id);
            self.next_stamp += 1;
        } else {
            self.free.push(id);
        }
    }
}

//! Block tables: growing, sharing, copying on write, giving back.

use alloyforge_types::{BLOCK_LEN, BlockId, NO_BLOCK};

use super::pool::BlockPool;
use super::prefix::{NodeId, PrefixCache};

/// One whole block to be copied before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// The KV group of both.
    pub group: usize,
    /// The block to read.
    pub from: BlockId,
    /// The block to write.
    pub to: BlockId,
}

/// The blocks of one sequence.
#[derive(Debug, Clone, Default)]
pub struct SequenceBlocks {
    /// A table for each KV group; every entry but [`NO_BLOCK`] is a reference on its block.
    tables: Vec<Vec<BlockId>>,
    /// For each group, how many leading entries have been given back.
    num_gone: Vec<usize>,
    /// The regime of rotary tables that the tokens are turned by.
    regime: u64,
    /// The prefix node of the last full block that was published; one reference on it.
    tail: Option<NodeId>,
    /// Full blocks published.
    num_published: usize,
    /// Whether full blocks are published.
    is_published: bool,
}

impl SequenceBlocks {
    /// The table of each KV group.
    pub fn tables(&self) -> &[Vec<BlockId>] {
        &self.tables
    }

    /// Whether it holds any block.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(Vec::is_empty)
    }

    fn num_held(&self, group: usize) -> usize {
        self.tables.get(group).map_or(0, Vec::len) - self.num_gone.get(group).copied().unwrap_or(0)
    }
}

/// A prefix that the cache holds.
#[derive(Debug, Clone, Default)]
pub struct PrefixHit {
    /// Its nodes, in order.
    nodes: Vec<NodeId>,
}

impl PrefixHit {
    /// Tokens in it, a multiple of the block length.
    pub fn num_tokens(&self) -> usize {
        self.nodes.len() * BLOCK_LEN
    }
}

#[derive(Debug)]
struct Group {
    window: Option<usize>,
    pool: BlockPool,
}

/// Most blocks that a sequence of `len` tokens holds at once in a group with `window`, stepping at
/// most `rows` rows at a time.
pub fn most_blocks(window: Option<usize>, len: usize, rows: usize) -> usize {
    let all = len.div_ceil(BLOCK_LEN);
    match window {
        None => all,
        // the first row of a step sees window - 1 tokens before it; both ends may cut a block
        Some(window) => {
            all.min(window.saturating_sub(1).saturating_add(rows).div_ceil(BLOCK_LEN).saturating_add(1))
        }
    }
}

/// The KV cache's books: which sequence holds which blocks of which group.
#[derive(Debug)]
pub struct KvManager {
    groups: Vec<Group>,
    prefix: PrefixCache,
    /// Whether every sequence's blocks are published.
    has_prefix_cache: bool,
}

/// Blocks that are kept for longer than others.
#[derive(Debug, Clone, Default)]
pub struct Pin {
    /// Group, block, and the prefix node that it served when it was pinned.
    blocks: Vec<(usize, BlockId, NodeId)>,
}

/// A full block that the prefix cache knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownBlock {
    /// Its KV group.
    pub group: usize,
    /// Which block of its sequence it is.
    pub index: usize,
    /// Where it is.
    pub block: BlockId,
}

impl KvManager {
    /// A manager of groups with the given windows and counts of blocks.
    pub fn new(groups: &[(Option<usize>, usize)], has_prefix_cache: bool) -> Self {
        let group = |&(window, n)| Group { window, pool: BlockPool::new(n) };
        Self { groups: groups.iter().map(group).collect(), prefix: PrefixCache::default(), has_prefix_cache }
    }

    /// Whether every sequence's full blocks are kept and found again.
    pub fn has_prefix_cache(&self) -> bool {
        self.has_prefix_cache
    }

    /// Blocks that live sequences hold, over all groups.
    pub fn held(&self) -> usize {
        self.groups.iter().map(|g| g.pool.held()).sum()
    }

    /// All blocks, over all groups.
    pub fn total(&self) -> usize {
        self.groups.iter().map(|g| g.pool.total()).sum()
    }

    /// A sequence without blocks, whose full blocks are published where `is_published`.
    pub fn start(&self, regime: u64, is_published: bool) -> SequenceBlocks {
        let n = self.groups.len();
        SequenceBlocks {
            tables: vec![Vec::new(); n],
            num_gone: vec![0; n],
            regime,
            tail: None,
            num_published: 0,
            is_published,
        }
    }

    /// For each group, how many blocks a sequence still needs until it holds `len` tokens, stepping
    /// at most `rows` at a time.
    pub fn shortfall(&self, blocks: &SequenceBlocks, len: usize, rows: usize) -> Vec<usize> {
        let need = |(g, group): (usize, &Group)| {
            let to_come = len.div_ceil(BLOCK_LEN).saturating_sub(blocks.tables.get(g).map_or(0, Vec::len));
            to_come.min(most_blocks(group.window, len, rows).saturating_sub(blocks.num_held(g)))
        };
        self.groups.iter().enumerate().map(need).collect()
    }

    /// As [`shortfall`](Self::shortfall), for a sequence that begins with `hit`.
    pub fn shortfall_behind(&self, hit: &PrefixHit, len: usize, rows: usize) -> Vec<usize> {
        let need = |(g, group): (usize, &Group)| {
            let to_come = len.div_ceil(BLOCK_LEN).saturating_sub(hit.nodes.len());
            to_come.min(most_blocks(group.window, len, rows).saturating_sub(self.wanted(hit, g).len()))
        };
        self.groups.iter().enumerate().map(need).collect()
    }

    /// For each group, the blocks that a sequence holds.
    pub fn num_held(&self, blocks: &SequenceBlocks) -> Vec<usize> {
        (0..self.groups.len()).map(|g| blocks.num_held(g)).collect()
    }

    /// For each group, the blocks that can be taken.
    pub fn available(&self) -> Vec<usize> {
        self.groups.iter().map(|g| g.pool.available()).collect()
    }

    /// For each group, the idle blocks that taking `hit` would make held.
    pub fn idle_in(&self, hit: &PrefixHit) -> Vec<usize> {
        let idle = |g: usize| {
            self.wanted(hit, g)
                .filter(|&i| self.hit_block(hit, g, i).is_some_and(|b| self.groups[g].pool.refs(b) == 0))
                .count()
        };
        (0..self.groups.len()).map(idle).collect()
    }

    /// The entries of `group`'s table that a sequence going on behind `hit` can still see.
    fn wanted(&self, hit: &PrefixHit, group: usize) -> std::ops::Range<usize> {
        num_behind(self.groups[group].window, hit.num_tokens())..hit.nodes.len()
    }

    fn hit_block(&self, hit: &PrefixHit, group: usize, index: usize) -> Option<BlockId> {
        self.prefix.block(*hit.nodes.get(index)?, group)
    }

    /// The longest prefix of `tokens`, whose first blocks have `marks`, at most `limit` tokens, whose every block that a sequence going
    /// on behind it sees is there.
    pub fn lookup(&self, regime: u64, tokens: &[u32], marks: &[u128], limit: usize) -> PrefixHit {
        let prefix = &self.prefix;
        let limit = limit.min(tokens.len()) / BLOCK_LEN * BLOCK_LEN;
        let mut nodes = prefix.walk(regime, &tokens[..limit], marks);
        // for each group, how many blocks stand in a row up to the node looked at
        let mut runs = vec![0; self.groups.len()];
        let mut longest = 0;
        for (i, &node) in nodes.iter().enumerate() {
            let num_nodes = i + 1;
            let mut is_whole = true;
            for (g, run) in runs.iter_mut().enumerate() {
                *run = if prefix.block(node, g).is_some() { *run + 1 } else { 0 };
                let behind = num_behind(self.groups[g].window, num_nodes * BLOCK_LEN);
                is_whole &= *run >= num_nodes - behind;
            }
            if is_whole {
                longest = num_nodes;
            }
        }
        nodes.truncate(longest);
        PrefixHit { nodes }
    }

    /// Begins a sequence with the blocks of `hit`.
    pub fn adopt(&mut self, regime: u64, is_published: bool, hit: &PrefixHit) -> SequenceBlocks {
        let mut blocks = self.start(regime, is_published);
        for g in 0..self.groups.len() {
            let wanted = self.wanted(hit, g);
            blocks.num_gone[g] = wanted.start;
            blocks.tables[g] = vec![NO_BLOCK; wanted.start];
            for i in wanted {
                // `lookup` saw every one of them and nothing was taken since
                let Some(block) = self.hit_block(hit, g, i) else { continue };
                self.groups[g].pool.share(block);
                blocks.tables[g].push(block);
            }
        }
        blocks.num_published = hit.nodes.len();
        blocks.tail = hit.nodes.last().copied();
        if let Some(tail) = blocks.tail {
            self.prefix.pin(tail);
        }
        blocks
    }

    /// Wants the published blocks of `tokens`, whose first ones have `marks`, kept for longer than others, until
    /// [`unpin`](Self::unpin). Where memory is wanted for live sequences they go all the same, after
    /// everything else.
    pub fn pin(&mut self, regime: u64, tokens: &[u32], marks: &[u128]) -> Pin {
        let nodes = self.prefix.walk(regime, tokens, marks);
        let mut pin = Pin::default();
        for node in nodes {
            for (g, group) in self.groups.iter_mut().enumerate() {
                if let Some(block) = self.prefix.block(node, g) {
                    group.pool.pin(block);
                    pin.blocks.push((g, block, node));
                }
            }
        }
        pin
    }

    /// Takes a [`pin`](Self::pin) back.
    pub fn unpin(&mut self, pin: &Pin) {
        for &(g, block, node) in &pin.blocks {
            let pool = &mut self.groups[g].pool;
            // a block that was taken for something else has lost its pins
            if pool.node(block) == Some(node) {
                pool.unpin(block);
            }
        }
    }

    /// The blocks of the longest known beginning of `tokens`, whose first blocks have `marks`, in order.
    pub fn known(&self, regime: u64, tokens: &[u32], marks: &[u128]) -> Vec<KnownBlock> {
        let mut known = Vec::new();
        for (index, &node) in self.prefix.walk(regime, tokens, marks).iter().enumerate() {
            let block = |group| Some(KnownBlock { group, index, block: self.prefix.block(node, group)? });
            known.extend((0..self.groups.len()).filter_map(block));
        }
        known
    }

    /// Blocks for those of `wanted`, pairs of a group and an index into the full blocks of `tokens`, the
    /// first of which have `marks`, that the prefix cache does not have, to be filled by the caller at once: it finds them from now on.
    /// As many as can be taken without anybody's pinned or held ones.
    pub fn make_known(
        &mut self,
        regime: u64,
        tokens: &[u32],
        marks: &[u128],
        wanted: &[(usize, usize)],
    ) -> Vec<KnownBlock> {
        let mut tail = None;
        let mut made = Vec::new();
        for (index, text) in tokens.chunks_exact(BLOCK_LEN).enumerate() {
            let mark = marks.get(index).copied().unwrap_or(0);
            let Some(node) = self.prefix.advance(tail, regime, text, mark, self.groups.len()) else { break };
            tail = Some(node);
            for g in 0..self.groups.len() {
                let is_missing = self.prefix.block(node, g).is_none();
                if !is_missing || !wanted.contains(&(g, index)) || !self.groups[g].pool.has_unpinned() {
                    continue;
                }
                let Some(block) = self.take(g) else { continue };
                self.prefix.offer(node, g, block);
                self.groups[g].pool.set_node(block, node);
                // nobody's: idle from the start
                self.groups[g].pool.release(block);
                made.push(KnownBlock { group: g, index, block });
            }
        }
        if let Some(tail) = tail {
            self.prefix.unpin(tail);
        }
        made
    }

    /// Takes back what [`make_known`](Self::make_known) gave and nobody has found yet.
    pub fn forget_known(&mut self, made: &[KnownBlock]) {
        for known in made {
            let pool = &mut self.groups[known.group].pool;
            if let Some(node) = pool.node(known.block) {
                pool.forget(known.block);
                if pool.node(known.block).is_none() {
                    self.prefix.evict(node, known.group);
                }
            }
        }
    }

    /// A second sequence with the blocks that hold the first `len` tokens, all that are computed.
    pub fn fork(&mut self, blocks: &SequenceBlocks, len: usize) -> SequenceBlocks {
        let mut fork = blocks.clone();
        for (group, table) in self.groups.iter_mut().zip(&mut fork.tables) {
            // what lies behind was taken for guesses, and will be written to
            table.truncate(len.div_ceil(BLOCK_LEN));
            for &block in table.iter().filter(|&&b| b != NO_BLOCK) {
                group.pool.share(block);
            }
        }
        if let Some(tail) = blocks.tail {
            self.prefix.pin(tail);
        }
        fork
    }

    /// Gives all blocks back, the last first, so that of a cached text the end is evicted before the
    /// beginning, without which the end cannot be found.
    pub fn release(&mut self, blocks: &mut SequenceBlocks) {
        for (group, table) in self.groups.iter_mut().zip(&mut blocks.tables) {
            for block in table.drain(..).rev().filter(|&b| b != NO_BLOCK) {
                group.pool.release(block);
            }
        }
        blocks.num_gone.fill(0);
        blocks.num_published = 0;
        if let Some(tail) = blocks.tail.take() {
            self.prefix.unpin(tail);
        }
    }

    /// Gives back what lies behind the windows of a sequence whose next row is `start`.
    fn slide(&mut self, blocks: &mut SequenceBlocks, start: usize) {
        for (g, group) in self.groups.iter_mut().enumerate() {
            let behind = num_behind(group.window, start).min(blocks.tables[g].len());
            for entry in &mut blocks.tables[g][blocks.num_gone[g].min(behind)..behind] {
                if *entry != NO_BLOCK {
                    group.pool.release(*entry);
                    *entry = NO_BLOCK;
                }
            }
            blocks.num_gone[g] = blocks.num_gone[g].max(behind);
        }
    }

    /// Whether the block that row `start` is written to is another sequence's too.
    fn must_copy(&self, blocks: &SequenceBlocks, group: usize, start: usize) -> bool {
        let shared = |&b: &BlockId| b != NO_BLOCK && self.groups[group].pool.refs(b) > 1;
        !start.is_multiple_of(BLOCK_LEN) && blocks.tables[group].get(start / BLOCK_LEN).is_some_and(shared)
    }

    /// Most rows from `start` that [`extend`](Self::extend) has blocks for now, up to `rows`.
    pub fn rows_that_fit(&mut self, blocks: &mut SequenceBlocks, start: usize, rows: usize) -> usize {
        self.slide(blocks, start);
        let mut end = start + rows;
        for (g, group) in self.groups.iter().enumerate() {
            let available = group.pool.available();
            let copied = usize::from(self.must_copy(blocks, g, start));
            if copied > available {
                return 0;
            }
            end = end.min((blocks.tables[g].len() + available - copied) * BLOCK_LEN);
        }
        end.saturating_sub(start)
    }

    /// Makes `rows` rows from `start` writable: gives back what lies behind the windows, copies a
    /// shared block that would be written to, takes new blocks. `None` where there are not enough
    /// blocks; nothing was taken then.
    pub fn extend(
        &mut self,
        blocks: &mut SequenceBlocks,
        start: usize,
        rows: usize,
    ) -> Option<Vec<BlockCopy>> {
        if self.rows_that_fit(blocks, start, rows) < rows {
            return None;
        }
        let mut copies = Vec::new();
        for g in 0..self.groups.len() {
            if self.must_copy(blocks, g, start) {
                let to = self.take(g)?;
                let entry = &mut blocks.tables[g][start / BLOCK_LEN];
                copies.push(BlockCopy { group: g, from: *entry, to });
                self.groups[g].pool.release(*entry);
                *entry = to;
            }
            while blocks.tables[g].len() * BLOCK_LEN < start + rows {
                let block = self.take(g)?;
                blocks.tables[g].push(block);
            }
        }
        Some(copies)
    }

    fn take(&mut self, group: usize) -> Option<BlockId> {
        let (block, evicted) = self.groups[group].pool.take()?;
        if let Some(node) = evicted {
            self.prefix.evict(node, group);
        }
        Some(block)
    }

    /// Lets the prefix cache find the full blocks of a sequence whose first `len` tokens have been
    /// computed; `marks` are digests of the media rows in its first blocks.
    pub fn publish(&mut self, blocks: &mut SequenceBlocks, tokens: &[u32], marks: &[u128], len: usize) {
        if !blocks.is_published {
            return;
        }
        let prefix = &mut self.prefix;
        let len = len.min(tokens.len());
        for i in blocks.num_published..len / BLOCK_LEN {
            let text = &tokens[i * BLOCK_LEN..(i + 1) * BLOCK_LEN];
            let mark = marks.get(i).copied().unwrap_or(0);
            let node = prefix.advance(blocks.tail, blocks.regime, text, mark, self.groups.len());
            let Some(node) = node else { return };
            blocks.tail = Some(node);
            blocks.num_published = i + 1;
            for (g, group) in self.groups.iter_mut().enumerate() {
                let block = blocks.tables[g].get(i).copied().unwrap_or(NO_BLOCK);
                // a block serves one node for as long as it is findable
                if block != NO_BLOCK && group.pool.node(block).is_none() && prefix.offer(node, g, block) {
                    group.pool.set_node(block, node);
                }
            }
        }
    }
}

/// Leading blocks that no row from `start` on sees through `window`.
fn num_behind(window: Option<usize>, start: usize) -> usize {
    match window {
        // row i sees the tokens i + 1 - window ..= i
        Some(window) => (start + 1).saturating_sub(window) / BLOCK_LEN,
        None => 0,
    }
}

#[cfg(test)]
impl KvManager {
    /// Counts every reference again and compares: `live` are all sequences with blocks.
    pub(crate) fn check_books(&self, live: &[&SequenceBlocks]) {
        use std::collections::HashMap;
        for (g, group) in self.groups.iter().enumerate() {
            let mut refs: HashMap<BlockId, u32> = HashMap::new();
            for blocks in live {
                for (i, &block) in blocks.tables[g].iter().enumerate() {
                    assert_eq!(block == NO_BLOCK, i < blocks.num_gone[g], "entry {i} of group {g}");
                    if block != NO_BLOCK {
                        *refs.entry(block).or_default() += 1;
                    }
                }
            }
            assert_eq!(refs.len(), group.pool.held(), "blocks of group {g} that nobody holds are not free");
            for (&block, &refs) in &refs {
                assert_eq!(group.pool.refs(block), refs);
            }
            for block in 0..group.pool.total() as BlockId {
                if let Some(node) = group.pool.node(block) {
                    assert_eq!(self.prefix.block(node, g), Some(block));
                }
            }
        }
        self.prefix.check_books(live.iter().filter_map(|b| b.tail));
    }
}

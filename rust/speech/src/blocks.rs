//! The decoder's KV blocks: hypotheses share those that they have in common.

use alloyforge_types::{BLOCK_LEN, BlockId, Error, Result};

/// Blocks with the count of hypotheses that hold each.
#[derive(Debug)]
pub(crate) struct Blocks {
    holders: Vec<u32>,
    free: Vec<BlockId>,
}

/// A hypothesis's tokens in the cache.
#[derive(Debug, Default)]
pub(crate) struct Cached {
    pub(crate) table: Vec<BlockId>,
    /// Tokens.
    pub(crate) len: usize,
}

impl Blocks {
    pub(crate) fn new(count: usize) -> Self {
        Self { holders: vec![0; count], free: (0..count as BlockId).rev().collect() }
    }

    fn take(&mut self) -> Result<BlockId> {
        let block = self.free.pop().ok_or_else(|| Error::internal("the decoder's blocks are all taken"))?;
        self.holders[block as usize] = 1;
        Ok(block)
    }

    fn drop_one(&mut self, block: BlockId) {
        let holders = &mut self.holders[block as usize];
        *holders -= 1;
        if *holders == 0 {
            self.free.push(block);
        }
    }

    /// Makes room for `more` tokens that nobody else sees; `copies` takes what must be copied first.
    pub(crate) fn extend(
        &mut self,
        cached: &mut Cached,
        more: usize,
        copies: &mut Vec<(BlockId, BlockId)>,
    ) -> Result<()> {
        if !cached.len.is_multiple_of(BLOCK_LEN) && more > 0 {
            let last = cached.len / BLOCK_LEN;
            let block = cached.table[last];
            if self.holders[block as usize] > 1 {
                let own = self.take()?;
                copies.push((block, own));
                self.drop_one(block);
                cached.table[last] = own;
            }
        }
        cached.len += more;
        while cached.table.len() < cached.len.div_ceil(BLOCK_LEN) {
            let block = self.take()?;
            cached.table.push(block);
        }
        Ok(())
    }

    /// A second holder of the same tokens.
    pub(crate) fn fork(&mut self, cached: &Cached) -> Cached {
        for &block in &cached.table {
            self.holders[block as usize] += 1;
        }
        Cached { table: cached.table.clone(), len: cached.len }
    }

    /// Gives a hypothesis's blocks back.
    pub(crate) fn release(&mut self, cached: Cached) {
        for block in cached.table {
            self.drop_one(block);
        }
    }

    /// Forgets all hypotheses.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.holders.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_copies_only_what_it_writes() {
        let mut blocks = Blocks::new(6);
        let mut copies = Vec::new();
        let mut first = Cached::default();
        blocks.extend(&mut first, 40, &mut copies).expect("there is room");
        let mut second = blocks.fork(&first);
        blocks.extend(&mut second, 1, &mut copies).expect("there is room");
        assert_eq!(second.table[0], first.table[0]);
        assert_eq!(copies, [(first.table[1], second.table[1])]);
        // alone by now, the first writes where it is
        blocks.extend(&mut first, 1, &mut copies).expect("there is room");
        assert_eq!(copies.len(), 1);
        blocks.release(first);
        blocks.release(second);
        assert_eq!(blocks.free.len(), 6);
        let mut long = Cached::default();
        assert!(blocks.extend(&mut long, 7 * BLOCK_LEN, &mut copies).is_err());
    }
}

//! The KV cache: pools of blocks, one for each KV group.

use alloyforge_kernels::disjoint::Disjoint;
use alloyforge_kernels::memory::Buffer;
use alloyforge_types::{BLOCK_LEN, BlockId, Error, KvType, ModelSpec, Result};

/// Where a layer's planes lie in a block of its group: the keys of all heads, then the values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerPlace {
    pub(crate) group: usize,
    /// The layer's first byte in a block.
    offset: usize,
    plane_bytes: usize,
    num_heads: usize,
}

impl LayerPlace {
    pub(crate) fn new(spec: &ModelSpec, layer: usize, ty: KvType) -> Self {
        let planes = |layer: usize| {
            let a = &spec.layers[layer].attention;
            (a.num_kv_heads, BLOCK_LEN * ty.vector_bytes(a.head_dim))
        };
        let group = spec.layers[layer].kv_group;
        let before = spec.kv_groups[group].layers.iter().take_while(|&&l| l != layer);
        let offset = match spec.kv_groups[group].is_transient {
            true => 0,
            false => before.map(|&l| planes(l)).map(|(heads, bytes)| 2 * heads * bytes).sum(),
        };
        let (num_heads, plane_bytes) = planes(layer);
        Self { group, offset, plane_bytes, num_heads }
    }

    /// The bytes of a head's keys, counted from the start of a block.
    fn keys(&self, head: usize) -> usize {
        self.offset + head * self.plane_bytes
    }

    /// The bytes of a head's values, counted from the start of a block.
    fn values(&self, head: usize) -> usize {
        self.offset + (self.num_heads + head) * self.plane_bytes
    }
}

/// One group's blocks, each whole after the other.
#[derive(Debug)]
struct GroupPool {
    data: Buffer,
    num_blocks: usize,
    block_bytes: usize,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    ty: KvType,
    /// Bytes of one block, for each group.
    block_bytes: Vec<usize>,
    pools: Vec<GroupPool>,
}

impl Cache {
    /// A cache without a block.
    pub(crate) fn new(spec: &ModelSpec, ty: KvType) -> Result<Self> {
        let num_groups = spec.kv_groups.len();
        let block_bytes = (0..num_groups).map(|g| BLOCK_LEN * spec.kv_token_bytes(g, ty)).collect();
        let mut cache = Self { ty, block_bytes, pools: Vec::new() };
        cache.reserve(&vec![0; num_groups])?;
        Ok(cache)
    }

    pub(crate) fn ty(&self) -> KvType {
        self.ty
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.pools.iter().map(|pool| pool.data.len() as u64).sum()
    }

    /// Blocks of each group.
    pub(crate) fn num_blocks(&self, group: usize) -> usize {
        self.pools.get(group).map_or(0, |pool| pool.num_blocks)
    }

    /// Takes `blocks[g]` blocks for group `g`.
    pub(crate) fn reserve(&mut self, blocks: &[usize]) -> Result<()> {
        if blocks.len() != self.block_bytes.len() {
            return Err(Error::internal(format!(
                "blocks for {} KV groups, there are {}",
                blocks.len(),
                self.block_bytes.len()
            )));
        }
        let sizes = blocks.iter().zip(&self.block_bytes).map(|(&n, &bytes)| n.saturating_mul(bytes));
        let needed = sizes.clone().fold(0usize, usize::saturating_add);
        // all or nothing: the groups together must fit before the first is taken
        if let Some(available) = alloyforge_kernels::memory::available()
            && needed as u64 > available
        {
            return Err(Error::OutOfMemory { what: "the KV cache".into(), needed: needed as u64, available });
        }
        let pools = sizes
            .zip(blocks.iter().zip(&self.block_bytes))
            .map(|(size, (&num_blocks, &block_bytes))| {
                // block ids are 32 bits wide, and the highest means "none"
                if num_blocks >= BlockId::MAX as usize {
                    return Err(Error::internal(format!("{num_blocks} blocks in a KV group")));
                }
                Ok(GroupPool { data: Buffer::zeroed(size, "the KV cache")?, num_blocks, block_bytes })
            })
            .collect::<Result<_>>()?;
        self.pools = pools;
        Ok(())
    }

    /// Copies blocks of `group`, each from the first of a pair to the second.
    pub(crate) fn copy(&mut self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        let Some(pool) = self.pools.get_mut(group) else {
            return Err(Error::internal(format!("KV group {group} of {}", self.block_bytes.len())));
        };
        for &(from, to) in pairs {
            let (from, to) = (from as usize, to as usize);
            if from.max(to) >= pool.num_blocks {
                return Err(Error::internal(format!("block {from} to {to} of {}", pool.num_blocks)));
            }
            let at = from * pool.block_bytes;
            pool.data.bytes_mut().copy_within(at..at + pool.block_bytes, to * pool.block_bytes);
        }
        Ok(())
    }

    /// The bytes of a block.
    pub(crate) fn block(&self, group: usize, block: BlockId) -> Result<&[u8]> {
        let pool = self.pools.get(group).filter(|pool| (block as usize) < pool.num_blocks);
        let pool = pool.ok_or_else(|| Error::internal(format!("no block {block} in KV group {group}")))?;
        Ok(&pool.data.bytes()[block as usize * pool.block_bytes..][..pool.block_bytes])
    }

    /// Fills a block with `bytes`.
    pub(crate) fn fill_block(&mut self, group: usize, block: BlockId, bytes: &[u8]) -> Result<()> {
        let pool = self.pools.get_mut(group).filter(|pool| (block as usize) < pool.num_blocks);
        let pool = pool.ok_or_else(|| Error::internal(format!("no block {block} in KV group {group}")))?;
        if bytes.len() != pool.block_bytes {
            let fault = format!("has {} bytes, a block has {}", bytes.len(), pool.block_bytes);
            return Err(Error::invalid("block", fault));
        }
        pool.data.bytes_mut()[block as usize * pool.block_bytes..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// The group's blocks, to read a layer's planes from.
    pub(crate) fn reader(&self, place: LayerPlace) -> Reader<'_> {
        let pool = &self.pools[place.group];
        Reader { bytes: pool.data.bytes(), block_bytes: pool.block_bytes, place }
    }

    /// The group's blocks, to write a layer's planes in.
    pub(crate) fn writer(&mut self, place: LayerPlace) -> Writer<'_> {
        let pool = &mut self.pools[place.group];
        Writer { bytes: Disjoint::new(pool.data.bytes_mut()), block_bytes: pool.block_bytes, place }
    }
}

/// A layer's planes, to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    block_bytes: usize,
    place: LayerPlace,
}

impl<'a> Reader<'a> {
    /// Keys and values of `head` in `block`.
    pub(crate) fn planes(&self, block: BlockId, head: usize) -> (&'a [u8], &'a [u8]) {
        let block = &self.bytes[block as usize * self.block_bytes..][..self.block_bytes];
        let plane = |at: usize| &block[at..][..self.place.plane_bytes];
        (plane(self.place.keys(head)), plane(self.place.values(head)))
    }
}

/// A layer's planes, to write by several threads.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    bytes: Disjoint<'a, u8>,
    block_bytes: usize,
    place: LayerPlace,
}

impl Writer<'_> {
    /// Keys and values of `head` in `block`.
    ///
    /// # Safety
    /// While the borrows live, nobody else asks for the same block and head.
    #[allow(clippy::mut_from_ref, reason = "the caller promises that no two are the same")]
    pub(crate) unsafe fn planes(&self, block: BlockId, head: usize) -> (&mut [u8], &mut [u8]) {
        let start = block as usize * self.block_bytes;
        let plane = |at: usize| {
            // SAFETY: by the caller's promise; keys and values of a head do not overlap.
            unsafe { self.bytes.part(start + at..start + at + self.place.plane_bytes) }
        };
        (plane(self.place.keys(head)), plane(self.place.values(head)))
    }
}

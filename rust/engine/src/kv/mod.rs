//! The KV cache's books: blocks, block tables, prefixes, sizes. No memory of a device is touched here.

mod manager;
mod memory;
mod pool;
mod prefix;
mod sizing;

pub use manager::{BlockCopy, KnownBlock, KvManager, Pin, PrefixHit, SequenceBlocks, most_blocks};
pub use memory::free_memory;
pub use pool::BlockPool;
pub use prefix::{NodeId, PrefixCache};
pub use sizing::{KvSize, least_kv, size_kv};

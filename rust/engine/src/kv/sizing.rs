//! How many blocks each KV group gets.

use alloyforge_types::{BLOCK_LEN, Error, KvType, ModelSpec, Result};

use super::manager::most_blocks;
use crate::EngineOptions;

/// The KV cache's size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvSize {
    /// Blocks of each group.
    pub blocks: Vec<usize>,
    /// Most tokens that one sequence may hold.
    pub context_len: usize,
    /// Bytes of all blocks together.
    pub bytes: u64,
}

/// Divides a budget among the KV groups of `spec`.
///
/// Every group gets blocks for the same count of tokens, as short sequences need it, until a group
/// with a window has what `max_batch` sequences can ever hold behind it; what is left goes to the
/// groups without one. Without `kv_memory`, the budget is what `max_batch` sequences of full length
/// need, at most half of the free memory.
///
/// # Errors
/// `OutOfMemory` where the budget is more than is free, or less than `context_len`, or one block,
/// needs.
pub fn size_kv(
    spec: &ModelSpec,
    kv_type: KvType,
    options: &EngineOptions,
    free_memory: Option<u64>,
) -> Result<KvSize> {
    let wanted_len = options.context_len.unwrap_or(spec.context_len).max(1);
    let block_bytes: Vec<u64> =
        (0..spec.kv_groups.len()).map(|g| (spec.kv_token_bytes(g, kv_type) * BLOCK_LEN) as u64).collect();
    let windows: Vec<Option<usize>> = spec.kv_groups.iter().map(|g| g.window).collect();
    let all_bytes: u64 = block_bytes.iter().sum();
    if all_bytes == 0 {
        return Ok(KvSize { blocks: vec![0; windows.len()], context_len: wanted_len, bytes: 0 });
    }
    let most = |g: usize, num_sequences: usize| -> u64 {
        (num_sequences as u64).saturating_mul(most_blocks(windows[g], wanted_len, options.max_rows) as u64)
    };
    // cached prefixes are found only where the window before them is kept too
    let kept = if options.prefix_cache { 2 } else { 1 };
    let ceiling = |g: usize| most(g, options.max_batch).saturating_mul(kept).max(1);
    let full: u64 = (0..windows.len())
        .fold(0u64, |sum, g| sum.saturating_add(most(g, options.max_batch).saturating_mul(block_bytes[g])));
    let budget = match (options.kv_memory, free_memory) {
        (Some(asked), Some(free)) if asked > free => {
            return Err(Error::OutOfMemory { what: "kv_memory".into(), needed: asked, available: free });
        }
        (Some(asked), _) => asked,
        (None, Some(free)) => full.min(free / 2),
        // nothing is known of the machine: enough for one sequence
        (None, None) => (0..windows.len())
            .fold(0u64, |sum, g| sum.saturating_add(most(g, 1).saturating_mul(block_bytes[g]))),
    };

    let even = budget / all_bytes;
    let mut blocks: Vec<u64> = windows
        .iter()
        .enumerate()
        .map(|(g, window)| if window.is_some() { even.min(ceiling(g)) } else { even })
        .collect();
    let windowed: u64 =
        (0..windows.len()).filter(|&g| windows[g].is_some()).map(|g| blocks[g] * block_bytes[g]).sum();
    let full_bytes: u64 = (0..windows.len()).filter(|&g| windows[g].is_none()).map(|g| block_bytes[g]).sum();
    if let Some(rest) = (budget - windowed).checked_div(full_bytes) {
        for (g, _) in windows.iter().enumerate().filter(|(_, w)| w.is_none()) {
            blocks[g] = rest;
        }
    }
    // block numbers are 32 bits wide and the last one means "none"
    let blocks: Vec<usize> = blocks.iter().map(|&n| n.min(u64::from(u32::MAX) - 1) as usize).collect();

    let context_len = (0..windows.len()).map(|g| longest(windows[g], blocks[g])).min().unwrap_or(wanted_len);
    let context_len = context_len.min(wanted_len);
    let is_short = options.context_len.is_some_and(|len| len > context_len);
    if context_len == 0 || is_short {
        let len = if is_short { wanted_len } else { 1 };
        let needed = (0..windows.len()).fold(0u64, |sum, g| {
            sum.saturating_add(block_bytes[g].saturating_mul(most_blocks(windows[g], len, BLOCK_LEN) as u64))
        });
        let what = format!("a KV cache for {len} tokens");
        return Err(Error::OutOfMemory { what, needed, available: budget });
    }
    let bytes = (0..windows.len()).map(|g| blocks[g] as u64 * block_bytes[g]).sum();
    Ok(KvSize { blocks, context_len, bytes })
}

/// The longest sequence that `num_blocks` blocks of a group hold, stepping a block at a time at worst.
fn longest(window: Option<usize>, num_blocks: usize) -> usize {
    let is_endless = window.is_some() && num_blocks >= most_blocks(window, usize::MAX - BLOCK_LEN, BLOCK_LEN);
    if is_endless { usize::MAX } else { num_blocks.saturating_mul(BLOCK_LEN) }
}

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

/// Ends of cached texts for which windows are kept beside those of as many as may run.
const NUM_KEPT: usize = 16;

/// Divides a budget among the KV groups of `spec`.
///
/// Every group gets blocks for the same count of tokens, as short sequences need it, until a group
/// with a window has what `max_batch` sequences can ever hold behind it; what is left goes to the
/// groups without one. Without `kv_memory`, the budget is what `max_batch` sequences of full length
/// need, at most half of the free memory, or what one of an asked `context_len` needs where that is more.
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
    let (windows, block_bytes) = groups(spec, kv_type);
    let all_bytes: u64 = block_bytes.iter().sum();
    if all_bytes == 0 {
        return Ok(KvSize { blocks: vec![0; windows.len()], context_len: wanted_len, bytes: 0 });
    }
    let rows = options.max_rows.max(BLOCK_LEN);
    let most = |g: usize, num_sequences: usize| -> u64 {
        (num_sequences as u64).saturating_mul(most_blocks(windows[g], wanted_len, rows) as u64)
    };
    let has_full_group = windows.contains(&None);
    // cached prefixes are found only where the window before them is kept too
    let num_kept = if options.prefix_cache { options.max_batch.saturating_add(NUM_KEPT) } else { 0 };
    let ceiling = |g: usize| match windows[g] {
        Some(_) if has_full_group => most(g, options.max_batch.saturating_add(num_kept)).max(1),
        _ => u64::MAX,
    };
    let full: u64 = (0..windows.len())
        .fold(0u64, |sum, g| sum.saturating_add(most(g, options.max_batch).saturating_mul(block_bytes[g])));
    let budget = match (options.kv_memory, free_memory) {
        (Some(asked), Some(free)) if asked > free => {
            return Err(Error::OutOfMemory { what: "kv_memory".into(), needed: asked, available: free });
        }
        (Some(asked), _) => asked,
        (None, Some(free)) => {
            let asked = options.context_len.map_or(0, |len| sequence_bytes(&windows, &block_bytes, len));
            full.min(asked.min(free).max(free / 2))
        }
        // nothing is known of the machine: enough for one sequence
        (None, None) => (0..windows.len())
            .fold(0u64, |sum, g| sum.saturating_add(most(g, 1).saturating_mul(block_bytes[g]))),
    };

    let even = budget / all_bytes;
    // no window takes what one sequence of an asked length needs elsewhere
    let full_groups = (0..windows.len()).filter(|&g| windows[g].is_none());
    let promised = options.context_len.map_or(0, |len| {
        let bytes =
            full_groups.map(|g| (most_blocks(None, len, BLOCK_LEN) as u64).saturating_mul(block_bytes[g]));
        bytes.fold(0, u64::saturating_add)
    });
    let windowed_bytes: u64 =
        (0..windows.len()).filter(|&g| windows[g].is_some()).map(|g| block_bytes[g]).sum();
    let spare = budget.saturating_sub(promised).checked_div(windowed_bytes).unwrap_or(u64::MAX);
    let share = |g: usize| if windows[g].is_some() { even.min(spare) } else { even };
    let mut blocks: Vec<u64> = (0..windows.len()).map(|g| share(g).min(ceiling(g))).collect();
    let windowed: u64 =
        (0..windows.len()).filter(|&g| windows[g].is_some()).map(|g| blocks[g] * block_bytes[g]).sum();
    let full_bytes: u64 = (0..windows.len()).filter(|&g| windows[g].is_none()).map(|g| block_bytes[g]).sum();
    if let Some(rest) = (budget - windowed).checked_div(full_bytes) {
        for (g, _) in windows.iter().enumerate().filter(|(_, w)| w.is_none()) {
            blocks[g] = rest;
        }
    }
    // tokens of a pool are numbered in 32 bits
    let most_numbered = u64::from(u32::MAX) / BLOCK_LEN as u64;
    let blocks: Vec<usize> = blocks.iter().map(|&n| n.min(most_numbered) as usize).collect();

    let context_len = (0..windows.len()).map(|g| longest(windows[g], blocks[g])).min().unwrap_or(wanted_len);
    let context_len = context_len.min(wanted_len);
    let is_short = options.context_len.is_some_and(|len| len > context_len);
    if context_len == 0 || is_short {
        let len = if is_short { wanted_len } else { 1 };
        let needed = sequence_bytes(&windows, &block_bytes, len);
        let what = format!("a KV cache for {len} tokens");
        return Err(Error::OutOfMemory { what, needed, available: budget });
    }
    let bytes = (0..windows.len()).map(|g| blocks[g] as u64 * block_bytes[g]).sum();
    Ok(KvSize { blocks, context_len, bytes })
}

/// The fewest bytes that [`size_kv`] takes, whatever is free: `kv_memory`, or one sequence of
/// `context_len`, or one block of each group.
///
/// # Errors
/// `OutOfMemory` where `kv_memory` is less than `context_len`, or one block, needs.
pub fn least_kv(spec: &ModelSpec, kv_type: KvType, options: &EngineOptions) -> Result<u64> {
    if options.kv_memory.is_some() {
        return Ok(size_kv(spec, kv_type, options, None)?.bytes);
    }
    let (windows, block_bytes) = groups(spec, kv_type);
    Ok(sequence_bytes(&windows, &block_bytes, options.context_len.unwrap_or(1)))
}

/// The window of each group, and the bytes of one of its blocks.
fn groups(spec: &ModelSpec, kv_type: KvType) -> (Vec<Option<usize>>, Vec<u64>) {
    let bytes = |g| (spec.kv_token_bytes(g, kv_type) * BLOCK_LEN) as u64;
    spec.kv_groups.iter().enumerate().map(|(g, group)| (group.window, bytes(g))).unzip()
}

/// Bytes of one sequence of `len` tokens that steps a block at a time.
fn sequence_bytes(windows: &[Option<usize>], block_bytes: &[u64], len: usize) -> u64 {
    let blocks = windows.iter().map(|&window| most_blocks(window, len, BLOCK_LEN) as u64);
    blocks.zip(block_bytes).fold(0, |sum, (blocks, bytes)| sum.saturating_add(blocks.saturating_mul(*bytes)))
}

/// The longest sequence that `num_blocks` blocks of a group hold, stepping a block at a time at worst.
fn longest(window: Option<usize>, num_blocks: usize) -> usize {
    let is_endless = window.is_some() && num_blocks >= most_blocks(window, usize::MAX - BLOCK_LEN, BLOCK_LEN);
    if is_endless { usize::MAX } else { num_blocks.saturating_mul(BLOCK_LEN) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloyforge_types::{Activation, AttentionSpec, KvGroup, LayerSpec, MlpSpec, NormPlacement};

    /// A spec whose groups have the given windows and one layer each, of 8 bytes a token in f32.
    fn spec(windows: &[Option<usize>], context_len: usize) -> ModelSpec {
        let layer = LayerSpec {
            attention: AttentionSpec::plain(1, 1, 1),
            mlp: MlpSpec::Dense { ff_dim: 1, activation: Activation::Silu, has_bias: false },
            norms: NormPlacement::Pre,
            cross: None,
            kv_group: 0,
        };
        ModelSpec {
            context_len,
            kv_groups: windows
                .iter()
                .enumerate()
                .map(|(i, &window)| KvGroup { layers: vec![i], window, is_transient: false })
                .collect(),
            ..ModelSpec::plain("none", 1, vec![layer; windows.len()])
        }
    }

    const BLOCK: u64 = 8 * BLOCK_LEN as u64;

    fn size(
        windows: &[Option<usize>],
        context_len: usize,
        change: impl FnOnce(&mut EngineOptions),
        free: Option<u64>,
    ) -> Result<KvSize> {
        let mut options =
            EngineOptions { max_batch: 4, max_rows: 64, prefix_cache: false, ..EngineOptions::default() };
        change(&mut options);
        size_kv(&spec(windows, context_len), KvType::F32, &options, free)
    }

    #[test]
    fn all_sequences_at_full_length_where_memory_allows() {
        let got = size(&[None], 100, |_| {}, Some(1 << 30)).unwrap();
        assert_eq!(got, KvSize { blocks: vec![16], context_len: 100, bytes: 16 * BLOCK });
    }

    #[test]
    fn half_of_the_free_memory_bounds_the_context() {
        let got = size(&[None], 1 << 20, |_| {}, Some(20 * BLOCK)).unwrap();
        assert_eq!(got, KvSize { blocks: vec![10], context_len: 320, bytes: 10 * BLOCK });
    }

    #[test]
    fn a_context_that_is_asked_for_may_take_all_of_the_free_memory() {
        let asked = |free: u64| size(&[None], 1 << 20, |o| o.context_len = Some(640), Some(free * BLOCK));
        assert_eq!(asked(20).unwrap(), KvSize { blocks: vec![20], context_len: 640, bytes: 20 * BLOCK });
        assert_eq!(asked(30).unwrap().blocks, [20]);
        assert_eq!(asked(60).unwrap().blocks, [30]);
        let what = "a KV cache for 640 tokens".to_owned();
        let want = Error::OutOfMemory { what, needed: 20 * BLOCK, available: 19 * BLOCK };
        assert_eq!(asked(19), Err(want));
    }

    /// What is planned before a model is loaded is what is then taken at the least.
    #[test]
    fn the_least_is_what_the_smallest_memory_allows() {
        type Change = fn(&mut EngineOptions);
        let cases: [(&[Option<usize>], Change, u64); 5] = [
            (&[None], |_| {}, 1),
            (&[None, Some(40)], |_| {}, 2),
            (&[None], |o| o.context_len = Some(65), 3),
            // 39 + 32 tokens touch at most 4 blocks
            (&[None, Some(40)], |o| o.context_len = Some(1000), 32 + 4),
            (&[None], |o| o.kv_memory = Some(7 * BLOCK + 1), 7),
        ];
        for (windows, change, blocks) in cases {
            let mut options = EngineOptions { prefix_cache: false, ..EngineOptions::default() };
            change(&mut options);
            let spec = spec(windows, 10_000);
            let least = least_kv(&spec, KvType::F32, &options).unwrap();
            assert_eq!(least, blocks * BLOCK, "{windows:?}");
            let free = 2 * least.max(options.kv_memory.unwrap_or(0));
            assert!(size_kv(&spec, KvType::F32, &options, Some(free)).unwrap().bytes >= least);
        }
        let mut options =
            EngineOptions { context_len: Some(65), kv_memory: Some(2 * BLOCK), ..EngineOptions::default() };
        options.prefix_cache = false;
        let refused = least_kv(&spec(&[None], 100), KvType::F32, &options);
        assert!(matches!(refused, Err(Error::OutOfMemory { needed, .. }) if needed == 3 * BLOCK));
    }

    #[test]
    fn a_window_takes_no_more_than_it_can_use() {
        // (39 + 64) tokens touch at most 5 blocks, for each of 4 sequences
        let set = |o: &mut EngineOptions| o.kv_memory = Some(1000 * BLOCK);
        let got = size(&[None, Some(40)], 100_000, set, None).unwrap();
        assert_eq!((got.blocks, got.context_len), (vec![980, 20], 980 * 32));
        // and as much as any where that is little
        let set = |o: &mut EngineOptions| o.kv_memory = Some(20 * BLOCK);
        let got = size(&[None, Some(40)], 100_000, set, None).unwrap();
        assert_eq!((got.blocks, got.context_len), (vec![10, 10], 320));
    }

    #[test]
    fn short_steps_do_not_shorten_the_context() {
        let set = |o: &mut EngineOptions| {
            (o.kv_memory, o.max_batch, o.max_rows) = (Some(44 * BLOCK), 1, 17);
        };
        assert_eq!(size(&[None, Some(40)], 512, set, None).unwrap().context_len, 512);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let more_than_free = size(&[None], 100, |o| o.kv_memory = Some(1000), Some(999));
        let want = Error::OutOfMemory { what: "kv_memory".into(), needed: 1000, available: 999 };
        assert_eq!(more_than_free, Err(want));
        let too_long = size(&[None], 100, |o| (o.kv_memory, o.context_len) = (Some(BLOCK), Some(33)), None);
        let what = "a KV cache for 33 tokens".to_owned();
        assert_eq!(too_long, Err(Error::OutOfMemory { what, needed: 2 * BLOCK, available: BLOCK }));
        let not_one_block = size(&[None], 100, |o| o.kv_memory = Some(BLOCK - 1), None);
        let what = "a KV cache for 1 tokens".to_owned();
        assert_eq!(not_one_block, Err(Error::OutOfMemory { what, needed: BLOCK, available: BLOCK - 1 }));
    }

    #[test]
    fn a_hostile_length_is_no_overflow() {
        let got = size(&[None, Some(usize::MAX)], usize::MAX, |_| {}, Some(1 << 40)).unwrap();
        assert!(got.bytes <= 1 << 39);
        assert!(size(&[None], usize::MAX, |o| o.context_len = Some(usize::MAX), Some(1 << 40)).is_err());
    }
}

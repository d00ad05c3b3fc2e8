//! Keys and values of an encoder's states: fixed once put, one slot an input.
//!
//! They are kept in the same blocks and planes as the KV cache, so that the same kernel attends over
//! them: slot `s` holds the blocks from `s * ceil(len / BLOCK_LEN)` on.

use alloyforge_types::{BLOCK_LEN, BlockId, Error, KvGroup, KvType, ModelSpec, QkNorm, Result};

use crate::cache::Cache;

/// The slots.
#[derive(Debug)]
pub(crate) struct States {
    pub(crate) cache: Cache,
    /// Inputs that there is room for, and rows of each.
    pub(crate) slots: usize,
    pub(crate) len: usize,
    /// The last row, as often as a tile has rows.
    pub(crate) ends: Vec<usize>,
    /// The probabilities of the step's watched heads, `[heads, rows, len]`.
    pub(crate) watched: Vec<f32>,
}

/// `spec` with its cross attention in place of its own: what the cache is laid out by.
pub(crate) fn cross_spec(spec: &ModelSpec) -> ModelSpec {
    let mut spec = spec.clone();
    let mut layers = Vec::new();
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        layer.kv_group = 0;
        if let Some(cross) = &layer.cross {
            layer.attention.num_heads = cross.num_heads;
            layer.attention.num_kv_heads = cross.num_heads;
            layer.attention.head_dim = cross.head_dim;
            layer.attention.qk_norm = QkNorm::None;
            layer.attention.window = None;
            layers.push(i);
        }
    }
    spec.kv_groups = vec![KvGroup { layers, window: None, is_transient: false }];
    spec
}

impl States {
    /// No slot.
    pub(crate) fn new(spec: &ModelSpec, ty: KvType) -> Result<Self> {
        let cache = Cache::new(&cross_spec(spec), ty)?;
        Ok(Self { cache, slots: 0, len: 0, ends: Vec::new(), watched: Vec::new() })
    }

    /// Takes `slots` slots of `len` rows.
    pub(crate) fn reserve(&mut self, slots: usize, len: usize) -> Result<()> {
        if len == 0 {
            return Err(Error::internal("slots for no states"));
        }
        let blocks = slots.saturating_mul(len.div_ceil(BLOCK_LEN));
        self.cache.reserve(&[blocks])?;
        (self.slots, self.len) = (slots, len);
        self.ends = vec![len; alloyforge_kernels::attention::tile_rows(1)];
        Ok(())
    }

    /// The block of `slot` that holds rows `index * BLOCK_LEN ..`.
    pub(crate) fn block(&self, slot: usize, index: usize) -> BlockId {
        (slot * self.len.div_ceil(BLOCK_LEN) + index) as BlockId
    }
}

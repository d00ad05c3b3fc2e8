//! The KV cache: one pool of blocks a layer, addressed by the block numbers of its group.

use std::ops::Range;

use alloyforge_types::{BLOCK_LEN, BlockId, Error, KvType, ModelSpec, Result};
use candle_core::{DType, Device, Tensor};
use half::vec::HalfBitsVecExt;

use crate::fault::Place;
use crate::formats;
use crate::words::Words;

/// Runs of neighbouring slots up to which rows are written run by run, as a prompt's are; more, as
/// those of a large decoding batch, are written by one scatter.
const MAX_RUNS: usize = 8;

/// Keys and values of every layer, each of shape `[blocks, BLOCK_LEN, kv_heads * head_dim]`.
#[derive(Debug)]
pub(crate) struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    /// Blocks in each group.
    blocks: Vec<usize>,
    ty: DType,
    bytes: u64,
}

/// Where a step's rows go in the pools of one group.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The slot of each row, `block * BLOCK_LEN + place`, among the step's words.
    all: Range<usize>,
    /// Rows that go to neighbouring slots.
    runs: Vec<Run>,
}

/// `len` rows from `row` on that go to the slots from `slot` on.
#[derive(Debug)]
struct Run {
    row: usize,
    slot: usize,
    len: usize,
}

impl Slots {
    /// The plan for rows whose slots are `slots`.
    pub(crate) fn new(slots: &[u32], words: &mut Words) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for (row, &slot) in slots.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.slot + run.len == slot as usize => run.len += 1,
                _ => runs.push(Run { row, slot: slot as usize, len: 1 }),
            }
        }
        Self { all: words.put(slots), runs }
    }

    /// The slots on the device, as a column.
    pub(crate) fn column(&self, words: &Words) -> candle_core::Result<Tensor> {
        words.view(&self.all)?.reshape((self.all.len(), 1))
    }

    /// Writes `rows` into `pool`, both of the same type and width.
    fn write(&self, pool: &Tensor, rows: &Tensor, words: &Words) -> candle_core::Result<()> {
        let (_, _, width) = pool.dims3()?;
        let pool = pool.reshape(((), width))?;
        if self.runs.len() > MAX_RUNS {
            let slots = self.column(words)?.broadcast_as(rows.shape())?.contiguous()?;
            return pool.scatter_set(&slots, rows, 0);
        }
        self.runs.iter().try_for_each(|run| pool.slice_set(&rows.narrow(0, run.row, run.len)?, 0, run.slot))
    }
}

/// Neighbouring tokens of a sequence in one group, gathered from their blocks.
#[derive(Debug)]
pub(crate) struct Span {
    /// The index of the first token.
    pub(crate) first: usize,
    /// Tokens.
    pub(crate) len: usize,
    /// The blocks that hold them, among the step's words.
    blocks: Range<usize>,
    /// Where in the first block the first token stands.
    skip: usize,
}

impl Span {
    /// The tokens `first .. end` of the sequence with block table `table`, which covers them.
    pub(crate) fn new(table: &[BlockId], first: usize, end: usize, words: &mut Words) -> Self {
        let blocks = words.put(&table[first / BLOCK_LEN..end.div_ceil(BLOCK_LEN)]);
        Self { first, len: end - first, blocks, skip: first % BLOCK_LEN }
    }

    /// Their vectors as `[kv_heads, len, head_dim]`: f32 on the CPU, of the pool's type elsewhere.
    fn read(&self, pool: &Tensor, kv_heads: usize, words: &Words) -> candle_core::Result<Tensor> {
        let (_, _, width) = pool.dims3()?;
        let blocks = words.view(&self.blocks)?;
        let gathered = pool.index_select(&blocks, 0)?.reshape(((), kv_heads, width / kv_heads))?;
        let vectors = gathered.narrow(0, self.skip, self.len)?.transpose(0, 1)?.contiguous()?;
        if pool.device().is_cpu() { vectors.to_dtype(DType::F32) } else { Ok(vectors) }
    }
}

impl Cache {
    /// Takes `blocks[g]` blocks for each group `g` of the `available` bytes.
    ///
    /// # Errors
    /// `OutOfMemory` with the figures, before anything is taken; `Internal` where `blocks` is not one
    /// number a group.
    pub(crate) fn reserve(
        place: &Place,
        spec: &ModelSpec,
        ty: KvType,
        blocks: &[usize],
        available: Option<u64>,
    ) -> Result<Self> {
        if blocks.len() != spec.kv_groups.len() {
            return Err(Error::internal(format!(
                "{} pools for {} KV groups",
                blocks.len(),
                spec.kv_groups.len()
            )));
        }
        let bytes = (0..blocks.len())
            .map(|g| {
                // slots are numbered in 32 bits
                let slots = blocks[g].checked_mul(BLOCK_LEN).filter(|&n| u32::try_from(n).is_ok())?;
                (slots as u64).checked_mul(spec.kv_token_bytes(g, ty) as u64)
            })
            .try_fold(0u64, |sum, bytes| sum.checked_add(bytes?));
        let refuse = || Error::OutOfMemory {
            what: "the KV cache".into(),
            needed: bytes.unwrap_or(u64::MAX),
            available: available.unwrap_or(0),
        };
        let bytes = bytes.filter(|&bytes| available.is_none_or(|free| bytes <= free)).ok_or_else(refuse)?;
        let ty = formats::cached(ty)?;
        let mut layers = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            let a = &layer.attention;
            let shape = (blocks[layer.kv_group], BLOCK_LEN, a.num_kv_heads * a.head_dim);
            if !is_allocatable(place, shape.0 * shape.1 * shape.2 * ty.size_in_bytes()) {
                return Err(refuse());
            }
            let pool = || zeros(place, ty, shape).map_err(|e| place.fault(e));
            layers.push((pool()?, pool()?));
        }
        Ok(Self { layers, blocks: blocks.to_vec(), ty, bytes })
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Blocks in the pool of `group`.
    pub(crate) fn blocks(&self, group: usize) -> usize {
        self.blocks.get(group).copied().unwrap_or(0)
    }

    /// Writes a step's keys and values of `layer`, each of shape `[rows, kv_heads * head_dim]`.
    pub(crate) fn write(
        &self,
        layer: usize,
        slots: &Slots,
        k: &Tensor,
        v: &Tensor,
        words: &Words,
    ) -> candle_core::Result<()> {
        let (keys, values) = &self.layers[layer];
        for (pool, rows) in [(keys, k), (values, v)] {
            slots.write(pool, &rows.to_dtype(self.ty)?.contiguous()?, words)?;
        }
        Ok(())
    }

    /// The pools of `layer`.
    pub(crate) fn pools(&self, layer: usize) -> &(Tensor, Tensor) {
        &self.layers[layer]
    }

    /// Keys and values of `span` in `layer`, each as `[kv_heads, len, head_dim]`.
    pub(crate) fn read(
        &self,
        layer: usize,
        span: &Span,
        kv_heads: usize,
        words: &Words,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let (keys, values) = &self.layers[layer];
        Ok((span.read(keys, kv_heads, words)?, span.read(values, kv_heads, words)?))
    }

    /// Bytes that [`read_block`](Self::read_block) gives for `layers`.
    pub(crate) fn block_bytes(&self, layers: &[usize]) -> usize {
        let width = |pool: &Tensor| pool.dims().last().copied().unwrap_or(0);
        layers.iter().map(|&l| 2 * BLOCK_LEN * width(&self.layers[l].0) * size_of::<f32>()).sum()
    }

    /// Adds what `block` holds in the pools of `layers` to `out`, as f32, which holds every type.
    pub(crate) fn read_block(
        &self,
        layers: &[usize],
        block: BlockId,
        out: &mut Vec<u8>,
    ) -> candle_core::Result<()> {
        for &layer in layers {
            let (keys, values) = &self.layers[layer];
            for pool in [keys, values] {
                // of this block alone: what is brought to the host is all that the tensor is a view of
                let block = pool.narrow(0, block as usize, 1)?.force_contiguous()?;
                let numbers = block.flatten_all()?.to_dtype(DType::F32)?;
                out.extend(numbers.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()));
            }
        }
        Ok(())
    }

    /// Fills `block` in the pools of `layers` with what [`read_block`](Self::read_block) gave.
    pub(crate) fn write_block(
        &self,
        layers: &[usize],
        block: BlockId,
        bytes: &[u8],
    ) -> candle_core::Result<()> {
        let mut rest = bytes;
        for &layer in layers {
            let (keys, values) = &self.layers[layer];
            for pool in [keys, values] {
                let (_, len, width) = pool.dims3()?;
                let (mine, after) = rest.split_at(len * width * size_of::<f32>());
                rest = after;
                let number = |b: &[u8; 4]| f32::from_le_bytes(*b);
                let numbers: Vec<f32> = mine.as_chunks::<4>().0.iter().map(number).collect();
                let numbers = Tensor::from_vec(numbers, (1, len, width), pool.device())?.to_dtype(self.ty)?;
                pool.slice_set(&numbers, 0, block as usize)?;
            }
        }
        Ok(())
    }

    /// Copies blocks in the pools of `layers`, one pair after the other.
    pub(crate) fn copy(&self, layers: &[usize], pairs: &[(BlockId, BlockId)]) -> candle_core::Result<()> {
        for &layer in layers {
            let (keys, values) = &self.layers[layer];
            for pool in [keys, values] {
                for &(from, to) in pairs {
                    // a copy of its own, of this block alone: a pool cannot be written from itself
                    let block = pool.narrow(0, from as usize, 1)?.force_contiguous()?;
                    pool.slice_set(&block, 0, to as usize)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether the host has an address range of `bytes`: allocating without asking would end the process.
fn is_allocatable(place: &Place, bytes: usize) -> bool {
    !place.device.is_cpu() || Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}

/// A pool of zeros. On the CPU its pages are taken from the system when they are first written.
fn zeros(place: &Place, ty: DType, shape: (usize, usize, usize)) -> candle_core::Result<Tensor> {
    let len = shape.0 * shape.1 * shape.2;
    match ty {
        // zeroed integers come straight from the allocator, zeroed halves would be written one by one
        DType::F16 if place.device.is_cpu() => {
            Tensor::from_vec(vec![0u16; len].reinterpret_into::<half::f16>(), shape, &Device::Cpu)
        }
        DType::BF16 if place.device.is_cpu() => {
            Tensor::from_vec(vec![0u16; len].reinterpret_into::<half::bf16>(), shape, &Device::Cpu)
        }
        _ => Tensor::zeros(shape, ty, &place.device),
    }
}

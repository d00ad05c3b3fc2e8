//! What passes between phases: one buffer for each thing, as large as the largest step needs.

use alloyforge_kernels::attention;
use alloyforge_kernels::disjoint::PerWorker;
use alloyforge_kernels::grid::Grid;
use alloyforge_kernels::memory::Buffer;
use alloyforge_kernels::packed::activations::{Activations, num_blocks};
use alloyforge_kernels::product;
use alloyforge_types::{Error, MlpSpec, ModelSpec, Result};

use crate::rope::Rope;
use crate::step::Limits;

/// A buffer of rows.
#[derive(Debug)]
pub(crate) struct Table {
    data: Buffer,
}

impl Table {
    fn new(rows: usize, width: usize) -> Result<Self> {
        let len = rows.checked_mul(width).ok_or_else(too_large)?;
        Ok(Self { data: Buffer::zeroed_f32(len, "the workspace")? })
    }

    pub(crate) fn get(&self) -> &[f32] {
        self.data.f32s()
    }

    pub(crate) fn get_mut(&mut self) -> &mut [f32] {
        self.data.f32s_mut()
    }
}

/// Most parts of a sequence that threads share; a longer one has enough rows to keep them busy, or
/// waits. Enough for four million tokens.
pub(crate) const PARTS_KEPT: usize = 96;

/// Room for the sums of parts of sequences.
#[derive(Debug)]
pub(crate) struct Partials {
    /// `[items, PARTS_KEPT, group, partial_len]`.
    pub(crate) sums: Table,
    /// Rows with a key head that there is room for.
    pub(crate) items: usize,
}

/// What one thread needs for itself.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) panel: Vec<f32>,
    /// A part's gate and up, `[batch, CHUNK_ROWS]`.
    pub(crate) gate: Table,
    pub(crate) up: Table,
    pub(crate) attention: attention::Scratch,
}

/// Which expert gets which rows.
#[derive(Debug)]
pub(crate) struct Routing {
    /// Router logits, `[max_rows, experts]`.
    pub(crate) logits: Table,
    /// The experts of each row, `[rows, per_token]`.
    pub(crate) chosen: Vec<u32>,
    /// Their weights.
    pub(crate) weights: Vec<f32>,
    /// The rows, sorted by expert.
    pub(crate) sorted: Vec<u32>,
    /// Where a row's choice stands in that order, `[rows, per_token]`.
    pub(crate) places: Vec<u32>,
    /// The experts that have rows: which, and where theirs begin; one more entry ends the last.
    pub(crate) active: Vec<(usize, usize)>,
    /// Counts, by expert.
    pub(crate) counts: Vec<usize>,
    /// The experts' results, by sorted row, `[max_rows * per_token, hidden]`.
    pub(crate) results: Table,
}

/// The buffers.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The residual stream, `[max_rows, hidden]`.
    pub(crate) residual: Table,
    /// The normed residual stream, likewise.
    pub(crate) normed: Table,
    /// What a block adds, where a norm stands before the sum, likewise.
    pub(crate) added: Table,
    pub(crate) q: Table,
    pub(crate) k: Table,
    pub(crate) v: Table,
    /// What attention gives, by rows of the layer's query width.
    pub(crate) attended: Table,
    pub(crate) gate: Table,
    pub(crate) up: Table,
    pub(crate) routing: Option<Routing>,
    /// The rows before the head, `[max_logit_rows, hidden]`.
    pub(crate) last: Table,
    /// Cosines and sines of each rope, `[max_rows, angles]`.
    pub(crate) angles: Vec<(Table, Table)>,
    /// The input of the products at hand, for matrices that take blocks.
    pub(crate) blocks: Activations,
    /// The gated rows of a dense MLP, likewise.
    pub(crate) gated: Activations,
    pub(crate) partials: Partials,
    pub(crate) scratch: PerWorker<Scratch>,
    bytes: u64,
}

impl Workspace {
    pub(crate) fn new(spec: &ModelSpec, limits: Limits, ropes: &[Rope], threads: usize) -> Result<Self> {
        let mut bytes = 0;
        let mut table = |rows: usize, width: usize| {
            let table = Table::new(rows, width)?;
            bytes += table.data.len() as u64;
            Ok::<_, Error>(table)
        };
        let widest = |width: fn(&alloyforge_types::AttentionSpec) -> usize| {
            spec.layers.iter().map(|layer| width(&layer.attention)).max().unwrap_or(0)
        };
        let (rows, hidden) = (limits.max_rows, spec.hidden_dim);
        let cross = spec.layers.iter().filter_map(|layer| layer.cross.as_ref());
        let cross_dim = cross.clone().map(|c| c.num_heads * c.head_dim).max().unwrap_or(0);
        let cross_head = cross.map(|c| c.head_dim).max().unwrap_or(0);
        let q_dim = widest(|a| a.num_heads * a.head_dim).max(cross_dim);
        let kv_dim = widest(|a| a.num_kv_heads * a.head_dim).max(cross_dim);
        // an expert's rows are as many as chose it, all together `per_token` a row
        let (mut gated, mut experts, mut pairs, mut ff_dim) = (0usize, 0, 0usize, 0);
        let size = |a: usize, b: usize| a.checked_mul(b).ok_or_else(too_large);
        let mut blocks = size(rows, num_blocks(hidden.max(q_dim)))?;
        blocks = blocks.max(size(limits.max_logit_rows, num_blocks(hidden))?);
        let mut gated_blocks = 0usize;
        for layer in &spec.layers {
            let (width, each) = match &layer.mlp {
                MlpSpec::Dense { ff_dim, .. } | MlpSpec::Plain { ff_dim, .. } => (*ff_dim, 1),
                MlpSpec::Moe(moe) => {
                    experts = experts.max(moe.num_experts);
                    pairs = pairs.max(size(rows, moe.experts_per_token)?);
                    (moe.ff_dim, moe.experts_per_token)
                }
                _ => (0, 0),
            };
            ff_dim = ff_dim.max(width);
            gated = gated.max(size(size(rows, each)?, width)?);
            let room =
                if matches!(layer.mlp, MlpSpec::Dense { .. }) { &mut gated_blocks } else { &mut blocks };
            *room = (*room).max(size(size(rows, each)?, num_blocks(width))?);
        }
        let widths = [hidden, q_dim, ff_dim];
        let panel = product::scratch_len(widths.into_iter().max().unwrap_or(0));
        let (head_dim, group) = (widest(|a| a.head_dim).max(cross_head), spec.max_group());
        let batch = rows.min(Grid::MAX_BATCH);
        let scratch = PerWorker::new(threads, || {
            Ok::<_, Error>(Scratch {
                panel: vec![0.0; panel],
                gate: Table::new(batch, product::CHUNK_ROWS)?,
                up: Table::new(batch, product::CHUNK_ROWS)?,
                attention: attention::Scratch::new(head_dim, group),
            })
        })?;
        let routing = match experts {
            0 => None,
            _ => Some(Routing {
                logits: table(rows, experts)?,
                chosen: vec![0; pairs],
                weights: vec![0.0; pairs],
                sorted: vec![0; pairs],
                places: vec![0; pairs],
                active: Vec::with_capacity(experts + 1),
                counts: vec![0; experts],
                results: table(pairs, hidden)?,
            }),
        };
        let items = (4 * threads).min(128);
        let line = widest(|a| a.num_heads / a.num_kv_heads * attention::partial_len(a.head_dim));
        let mut workspace = Self {
            residual: table(rows, hidden)?,
            normed: table(rows, hidden)?,
            added: table(rows, hidden)?,
            q: table(rows, q_dim)?,
            k: table(rows, kv_dim)?,
            v: table(rows, kv_dim)?,
            attended: table(rows, q_dim)?,
            gate: table(gated, 1)?,
            up: table(gated, 1)?,
            routing,
            last: table(limits.max_logit_rows, hidden)?,
            angles: ropes
                .iter()
                .map(|rope| {
                    Ok::<_, Error>((table(rows, rope.num_angles())?, table(rows, rope.num_angles())?))
                })
                .collect::<Result<_>>()?,
            blocks: Activations::new(blocks)?,
            gated: Activations::new(gated_blocks)?,
            partials: Partials { sums: table(items * PARTS_KEPT, line)?, items },
            scratch,
            bytes: 0,
        };
        let per_thread =
            4 * (panel + 2 * batch * product::CHUNK_ROWS) + workspace.scratch.get(0).attention.bytes();
        workspace.bytes = bytes
            + (workspace.blocks.bytes() + workspace.gated.bytes()) as u64
            + 16 * pairs as u64
            + (threads * per_thread) as u64;
        Ok(workspace)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn too_large() -> Error {
    Error::OutOfMemory {
        what: "the workspace".into(),
        needed: u64::MAX,
        available: alloyforge_kernels::memory::available().unwrap_or(0),
    }
}

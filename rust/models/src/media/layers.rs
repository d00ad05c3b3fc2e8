//! An encoder's layers as a decoder's: rows that are spliced in and see each other, on the phases of any
//! backend.
//!
//! So pictures and texts run on the same products and the same attention as everything else, and no
//! backend has a second transformer. What stands around the layers, patches and heads, is the encoder's.

use std::borrow::Cow;
use std::sync::Arc;

use alloyforge_interfaces::{
    Backend, LoadOptions, MemoryUse, TensorStore, TowerLayers, TowerRows, WeightSource,
};
use alloyforge_types::{
    Activation, AttentionSpec, BLOCK_LEN, Batch, BlockId, DType, EmbedSpan, EncoderActivation, EncoderNorm,
    Error, GridRope, KvType, LayerRole, LayerSpec, MlpSpec, ModelSpec, NormKind, NormPlacement, QuantType,
    Result, Role, RopeLayout, RopeScaling, RopeSections, RopeSpec, SequenceStep, TowerSpec, Weight,
};
use half::{bf16, f16};

/// Rows that room is made for at a time.
const ROW_STEP: usize = 256;

/// Most layers, so that a damaged count takes no memory.
const MAX_LAYERS: usize = 1024;

/// The layers of `tower` as a decoder's.
///
/// # Errors
/// `Internal` for sizes that no encoder has.
fn spec(tower: &TowerSpec) -> Result<ModelSpec> {
    if tower.num_layers > MAX_LAYERS || tower.head_dim == 0 {
        return Err(Error::internal(format!("an encoder of {} blocks", tower.num_layers)));
    }
    let activation = match tower.activation {
        EncoderActivation::Gelu => Activation::Gelu,
        EncoderActivation::GeluTanh => Activation::GeluTanh,
        EncoderActivation::QuickGelu => Activation::QuickGelu,
        EncoderActivation::Silu => Activation::Silu,
        EncoderActivation::Relu => Activation::Relu,
    };
    let [attention_bias, has_bias] = tower.has_bias;
    let ff_dim = tower.ff_dim;
    let layer = LayerSpec {
        attention: AttentionSpec {
            rope: tower.rope.map(|_| 0),
            has_qkv_bias: attention_bias,
            has_o_bias: attention_bias,
            ..AttentionSpec::plain(tower.num_heads, tower.num_heads, tower.head_dim)
        },
        cross: None,
        mlp: match tower.is_gated {
            true => MlpSpec::Dense { ff_dim, activation, has_bias },
            false => MlpSpec::Plain { ff_dim, activation, has_bias },
        },
        norms: if tower.is_post_norm { NormPlacement::After } else { NormPlacement::Pre },
        kv_group: 0,
    };
    let mut spec = ModelSpec {
        ropes: tower.rope.map(|rope| turn(rope, tower.head_dim)).into_iter().collect(),
        norm: match tower.norm {
            EncoderNorm::Layer => NormKind::Layer,
            EncoderNorm::Rms => NormKind::Rms,
        },
        norm_eps: tower.norm_eps,
        ..ModelSpec::plain("encoder", tower.width, vec![layer; tower.num_layers])
    };
    spec.kv_groups.iter_mut().for_each(|group| group.is_transient = true);
    Ok(spec)
}

/// A turn by line and column as one by sections: each frequency by the number that divides one.
fn turn(rope: GridRope, head_dim: usize) -> RopeSpec {
    let half = head_dim / 2;
    let wave = |theta: f32, i: usize, dim: usize| theta.powf((2 * i) as f32 / dim as f32);
    let (divisors, layout): (Vec<f32>, _) = match rope {
        GridRope::Halves { theta } => {
            let part = (0..half / 2).map(|i| wave(theta, i, half));
            (part.clone().chain(part).collect(), RopeLayout::Half)
        }
        GridRope::EvenOdd { theta } | GridRope::Paired { theta } => {
            let every = |from: usize| (from..half).step_by(2).map(move |i| wave(theta, i, head_dim));
            let layout = match rope {
                GridRope::Paired { .. } => RopeLayout::Interleaved,
                _ => RopeLayout::Half,
            };
            (every(0).chain(every(1)).collect(), layout)
        }
    };
    let lines = divisors.len().div_ceil(2);
    let sections = RopeSections::Contiguous([0, lines, divisors.len() - lines]);
    // a base of one leaves the divisors alone
    let scaling = RopeScaling::Divisors(divisors);
    RopeSpec { theta: 1.0, dim: head_dim, layout, scaling, sections: Some(sections) }
}

/// A tower's weights by role, from the names that encoders ask for.
struct Weights<'a> {
    store: &'a dyn TensorStore,
    spec: ModelSpec,
    has_layer_scale: bool,
}

impl Weights<'_> {
    fn name(&self, role: Role) -> Option<String> {
        use LayerRole as L;
        let Role::Layer(i, role) = role else { return None };
        let name = match role {
            L::AttnNorm | L::AttnPostNorm => "ln1.weight",
            L::AttnNormBias | L::AttnPostNormBias => "ln1.bias",
            L::Q => "attn_q.weight",
            L::K => "attn_k.weight",
            L::V => "attn_v.weight",
            L::O => "attn_out.weight",
            L::QBias => "attn_q.bias",
            L::KBias => "attn_k.bias",
            L::VBias => "attn_v.bias",
            L::OBias => "attn_out.bias",
            L::MlpNorm | L::MlpPostNorm => "ln2.weight",
            L::MlpNormBias | L::MlpPostNormBias => "ln2.bias",
            L::Gate => "ffn_gate.weight",
            L::Up => "ffn_up.weight",
            L::Down => "ffn_down.weight",
            L::GateBias => "ffn_gate.bias",
            L::UpBias => "ffn_up.bias",
            L::DownBias => "ffn_down.bias",
            _ => return None,
        };
        Some(format!("blk.{i}.{name}"))
    }

    /// The tensor `name` as `rows` rows of `cols` numbers, however its file folds them.
    fn find(&self, name: String, rows: usize, cols: usize) -> Result<Weight<'_>> {
        let fault = |fault: String| Error::format(self.store.label(), format!("tensor `{name}`"), fault);
        let view = self.store.tensor(&name).ok_or_else(|| fault("is missing".to_owned()))?;
        let found = view.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let bytes = view.ty.row_bytes(cols).and_then(|row| row.checked_mul(rows));
        if found != rows.checked_mul(cols) || bytes != Some(view.data.len()) {
            return Err(fault(format!("has shape {:?}, expected [{rows}, {cols}]", view.shape)));
        }
        Ok(Weight { name, ty: view.ty, rows, cols, data: Cow::Borrowed(view.data) })
    }

    /// The plain numbers of `weight`.
    fn numbers(&self, weight: &Weight<'_>) -> Result<Vec<f32>> {
        let pairs = || weight.data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        match weight.ty {
            QuantType::F32 => {
                let singles = weight.data.chunks_exact(4);
                Ok(singles.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            QuantType::F16 => Ok(pairs().map(|bits| f16::from_bits(bits).to_f32()).collect()),
            QuantType::BF16 => Ok(pairs().map(|bits| bf16::from_bits(bits).to_f32()).collect()),
            ty => {
                let what = format!("tensor `{}` of type {} beside a scale", weight.name, ty.name());
                Err(Error::unsupported(self.store.label(), what))
            }
        }
    }

    /// Every row of `weight`, or each of its numbers where it is a bias, times its own factor: what
    /// DINOv2 scales its sums by.
    fn scaled<'w>(&self, weight: Weight<'w>, scale: &str) -> Result<Weight<'w>> {
        let len = weight.rows * weight.cols;
        let outputs = if weight.rows == 1 { weight.cols } else { weight.rows };
        let scale = self.find(scale.to_owned(), 1, outputs)?;
        let (mut numbers, factors) = (self.numbers(&weight)?, self.numbers(&scale)?);
        for (row, factor) in numbers.chunks_exact_mut(len / outputs).zip(&factors) {
            row.iter_mut().for_each(|x| *x *= factor);
        }
        let data = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        Ok(Weight { ty: QuantType::F32, data: Cow::Owned(data), ..weight })
    }
}

impl WeightSource for Weights<'_> {
    fn weight(&self, role: Role) -> Result<Weight<'_>> {
        use LayerRole as L;
        let Some((rows, cols)) = self.spec.weight_shape(role) else {
            return Err(Error::internal(format!("{role:?} is no weight of the encoder")));
        };
        let Some(name) = self.name(role) else {
            // no token is read, and the last norm is the encoder's own
            let data = Cow::Owned(vec![0; 4 * rows * cols]);
            return Ok(Weight { name: format!("{role:?}"), ty: QuantType::F32, rows, cols, data });
        };
        let weight = self.find(name, rows, cols)?;
        match role {
            Role::Layer(i, L::O | L::OBias) if self.has_layer_scale => {
                self.scaled(weight, &format!("blk.{i}.ls1"))
            }
            Role::Layer(i, L::Down | L::DownBias) if self.has_layer_scale => {
                self.scaled(weight, &format!("blk.{i}.ls2"))
            }
            _ => Ok(weight),
        }
    }
}

/// An encoder's layers on a backend.
pub struct BackendLayers<B: Backend> {
    spec: ModelSpec,
    backend: B,
    is_causal: bool,
    /// Rows and blocks that there is room for.
    room: [usize; 2],
}

impl<B: Backend> BackendLayers<B> {
    /// Loads the layers of `tower` with `load`, which makes a backend of a spec, its weights and options.
    /// Sums are in f32, whatever the weights are kept in.
    ///
    /// # Errors
    /// `Format` for a tensor that is missing or of another shape; what `load` fails with.
    pub fn load(
        tower: &TowerSpec,
        store: &dyn TensorStore,
        threads: Option<usize>,
        load: impl FnOnce(&ModelSpec, &dyn WeightSource, &LoadOptions) -> Result<B>,
    ) -> Result<Self> {
        let spec = spec(tower)?;
        let weights = Weights { store, spec: spec.clone(), has_layer_scale: tower.has_layer_scale };
        let options = LoadOptions {
            dtype: Some(DType::F32),
            quantize: None,
            kv_type: Some(KvType::F32),
            threads,
            max_rows: ROW_STEP,
            max_logit_rows: ROW_STEP,
            kv_bytes: None,
            progress: None,
        };
        let backend = load(&spec, &weights, &options)?;
        Ok(Self { spec, backend, is_causal: tower.is_causal, room: [ROW_STEP, 0] })
    }

    /// Makes room for `rows` rows in `blocks` blocks.
    fn reserve(&mut self, rows: usize, blocks: usize) -> Result<()> {
        if rows > self.room[0] {
            let rows = rows.next_multiple_of(ROW_STEP);
            self.backend.reserve_rows(rows, rows)?;
            self.room[0] = rows;
        }
        if blocks > self.room[1] {
            let blocks = blocks.next_multiple_of(ROW_STEP / BLOCK_LEN);
            self.backend.reserve_kv(&vec![blocks; self.spec.kv_groups.len()])?;
            self.room[1] = blocks;
        }
        Ok(())
    }
}

/// The step in which runs of `lens` rows see each other.
fn batch(rows: &TowerRows<'_>, count: usize, lens: &[usize], is_causal: bool, num_groups: usize) -> Batch {
    let (mut first, mut block) = (0, 0);
    let sequences = lens.iter().map(|&len| {
        let blocks = len.div_ceil(BLOCK_LEN);
        let table: Vec<BlockId> = (block..block + blocks).map(|b| b as BlockId).collect();
        let places = rows.places.get(first..first + len).unwrap_or_default();
        (first, block) = (first + len, block + blocks);
        SequenceStep {
            num_rows: len,
            rope_len: len,
            tables: vec![table; num_groups],
            attend_end: if is_causal { Vec::new() } else { vec![len; len] },
            rope_positions: places.to_vec(),
            ..SequenceStep::default()
        }
    });
    Batch {
        tokens: vec![0; count],
        sequences: sequences.collect(),
        logit_rows: (0..count).collect(),
        embeds: vec![EmbedSpan {
            first_row: 0,
            values: Arc::clone(&rows.values),
            rows: 0..count,
            deeper: Vec::new(),
        }],
        ..Batch::default()
    }
}

impl<B: Backend> TowerLayers for BackendLayers<B> {
    fn run(&mut self, rows: &TowerRows<'_>) -> Result<Vec<Vec<f32>>> {
        let width = self.spec.hidden_dim;
        let count = rows.values.len() / width;
        let sums = rows.groupings.iter().map(|lens| lens.iter().sum::<usize>());
        let is_sound = count > 0
            && count * width == rows.values.len()
            && sums.clone().all(|sum| sum == count)
            && rows.groupings.iter().all(|lens| !lens.contains(&0))
            && rows.grouping_of.len() == self.spec.layers.len()
            && rows.grouping_of.iter().all(|&i| i < rows.groupings.len())
            && (rows.places.is_empty() || rows.places.len() == count);
        if !is_sound {
            return Err(Error::internal(format!("{} numbers for an encoder's layers", rows.values.len())));
        }
        let blocks = rows.groupings.iter().map(|lens| lens.iter().map(|len| len.div_ceil(BLOCK_LEN)).sum());
        self.reserve(count, blocks.max().unwrap_or(0))?;
        let num_groups = self.spec.kv_groups.len();
        let steps: Vec<Batch> =
            rows.groupings.iter().map(|lens| batch(rows, count, lens, self.is_causal, num_groups)).collect();
        let backend = &mut self.backend;
        let mut out = Vec::with_capacity(rows.taps.len());
        let mut current = None;
        for (i, &grouping) in rows.grouping_of.iter().enumerate() {
            match current {
                None => {
                    backend.begin(&steps[grouping])?;
                    backend.embed()?;
                }
                Some(before) if before != grouping => backend.regroup(&steps[grouping])?,
                Some(_) => {}
            }
            current = Some(grouping);
            backend.qkv(i)?;
            backend.attend(i)?;
            backend.output(i)?;
            backend.mlp(i)?;
            if rows.taps.contains(&i) {
                let mut tapped = vec![0.0; count * width];
                backend.hidden(&mut tapped)?;
                out.push(tapped);
            }
        }
        Ok(out)
    }

    fn memory(&self) -> MemoryUse {
        self.backend.memory()
    }
}

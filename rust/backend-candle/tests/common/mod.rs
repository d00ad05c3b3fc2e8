//! A model of random numbers, and a forward pass of plain loops in f64 to hold the backend against.

#![allow(dead_code, reason = "each test file uses a part")]

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use alloyforge_backend_candle::CandleBackend;
use alloyforge_interfaces::{Backend, LoadOptions, WeightSource};
use alloyforge_types::{
    Activation, AttentionSpec, BLOCK_LEN, Batch, EmbedSpan, ExpertRole, KvType, LayerRole, LayerSpec,
    MlpSpec, ModelSpec, NO_BLOCK, NormPlacement, QkNorm, QuantType, Result, Role, RopeLayout, RopeScaling,
    RopeSpec, SequenceStep, Weight,
};

mod naive;
pub use naive::logits as naive_logits;

/// Weights that follow from their role alone.
pub struct RandomWeights {
    pub spec: ModelSpec,
    /// The type that matrices are stored in.
    pub ty: QuantType,
    made: Mutex<HashMap<Role, Values>>,
}

/// Rows, columns and numbers of a weight.
pub type Values = Arc<(usize, usize, Vec<f32>)>;

impl RandomWeights {
    pub fn new(spec: &ModelSpec) -> Self {
        Self { spec: spec.clone(), ty: QuantType::F32, made: Mutex::default() }
    }

    /// The values for `role` with its shape.
    pub fn values(&self, role: Role) -> Values {
        self.made.lock().expect("no panic").entry(role).or_insert_with(|| Arc::new(self.make(role))).clone()
    }

    fn make(&self, role: Role) -> (usize, usize, Vec<f32>) {
        let (rows, cols) = self.shape(role);
        let seed =
            format!("{role:?}").bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let mut random = Random::new(seed);
        let (centre, spread) = match role {
            Role::FinalNorm
            | Role::Layer(
                _,
                LayerRole::AttnNorm
                | LayerRole::AttnPostNorm
                | LayerRole::MlpNorm
                | LayerRole::MlpPostNorm
                | LayerRole::QNorm
                | LayerRole::KNorm,
            ) => (1.0, 0.5),
            Role::Embedding => (0.0, 1.0),
            _ if rows == 1 => (0.0, 0.8),
            // unit variance in, about unit variance out
            _ => (0.0, (3.0 / cols as f32).sqrt() * 1.3),
        };
        let values = (0..rows * cols).map(|_| centre + spread * random.unit()).collect();
        (rows, cols, values)
    }

    fn shape(&self, role: Role) -> (usize, usize) {
        let (vocab, hidden) = (self.spec.vocab_size, self.spec.hidden_dim);
        let (layer, role) = match role {
            Role::Embedding | Role::Head => return (vocab, hidden),
            Role::HeadBias => return (1, vocab),
            Role::FinalNorm | Role::FinalNormBias => return (1, hidden),
            Role::Positions => return (self.spec.positions.unwrap_or(0), hidden),
            Role::Layer(layer, role) => (&self.spec.layers[layer], role),
        };
        let a = &layer.attention;
        let (q, kv) = (a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim);
        let (ff, experts) = match &layer.mlp {
            MlpSpec::Dense { ff_dim, .. } | MlpSpec::Plain { ff_dim, .. } => (*ff_dim, 0),
            MlpSpec::Moe(moe) => (moe.ff_dim, moe.num_experts),
            other => panic!("{other:?}"),
        };
        let per_head = a.qk_norm == QkNorm::PerHead;
        let cross = layer.cross.as_ref().map_or(0, |c| c.num_heads * c.head_dim);
        match role {
            LayerRole::AttnNorm | LayerRole::AttnPostNorm | LayerRole::MlpNorm | LayerRole::MlpPostNorm => {
                (1, hidden)
            }
            LayerRole::AttnNormBias | LayerRole::MlpNormBias | LayerRole::DownBias => (1, hidden),
            LayerRole::AttnPostNormBias | LayerRole::MlpPostNormBias => (1, hidden),
            LayerRole::CrossNorm | LayerRole::CrossNormBias | LayerRole::CrossOBias => (1, hidden),
            LayerRole::CrossQ | LayerRole::CrossK | LayerRole::CrossV => (cross, hidden),
            LayerRole::CrossO => (hidden, cross),
            LayerRole::CrossQBias | LayerRole::CrossKBias | LayerRole::CrossVBias => (1, cross),
            LayerRole::GateBias | LayerRole::UpBias => (1, ff),
            LayerRole::Q => (q, hidden),
            LayerRole::K | LayerRole::V => (kv, hidden),
            LayerRole::O => (hidden, q),
            LayerRole::OBias => (1, hidden),
            LayerRole::QBias => (1, q),
            LayerRole::KBias | LayerRole::VBias => (1, kv),
            LayerRole::QNorm => (1, if per_head { a.head_dim } else { q }),
            LayerRole::KNorm => (1, if per_head { a.head_dim } else { kv }),
            LayerRole::Sinks => (1, a.num_heads),
            LayerRole::Gate | LayerRole::Up => (ff, hidden),
            LayerRole::Down => (hidden, ff),
            LayerRole::Router => (experts, hidden),
            LayerRole::RouterBias => (1, experts),
            LayerRole::Expert(_, ExpertRole::Gate | ExpertRole::Up) => (ff, hidden),
            LayerRole::Expert(_, ExpertRole::Down) => (hidden, ff),
            LayerRole::Expert(_, ExpertRole::GateBias | ExpertRole::UpBias) => (1, ff),
            LayerRole::Expert(_, ExpertRole::DownBias) => (1, hidden),
        }
    }
}

impl WeightSource for RandomWeights {
    fn weight(&self, role: Role) -> Result<Weight<'_>> {
        let made = self.values(role);
        let (rows, cols, values) = (made.0, made.1, &made.2);
        let ty = if rows == 1 { QuantType::F32 } else { self.ty };
        let data: Vec<u8> = match ty {
            QuantType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            QuantType::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            QuantType::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            other => panic!("{other:?}"),
        };
        Ok(Weight { name: format!("{role:?}"), ty, rows, cols, data: Cow::Owned(data) })
    }
}

/// xorshift64*, Vigna, arXiv 1402.6246.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Between -1 and 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    pub fn tokens(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(vocab) as u32).collect()
    }
}

/// Attention without anything special: 4 query heads over 2 key heads of width 8.
pub fn attention() -> AttentionSpec {
    AttentionSpec {
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 8,
        scale: 8f32.powf(-0.5),
        qk_norm: QkNorm::None,
        rope: Some(0),
        window: None,
        softcap: None,
        has_sinks: false,
        has_qkv_bias: false,
        has_o_bias: false,
    }
}

pub fn rope() -> RopeSpec {
    RopeSpec { theta: 100.0, dim: 8, layout: RopeLayout::Half, scaling: RopeScaling::None, sections: None }
}

/// Two plain layers of width 24 over 40 tokens.
pub fn spec() -> ModelSpec {
    let layer = LayerSpec {
        attention: attention(),
        mlp: MlpSpec::Dense { ff_dim: 20, activation: Activation::Silu, has_bias: false },
        norms: NormPlacement::Pre,
        cross: None,
        kv_group: 0,
    };
    ModelSpec {
        vocab_size: 40,
        context_len: 512,
        ropes: vec![rope()],
        has_tied_head: false,
        ..ModelSpec::plain("random", 24, vec![layer.clone(), layer])
    }
}

/// The plain spec after `change`, its groups assigned again.
pub fn spec_with(change: impl FnOnce(&mut ModelSpec)) -> ModelSpec {
    let mut spec = spec();
    change(&mut spec);
    spec.assign_kv_groups();
    spec
}

pub fn options() -> LoadOptions {
    LoadOptions {
        dtype: None,
        quantize: None,
        kv_type: Some(KvType::F32),
        threads: Some(2),
        max_rows: 256,
        max_logit_rows: 256,
        kv_bytes: None,
        progress: None,
    }
}

/// A whole sequence, as a user would have it.
#[derive(Debug, Clone, Default)]
pub struct Text {
    pub tokens: Vec<u32>,
    /// Rows that stand in place of the tokens from an index on.
    pub embeds: Vec<(usize, Vec<f32>)>,
    /// For the first layers, values of the shape of the one entry of `embeds`.
    pub deeper: Vec<Vec<f32>>,
    /// As in [`SequenceStep`], for all tokens.
    pub attend_end: Vec<usize>,
    /// As in [`SequenceStep`], for all tokens.
    pub rope_positions: Vec<[u32; 3]>,
    pub rope_len: usize,
}

impl Text {
    pub fn random(seed: u64, len: usize, spec: &ModelSpec) -> Self {
        Self { tokens: Random::new(seed).tokens(len, spec.vocab_size), ..Self::default() }
    }
}

/// A backend with the block tables of its sequences.
pub struct Runner {
    pub backend: CandleBackend,
    pub spec: ModelSpec,
    /// For each sequence and group, its blocks.
    tables: Vec<Vec<Vec<u32>>>,
    /// Whether entries behind a window are taken away as soon as they may be.
    pub forgets: bool,
}

impl Runner {
    /// Room for `sequences` sequences of `len` tokens, their blocks shuffled.
    pub fn new(spec: &ModelSpec, sequences: usize, len: usize, options: &LoadOptions) -> Self {
        Self::with_weights(spec, sequences, len, options, &RandomWeights::new(spec))
    }

    pub fn with_weights(
        spec: &ModelSpec,
        sequences: usize,
        len: usize,
        options: &LoadOptions,
        weights: &dyn WeightSource,
    ) -> Self {
        let mut backend = CandleBackend::load(spec, weights, "cpu", options).expect("loads");
        let each = len.div_ceil(BLOCK_LEN);
        let total = sequences * each + 1;
        backend.reserve_kv(&vec![total; spec.kv_groups.len()]).expect("fits");
        let mut random = Random::new(5);
        let mut pools: Vec<Vec<u32>> = spec
            .kv_groups
            .iter()
            .map(|_| {
                let mut pool: Vec<u32> = (0..total as u32).collect();
                (1..pool.len()).rev().for_each(|i| pool.swap(i, random.below(i + 1)));
                pool
            })
            .collect();
        let tables = (0..sequences)
            .map(|_| pools.iter_mut().map(|pool| pool.split_off(pool.len() - each)).collect())
            .collect();
        Self { backend, spec: spec.clone(), tables, forgets: false }
    }

    /// The blocks of two sequences in `group`, side by side.
    pub fn pairs(&self, group: usize, from: usize, to: usize) -> Vec<(u32, u32)> {
        self.tables[from][group].iter().copied().zip(self.tables[to][group].iter().copied()).collect()
    }

    /// One sequence's part of a step: the tokens `range` of `text`.
    fn part(&self, sequence: usize, text: &Text, range: &Range<usize>) -> SequenceStep {
        let blocks = range.end.div_ceil(BLOCK_LEN);
        let tables = self.tables[sequence]
            .iter()
            .zip(&self.spec.kv_groups)
            .map(|(table, group)| {
                let behind = match group.window {
                    Some(window) if self.forgets => (range.start + 1).saturating_sub(window) / BLOCK_LEN,
                    _ => 0,
                };
                (0..blocks).map(|i| if i < behind { NO_BLOCK } else { table[i] }).collect()
            })
            .collect();
        let of = |all: &[usize]| {
            all.get(range.clone()).map(|ends| ends.iter().map(|&e| e.min(range.end)).collect())
        };
        SequenceStep {
            num_rows: range.len(),
            start: range.start,
            rope_len: text.rope_len,
            tables,
            attend_end: of(&text.attend_end).unwrap_or_default(),
            rope_positions: text.rope_positions.get(range.clone()).unwrap_or_default().to_vec(),
            states: None,
        }
    }

    /// Runs one step over parts of several texts and gives the logits of every row.
    pub fn step(&mut self, parts: &[(usize, &Text, Range<usize>)]) -> Vec<Vec<f32>> {
        let mut batch = Batch::default();
        for (sequence, text, range) in parts {
            let first_row = batch.tokens.len();
            for (at, values) in &text.embeds {
                let hidden = self.spec.hidden_dim;
                let len = values.len() / hidden;
                let (from, to) = ((*at).max(range.start), (at + len).min(range.end));
                if from < to {
                    let values: Arc<[f32]> = values.as_slice().into();
                    let first_row = first_row + from - range.start;
                    let deeper = text.deeper.iter().map(|d| d.as_slice().into()).collect();
                    batch.embeds.push(EmbedSpan { first_row, values, rows: from - at..to - at, deeper });
                }
            }
            batch.tokens.extend(&text.tokens[range.clone()]);
            batch.sequences.push(self.part(*sequence, text, range));
        }
        batch.logit_rows = (0..batch.tokens.len()).collect();
        self.forward(&batch).expect("runs")
    }

    /// Drives the phases over `batch`.
    pub fn forward(&mut self, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        let backend = &mut self.backend;
        backend.begin(batch)?;
        backend.embed()?;
        for layer in 0..self.spec.layers.len() {
            backend.qkv(layer)?;
            backend.attend(layer)?;
            backend.output(layer)?;
            backend.mlp(layer)?;
        }
        backend.final_norm()?;
        let vocab = self.spec.vocab_size;
        let mut out = vec![f32::NAN; batch.logit_rows.len() * vocab];
        backend.logits(&mut out)?;
        Ok(out.chunks(vocab).map(<[f32]>::to_vec).collect())
    }
}

/// The largest distance between two sets of logits; panics where their shapes differ or a number is
/// not finite.
pub fn distance<A: Into<f64> + Copy, B: Into<f64> + Copy>(a: &[Vec<A>], b: &[Vec<B>]) -> f64 {
    assert_eq!(a.len(), b.len(), "rows");
    let mut worst = 0f64;
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.len(), b.len(), "columns");
        for (&a, &b) in a.iter().zip(b) {
            let (a, b): (f64, f64) = (a.into(), b.into());
            assert!(a.is_finite() && b.is_finite(), "{a} {b}");
            worst = worst.max((a - b).abs());
        }
    }
    worst
}

/// Runs `text` whole and holds every logit against the plain loops.
pub fn check(spec: &ModelSpec, text: &Text) {
    let weights = RandomWeights::new(spec);
    let len = text.tokens.len();
    let found = Runner::with_weights(spec, 1, len, &options(), &weights).step(&[(0, text, 0..len)]);
    let worst = distance(&found, &naive_logits(&weights, text));
    assert!(worst < 2e-4, "off by {worst} with {spec:?}");
}

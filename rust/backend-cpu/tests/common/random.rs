//! Random numbers, models and weights.

use std::sync::Arc;

use alloyforge_kernels::{convert, dequant};
use alloyforge_types::{
    Activation, AttentionSpec, EmbedSpan, LayerRole, LayerSpec, MlpSpec, ModelSpec, MoeSpec, NormKind,
    NormPlacement, QkNorm, QuantType, Role, RopeLayout, RopeScaling, RopeSections, RopeSpec, RouterOrder,
};

use super::{Stock, Stored, Text};

/// A counter-based generator (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Evenly from -1 to 1.
    pub fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    pub fn shuffled(&mut self, n: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            all.swap(i, self.below(i + 1));
        }
        all
    }

    /// Random lengths that add up to `len`.
    pub fn chunks(&mut self, mut len: usize) -> Vec<usize> {
        let mut chunks = Vec::new();
        while len > 0 {
            chunks.push(1 + self.below(len.min(50)));
            len -= chunks[chunks.len() - 1];
        }
        chunks
    }
}

/// A model with a random choice on every axis.
pub fn spec(seed: u64) -> ModelSpec {
    let r = &mut Random(seed);
    // a multiple of every small block, so that block formats fit
    let hidden_dim = r.pick(&[32, 64, 96]);
    let head_dim = r.pick(&[8, 12, 16, 32, 40]);
    let num_ropes = 1 + r.below(2);
    let ropes: Vec<RopeSpec> = (0..num_ropes).map(|_| rope(r, head_dim)).collect();
    let num_layers = 1 + r.below(3);
    let norms =
        r.pick(&[NormPlacement::Pre, NormPlacement::Post, NormPlacement::Sandwich, NormPlacement::After]);
    let norm = if norms.has_post() { NormKind::Rms } else { r.pick(&[NormKind::Rms, NormKind::Layer]) };
    let windows = [None, Some(1 + r.below(60))];
    let layers = (0..num_layers)
        .map(|_| {
            let num_kv_heads = 1 + r.below(3);
            let attention = AttentionSpec {
                num_heads: num_kv_heads * (1 + r.below(3)),
                num_kv_heads,
                head_dim,
                scale: r.pick(&[0.25, 1.0 / (head_dim as f32).sqrt()]),
                qk_norm: r.pick(&[QkNorm::None, QkNorm::PerHead, QkNorm::FullWidth]),
                rope: if r.below(4) == 0 { None } else { Some(r.below(num_ropes)) },
                window: r.pick(&windows),
                softcap: r.pick(&[None, Some(3.0)]),
                has_sinks: r.coin(),
                has_qkv_bias: r.coin(),
                has_o_bias: r.coin(),
            };
            LayerSpec { attention, cross: None, mlp: mlp(r), norms, kv_group: 0 }
        })
        .collect();
    let mut spec = ModelSpec {
        architecture: "random".into(),
        vocab_size: 17 + r.below(60),
        hidden_dim,
        context_len: 4096,
        layers,
        ropes,
        kv_groups: Vec::new(),
        norm,
        norm_eps: r.pick(&[1e-6, 1e-5, 1e-2]),
        positions: None,
        embedding_scale: r.pick(&[1.0, 8.0]),
        residual_scale: r.pick(&[1.0, 0.5]),
        logit_scale: r.pick(&[1.0, 0.125]),
        logit_softcap: r.pick(&[None, Some(2.0)]),
        has_tied_head: r.coin(),
        has_head_bias: r.coin(),
    };
    spec.assign_kv_groups();
    spec
}

fn rope(r: &mut Random, head_dim: usize) -> RopeSpec {
    let dim = r.pick(&[head_dim, head_dim / 2]);
    let angles = dim / 2;
    let mut divisors = || (0..angles).map(|_| 1.5 + r.number()).collect::<Vec<f32>>();
    let (short, long) = (divisors(), divisors());
    let original_len = 20 + r.below(60);
    let scaling = match r.below(7) {
        0 => RopeScaling::None,
        1 => RopeScaling::Linear { factor: 4.0 },
        2 => RopeScaling::Dynamic { factor: 2.0, original_len },
        3 => RopeScaling::Yarn {
            factor: 4.0,
            original_len,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            magnitude: 1.1386,
        },
        4 => RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_len },
        5 => RopeScaling::LongRope { short, long, original_len, magnitude: 1.19 },
        _ => RopeScaling::Divisors(long),
    };
    let sections = r.coin().then(|| {
        let time = r.below(angles + 1);
        let height = r.below(angles - time + 1);
        let width = angles - time - height;
        match r.coin() {
            true => RopeSections::Contiguous([time, height, width]),
            false => RopeSections::Interleaved([time, height, width]),
        }
    });
    let layout = r.pick(&[RopeLayout::Half, RopeLayout::Interleaved]);
    RopeSpec { theta: 10_000.0, dim, layout, scaling, sections }
}

fn activation(r: &mut Random) -> Activation {
    r.pick(&[
        Activation::Silu,
        Activation::GeluTanh,
        Activation::Gelu,
        Activation::ClampedSwiglu { alpha: 1.702, limit: 0.8 },
        Activation::QuickGelu,
        Activation::Relu,
    ])
}

fn mlp(r: &mut Random) -> MlpSpec {
    let ff_dim = r.pick(&[32, 64, 160]);
    match r.below(4) {
        0 => return MlpSpec::Dense { ff_dim, activation: activation(r), has_bias: r.coin() },
        1 => return MlpSpec::Plain { ff_dim, activation: activation(r), has_bias: r.coin() },
        _ => {}
    }
    let num_experts = 1 + r.below(40);
    MlpSpec::Moe(MoeSpec {
        num_experts,
        experts_per_token: 1 + r.below(num_experts.min(4)),
        ff_dim,
        activation: activation(r),
        order: r.pick(&[
            RouterOrder::TopKThenSoftmax,
            RouterOrder::SoftmaxThenTopK { renormalise: true },
            RouterOrder::SoftmaxThenTopK { renormalise: false },
        ]),
        has_router_bias: r.coin(),
        has_expert_bias: r.coin(),
    })
}

/// Every weight of `spec`, matrices of type `ty` where their width allows it.
pub fn weights(spec: &ModelSpec, ty: QuantType, seed: u64) -> Stock {
    use LayerRole as L;
    let mut stock = Stock::default();
    let r = &mut Random(seed);
    for role in spec.roles() {
        let (rows, cols) = spec.weight_shape(role).expect("a role of the spec");
        let is_norm = matches!(
            role,
            Role::FinalNorm
                | Role::Layer(
                    _,
                    L::AttnNorm | L::AttnPostNorm | L::MlpNorm | L::MlpPostNorm | L::QNorm | L::KNorm
                )
        );
        let stored = match ty.row_bytes(cols) {
            _ if role.is_vector() => stored(r, QuantType::F32, rows, cols, 0.5, f32::from(is_norm)),
            Some(_) => stored(r, ty, rows, cols, 1.7 / (cols as f32).sqrt(), 0.0),
            None => stored(r, QuantType::F32, rows, cols, 1.7 / (cols as f32).sqrt(), 0.0),
        };
        stock.0.insert(role, stored);
    }
    stock
}

/// A weight of random numbers about `around`, of about this size.
fn stored(r: &mut Random, ty: QuantType, rows: usize, cols: usize, size: f32, around: f32) -> Stored {
    let len = rows * cols;
    let mut data = vec![0; ty.row_bytes(len).expect("whole blocks")];
    if ty.is_plain() {
        let numbers: Vec<f32> = (0..len).map(|_| around + size * r.number()).collect();
        match ty {
            QuantType::F16 => convert::f32_to_f16(&numbers, &mut data),
            QuantType::BF16 => convert::f32_to_bf16(&numbers, &mut data),
            _ => convert::f32_to_bytes(&numbers, &mut data),
        }
    } else {
        for block in data.chunks_exact_mut(ty.block_bytes()) {
            block.fill_with(|| r.next() as u8);
            // the formats used here begin with an f16 scale, Q4_1 with a least value behind it
            let (largest, least) = match ty {
                QuantType::Q8_0 => (127.0, None),
                QuantType::Q4_0 => (8.0, None),
                QuantType::Q4_1 => (7.5, Some(-size)),
                other => panic!("no random {other:?}"),
            };
            block[..2].copy_from_slice(&half::f16::from_f32(size / largest).to_le_bytes());
            if let Some(least) = least {
                block[2..4].copy_from_slice(&half::f16::from_f32(least).to_le_bytes());
            }
        }
    }
    let mut numbers = vec![0.0; len];
    dequant::dequantize(ty, &data, &mut numbers).expect("fits");
    Stored { ty, rows, cols, data, numbers }
}

/// Tokens with, by chance, a spliced picture whose tokens see each other.
pub fn text(spec: &ModelSpec, len: usize, seed: u64) -> Text {
    let r = &mut Random(seed);
    let tokens: Vec<u32> = (0..len).map(|_| r.below(spec.vocab_size) as u32).collect();
    let mut text = Text { tokens, rope_len: r.below(2 * len + 1), ..Text::default() };
    if r.coin() {
        text.rope_positions = (0..len).map(|_| std::array::from_fn(|_| r.below(90) as u32)).collect();
    }
    if len > 4 && r.coin() {
        let (first, count) = (r.below(len / 2), 1 + r.below(len / 2));
        let (skipped, behind) = (r.below(3), r.below(3));
        let values: Arc<[f32]> =
            (0..(skipped + count + behind) * spec.hidden_dim).map(|_| r.number()).collect();
        let rows = skipped..skipped + count;
        let deeper = (0..r.below(spec.layers.len() + 1))
            .map(|_| (0..(skipped + count + behind) * spec.hidden_dim).map(|_| r.number()).collect());
        let deeper = deeper.collect();
        text.embeds = vec![EmbedSpan { first_row: first, values, rows, deeper }];
        // what a span replaces need not be a token
        text.tokens[first] = u32::MAX;
        if r.coin() {
            let picture = first..first + count;
            text.attend_end =
                (0..len).map(|t| if picture.contains(&t) { picture.end } else { t + 1 }).collect();
        }
    }
    text
}

/// Lengths of chunks that do not cut a picture whose tokens see each other.
pub fn whole_chunks(r: &mut Random, text: &Text) -> Vec<usize> {
    let len = text.tokens.len();
    let mut chunks = Vec::new();
    let mut at = 0;
    while at < len {
        let mut end = (at + 1 + r.below(50)).min(len);
        let reach =
            |end: usize| text.attend_end.get(..end).map_or(end, |e| e.iter().copied().max().unwrap_or(end));
        end = end.max(reach(end));
        chunks.push(end - at);
        at = end;
    }
    chunks
}

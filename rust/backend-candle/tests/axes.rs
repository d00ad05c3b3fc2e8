//! Every axis of a spec, alone and in random company, against plain loops.

mod common;

use alloyforge_types::{
    Activation, MlpSpec, ModelSpec, MoeSpec, NormPlacement, QkNorm, RopeLayout, RopeScaling, RopeSections,
    RouterOrder,
};
use common::{Text, check, rope, spec_with};
use proptest::prelude::*;

/// A change to every layer.
fn each(change: impl Fn(&mut alloyforge_types::LayerSpec)) -> ModelSpec {
    spec_with(|spec| spec.layers.iter_mut().for_each(change))
}

fn check_random(spec: &ModelSpec) {
    check(spec, &Text::random(3, 45, spec));
}

fn moe(order: RouterOrder) -> MoeSpec {
    MoeSpec {
        num_experts: 5,
        experts_per_token: 2,
        ff_dim: 12,
        activation: Activation::Silu,
        order,
        has_router_bias: false,
        has_expert_bias: false,
    }
}

#[test]
fn plain() {
    check_random(&each(|_| {}));
}

#[test]
fn norm_placement() {
    for norms in [NormPlacement::Pre, NormPlacement::Post, NormPlacement::Sandwich] {
        check_random(&each(|layer| layer.norms = norms));
    }
}

#[test]
fn query_and_key_norm() {
    for qk_norm in [QkNorm::PerHead, QkNorm::FullWidth] {
        check_random(&each(|layer| layer.attention.qk_norm = qk_norm));
    }
}

#[test]
fn biases() {
    check_random(&each(|layer| layer.attention.has_qkv_bias = true));
    check_random(&each(|layer| layer.attention.has_o_bias = true));
    check_random(&spec_with(|spec| spec.has_head_bias = true));
}

#[test]
fn head_counts_and_scale() {
    for (num_heads, num_kv_heads, head_dim) in [(1, 1, 8), (6, 1, 8), (3, 3, 16), (4, 2, 10)] {
        check_random(&each(|layer| {
            layer.attention.num_heads = num_heads;
            layer.attention.num_kv_heads = num_kv_heads;
            layer.attention.head_dim = head_dim;
            layer.attention.scale = 0.2;
        }));
    }
}

#[test]
fn rope_layout_and_part() {
    for layout in [RopeLayout::Half, RopeLayout::Interleaved] {
        for dim in [2, 4, 8] {
            check_random(&spec_with(|spec| {
                spec.ropes[0].layout = layout;
                spec.ropes[0].dim = dim;
            }));
        }
    }
}

#[test]
fn rope_by_layer() {
    check_random(&spec_with(|spec| {
        spec.ropes.push(rope());
        spec.ropes[1].theta = 5000.0;
        spec.layers[1].attention.rope = Some(1);
    }));
    check_random(&spec_with(|spec| spec.layers[0].attention.rope = None));
}

#[test]
fn rope_scaling() {
    let scalings = [
        RopeScaling::Linear { factor: 3.0 },
        RopeScaling::Dynamic { factor: 4.0, original_len: 16 },
        RopeScaling::Yarn {
            factor: 8.0,
            original_len: 16,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            magnitude: 1.2,
        },
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_len: 16 },
        RopeScaling::LongRope {
            short: vec![1.0, 1.1, 1.2, 1.3],
            long: vec![2.0, 3.0, 4.0, 5.0],
            original_len: 20,
            magnitude: 1.1,
        },
        RopeScaling::Divisors(vec![1.0, 2.0, 1.5, 4.0]),
    ];
    for scaling in scalings {
        let spec = spec_with(|spec| spec.ropes[0].scaling = scaling);
        // each token by its own length, then all by the prompt's
        check_random(&spec);
        check(&spec, &Text { rope_len: 45, ..Text::random(4, 45, &spec) });
    }
}

#[test]
fn rope_positions_in_three_axes() {
    for sections in [
        RopeSections::Contiguous([2, 1, 1]),
        RopeSections::Interleaved([2, 1, 1]),
        RopeSections::Interleaved([3, 1, 0]),
    ] {
        let spec = spec_with(|spec| spec.ropes[0].sections = Some(sections));
        let rope_positions = (0..45).map(|i| [i / 2, i % 7, i % 5 + 3]).collect();
        check(&spec, &Text { rope_positions, ..Text::random(5, 45, &spec) });
    }
    // one axis for all: the first
    let spec = spec_with(|_| {});
    let rope_positions = (0..45).map(|i| [2 * i, 99, 99]).collect();
    check(&spec, &Text { rope_positions, ..Text::random(5, 45, &spec) });
}

#[test]
fn windows() {
    for window in [1, 7, 32, 33, 100] {
        check_random(&each(|layer| layer.attention.window = Some(window)));
        check_random(&spec_with(|spec| spec.layers[1].attention.window = Some(window)));
    }
}

#[test]
fn softcap_and_sinks() {
    check_random(&each(|layer| layer.attention.softcap = Some(0.7)));
    check_random(&each(|layer| layer.attention.has_sinks = true));
    check_random(&spec_with(|spec| {
        for layer in &mut spec.layers {
            layer.attention.has_sinks = true;
            layer.attention.softcap = Some(2.0);
            layer.attention.window = Some(9);
        }
    }));
}

#[test]
fn activations() {
    for kind in [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::ClampedSwiglu { alpha: 1.702, limit: 0.8 },
    ] {
        check_random(&each(|layer| {
            layer.mlp = MlpSpec::Dense { ff_dim: 31, activation: kind, has_bias: false }
        }));
    }
}

#[test]
fn experts() {
    for order in [
        RouterOrder::TopKThenSoftmax,
        RouterOrder::SoftmaxThenTopK { renormalise: false },
        RouterOrder::SoftmaxThenTopK { renormalise: true },
    ] {
        for has_bias in [false, true] {
            check_random(&spec_with(|spec| {
                spec.layers[1].mlp = MlpSpec::Moe(MoeSpec {
                    has_router_bias: has_bias,
                    has_expert_bias: has_bias,
                    activation: Activation::ClampedSwiglu { alpha: 1.7, limit: 1.0 },
                    ..moe(order)
                });
            }));
        }
    }
    // all experts, and one
    for experts_per_token in [1, 5] {
        check_random(&each(|layer| {
            layer.mlp = MlpSpec::Moe(MoeSpec { experts_per_token, ..moe(RouterOrder::TopKThenSoftmax) });
        }));
    }
}

#[test]
fn scales_caps_and_tied_head() {
    check_random(&spec_with(|spec| spec.embedding_scale = 3.5));
    check_random(&spec_with(|spec| spec.residual_scale = 0.3));
    check_random(&spec_with(|spec| spec.logit_scale = 0.25));
    check_random(&spec_with(|spec| spec.logit_softcap = Some(0.9)));
    check_random(&spec_with(|spec| {
        spec.has_tied_head = true;
        spec.has_head_bias = true;
        spec.logit_scale = 0.5;
        spec.logit_softcap = Some(0.7);
    }));
}

#[test]
fn spliced_embeddings_are_not_scaled() {
    let spec = spec_with(|spec| spec.embedding_scale = 4.0);
    let mut random = common::Random::new(8);
    let mut rows = |n: usize| (0..n * 24).map(|_| random.unit()).collect::<Vec<_>>();
    let embeds = vec![(0, rows(3)), (10, rows(20)), (44, rows(1))];
    check(&spec, &Text { embeds, ..Text::random(6, 45, &spec) });
}

#[test]
fn spliced_rows_add_behind_the_first_layers() {
    let spec = spec_with(|_| {});
    let mut random = common::Random::new(17);
    let mut rows = |n: usize| (0..n * spec.hidden_dim).map(|_| random.unit()).collect::<Vec<_>>();
    let (embeds, deeper) = (vec![(7, rows(20))], vec![rows(20)]);
    check(&spec, &Text { embeds, deeper, ..Text::random(6, 45, &spec) });
}

#[test]
fn tokens_that_see_each_other() {
    for window in [None, Some(6)] {
        let spec = spec_with(|spec| spec.layers[0].attention.window = window);
        let attend_end = (0..45).map(|i| if (10..22).contains(&i) { 22 } else { i + 1 }).collect();
        check(&spec, &Text { attend_end, ..Text::random(7, 45, &spec) });
    }
}

/// A random layer's choices, drawn together.
type Draw = ((u8, u8, u8, u8), (bool, bool, bool), Option<usize>, (u8, bool));

fn random_spec(draws: &[Draw], vocab_size: usize, is_tied: bool) -> ModelSpec {
    let base = common::spec();
    spec_with(|spec| {
        spec.vocab_size = vocab_size;
        spec.has_tied_head = is_tied;
        spec.embedding_scale = 1.5;
        spec.ropes.push(alloyforge_types::RopeSpec { layout: RopeLayout::Interleaved, dim: 6, ..rope() });
        spec.layers = draws
            .iter()
            .map(
                |&(
                    (norms, qk_norm, rope, activation),
                    (sinks, qkv_bias, o_bias),
                    window,
                    (experts, bias),
                )| {
                    let mut layer = base.layers[0].clone();
                    layer.norms =
                        [NormPlacement::Pre, NormPlacement::Post, NormPlacement::Sandwich][norms as usize];
                    layer.attention.qk_norm =
                        [QkNorm::None, QkNorm::PerHead, QkNorm::FullWidth][qk_norm as usize];
                    layer.attention.rope = [None, Some(0), Some(1)][rope as usize];
                    layer.attention.has_sinks = sinks;
                    layer.attention.has_qkv_bias = qkv_bias;
                    layer.attention.has_o_bias = o_bias;
                    layer.attention.window = window;
                    let activation = [
                        Activation::Silu,
                        Activation::Gelu,
                        Activation::GeluTanh,
                        Activation::ClampedSwiglu { alpha: 1.3, limit: 1.5 },
                    ][activation as usize];
                    let order = match experts {
                        1 => RouterOrder::TopKThenSoftmax,
                        n => RouterOrder::SoftmaxThenTopK { renormalise: n == 2 },
                    };
                    layer.mlp = match experts {
                        0 => MlpSpec::Dense { ff_dim: 18, activation, has_bias: false },
                        _ => MlpSpec::Moe(MoeSpec {
                            activation,
                            has_router_bias: bias,
                            has_expert_bias: bias,
                            ..moe(order)
                        }),
                    };
                    layer
                },
            )
            .collect();
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn axes_in_company(
        draws in prop::collection::vec(
            ((0u8..3, 0u8..3, 0u8..3, 0u8..4), any::<(bool, bool, bool)>(), prop::option::of(1usize..40), (0u8..4, any::<bool>())),
            1..4,
        ),
        vocab_size in 1usize..50,
        is_tied: bool,
        len in 1usize..70,
        seed: u64,
    ) {
        let spec = random_spec(&draws, vocab_size, is_tied);
        check(&spec, &Text::random(seed, len, &spec));
    }
}

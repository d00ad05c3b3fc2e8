//! What a spec must hold before tensors are made from it: Candle panics on some odd shapes.

use alloyforge_types::{
    Activation, AttentionSpec, Error, LayerSpec, MlpSpec, ModelSpec, NormKind, NormPlacement, QkNorm, Result,
    RopeSpec,
};

/// The largest number a single width may be: far above every model, and low enough that no product
/// of two overflows.
const MAX_WIDTH: usize = 1 << 30;

/// The most coordinates of a head that may turn: its table is made before memory is planned.
const MAX_HEAD: usize = 1 << 16;

/// Checks that every part of `spec` is one that the forward pass can be built for.
pub(crate) fn spec(spec: &ModelSpec) -> Result<()> {
    let refuse = |what: String| Err(Error::unsupported(spec.architecture.clone(), what));
    for (name, width) in [("vocabulary", spec.vocab_size), ("width", spec.hidden_dim)] {
        if !is_width(width) {
            return refuse(format!("a {name} of {width}"));
        }
    }
    for (i, rope) in spec.ropes.iter().enumerate() {
        if let Some(fault) = rope_fault(rope) {
            return refuse(format!("rotary embedding {i}: {fault}"));
        }
    }
    for (i, layer) in spec.layers.iter().enumerate() {
        if let Some(fault) = layer_fault(spec, layer) {
            return refuse(format!("layer {i}: {fault}"));
        }
    }
    for (i, group) in spec.kv_groups.iter().enumerate() {
        if group.layers.iter().any(|&l| spec.layers.get(l).is_none_or(|layer| layer.kv_group != i)) {
            return refuse(format!("KV group {i}: its layers {:?}", group.layers));
        }
    }
    Ok(())
}

fn is_width(n: usize) -> bool {
    (1..=MAX_WIDTH).contains(&n)
}

fn rope_fault(rope: &RopeSpec) -> Option<String> {
    if !rope.dim.is_multiple_of(2) || !(1..=MAX_HEAD).contains(&rope.dim) {
        return Some(format!("{} coordinates that turn", rope.dim));
    }
    let found = rope.table(1).inv_freq.len();
    if found != rope.dim / 2 {
        return Some(format!("{found} divisors for {} frequencies", rope.dim / 2));
    }
    let sections = rope.sections?;
    let total = sections.counts().iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    (total != Some(rope.dim / 2)).then(|| format!("sections {sections:?} of {} frequencies", rope.dim / 2))
}

fn layer_fault(spec: &ModelSpec, layer: &LayerSpec) -> Option<String> {
    match layer.norms {
        NormPlacement::Pre | NormPlacement::Post | NormPlacement::Sandwich => {}
        other => return Some(format!("norms placed {other:?}")),
    }
    match spec.norm {
        NormKind::Rms => {}
        NormKind::Layer if !layer.norms.has_post() => {}
        other => return Some(format!("norms {other:?} placed {:?}", layer.norms)),
    }
    if let Some(c) = &layer.cross
        && (!is_width(c.num_heads)
            || !is_width(c.head_dim)
            || !c.num_heads.checked_mul(c.head_dim).is_some_and(is_width))
    {
        return Some(format!("{} cross heads of width {}", c.num_heads, c.head_dim));
    }
    let Some(group) = spec.kv_groups.get(layer.kv_group) else {
        return Some(format!("KV group {} of {}", layer.kv_group, spec.kv_groups.len()));
    };
    if group.is_transient {
        return Some(format!("KV group {} of layers that take turns", layer.kv_group));
    }
    let (sees, keeps) = (layer.attention.window, group.window);
    if sees == Some(0) || sees.unwrap_or(usize::MAX) > keeps.unwrap_or(usize::MAX) {
        return Some(format!("a window of {sees:?} tokens where {keeps:?} are kept"));
    }
    attention_fault(spec, &layer.attention).or_else(|| mlp_fault(&layer.mlp))
}

fn attention_fault(spec: &ModelSpec, a: &AttentionSpec) -> Option<String> {
    if !is_width(a.num_heads) || !is_width(a.num_kv_heads) || !a.num_heads.is_multiple_of(a.num_kv_heads) {
        return Some(format!("{} query heads over {} key heads", a.num_heads, a.num_kv_heads));
    }
    if !is_width(a.head_dim) || !a.num_heads.checked_mul(a.head_dim).is_some_and(is_width) {
        return Some(format!("{} heads of width {}", a.num_heads, a.head_dim));
    }
    match a.qk_norm {
        QkNorm::None | QkNorm::PerHead | QkNorm::FullWidth => {}
        other => return Some(format!("a query norm {other:?}")),
    }
    let rope = a.rope?;
    match spec.ropes.get(rope) {
        None => Some(format!("rotary embedding {rope} of {}", spec.ropes.len())),
        Some(r) if r.dim > a.head_dim => Some(format!("{} turning coordinates of {}", r.dim, a.head_dim)),
        Some(_) => None,
    }
}

fn mlp_fault(mlp: &MlpSpec) -> Option<String> {
    let (ff_dim, activation) = match mlp {
        MlpSpec::Dense { ff_dim, activation, has_bias: false }
        | MlpSpec::Plain { ff_dim, activation, .. } => (*ff_dim, *activation),
        MlpSpec::Moe(moe) => {
            if moe.experts_per_token == 0
                || moe.experts_per_token > moe.num_experts
                || !is_width(moe.num_experts)
            {
                return Some(format!("{} of {} experts a token", moe.experts_per_token, moe.num_experts));
            }
            (moe.ff_dim, moe.activation)
        }
        other => return Some(format!("an MLP {other:?}")),
    };
    match activation {
        Activation::Silu | Activation::GeluTanh | Activation::Gelu | Activation::ClampedSwiglu { .. } => {}
        other => return Some(format!("an activation {other:?}")),
    }
    (!is_width(ff_dim)).then(|| format!("an MLP of width {ff_dim}"))
}

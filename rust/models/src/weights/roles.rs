//! The roles that a spec has, and their shapes.

use alloyforge_types::{Error, ExpertRole, LayerRole, LayerSpec, MlpSpec, ModelSpec, QkNorm, Result, Role};

/// Every role of `spec`: the embedding, the layers in their order, the end.
pub(crate) fn all(spec: &ModelSpec) -> impl Iterator<Item = Role> {
    let layers = spec.layers.iter().enumerate();
    let layers = layers.flat_map(|(i, layer)| of_layer(layer).map(move |role| Role::Layer(i, role)));
    let bias = spec.has_head_bias.then_some(Role::HeadBias);
    std::iter::once(Role::Embedding).chain(layers).chain([Role::FinalNorm, Role::Head]).chain(bias)
}

fn of_layer(layer: &LayerSpec) -> impl Iterator<Item = LayerRole> {
    use LayerRole as L;
    let a = &layer.attention;
    let (pre, post) = (layer.norms.has_pre(), layer.norms.has_post());
    let has_qk_norm = a.qk_norm != QkNorm::None;
    let attention = [
        (pre, L::AttnNorm),
        (true, L::Q),
        (true, L::K),
        (true, L::V),
        (a.has_qkv_bias, L::QBias),
        (a.has_qkv_bias, L::KBias),
        (a.has_qkv_bias, L::VBias),
        (has_qk_norm, L::QNorm),
        (has_qk_norm, L::KNorm),
        (a.has_sinks, L::Sinks),
        (true, L::O),
        (a.has_o_bias, L::OBias),
        (post, L::AttnPostNorm),
        (pre, L::MlpNorm),
    ];
    let attention = attention.into_iter().filter_map(|(is_there, role)| is_there.then_some(role));
    attention.chain(of_mlp(&layer.mlp)).chain(post.then_some(L::MlpPostNorm))
}

fn of_mlp(mlp: &MlpSpec) -> Box<dyn Iterator<Item = LayerRole> + '_> {
    use ExpertRole as E;
    match mlp {
        MlpSpec::Dense { .. } => Box::new([LayerRole::Gate, LayerRole::Up, LayerRole::Down].into_iter()),
        MlpSpec::Moe(moe) => {
            let router_bias = moe.has_router_bias.then_some(LayerRole::RouterBias);
            let parts = [E::Gate, E::Up, E::Down, E::GateBias, E::UpBias, E::DownBias];
            let num_parts = if moe.has_expert_bias { 6 } else { 3 };
            let experts = (0..moe.num_experts)
                .flat_map(move |e| parts.into_iter().take(num_parts).map(move |p| LayerRole::Expert(e, p)));
            Box::new(std::iter::once(LayerRole::Router).chain(router_bias).chain(experts))
        }
        _ => Box::new(std::iter::empty()),
    }
}

/// The rows and columns of `role`; `label` names the file in errors.
///
/// # Errors
/// `Internal` for a role that the spec does not have; `Format` where a width overflows.
pub(crate) fn shape(label: &str, spec: &ModelSpec, role: Role) -> Result<(usize, usize)> {
    let hidden = spec.hidden_dim;
    match role {
        Role::Embedding | Role::Head => Ok((spec.vocab_size, hidden)),
        Role::FinalNorm => Ok((1, hidden)),
        Role::HeadBias => Ok((1, spec.vocab_size)),
        Role::Layer(i, part) => {
            let layer = spec.layers.get(i).ok_or_else(|| absent(role))?;
            layer_shape(label, layer, hidden, role, part)
        }
    }
}

/// Whether `role` is a vector: a norm, a bias or sinks.
pub(crate) fn is_vector(role: Role) -> bool {
    use ExpertRole as E;
    use LayerRole as L;
    match role {
        Role::FinalNorm | Role::HeadBias => true,
        Role::Embedding | Role::Head => false,
        Role::Layer(_, L::Expert(_, part)) => matches!(part, E::GateBias | E::UpBias | E::DownBias),
        Role::Layer(_, part) => {
            !matches!(part, L::Q | L::K | L::V | L::O | L::Gate | L::Up | L::Down | L::Router)
        }
    }
}

fn absent(role: Role) -> Error {
    Error::internal(format!("the model has no {role:?}"))
}

fn layer_shape(
    label: &str,
    layer: &LayerSpec,
    hidden: usize,
    role: Role,
    part: LayerRole,
) -> Result<(usize, usize)> {
    use LayerRole as L;
    let a = &layer.attention;
    let width = |heads: usize| {
        let overflow =
            || Error::format(label, "attention", format!("{heads} heads of {} overflow", a.head_dim));
        heads.checked_mul(a.head_dim).ok_or_else(overflow)
    };
    let (q, kv) = (width(a.num_heads)?, width(a.num_kv_heads)?);
    let has_qk_norm = a.qk_norm != QkNorm::None;
    let norm_width = |full: usize| if a.qk_norm == QkNorm::PerHead { a.head_dim } else { full };
    match (part, &layer.mlp) {
        (L::AttnNorm | L::MlpNorm, _) if layer.norms.has_pre() => Ok((1, hidden)),
        (L::AttnPostNorm | L::MlpPostNorm, _) if layer.norms.has_post() => Ok((1, hidden)),
        (L::Q, _) => Ok((q, hidden)),
        (L::K | L::V, _) => Ok((kv, hidden)),
        (L::O, _) => Ok((hidden, q)),
        (L::QBias, _) if a.has_qkv_bias => Ok((1, q)),
        (L::KBias | L::VBias, _) if a.has_qkv_bias => Ok((1, kv)),
        (L::OBias, _) if a.has_o_bias => Ok((1, hidden)),
        (L::QNorm, _) if has_qk_norm => Ok((1, norm_width(q))),
        (L::KNorm, _) if has_qk_norm => Ok((1, norm_width(kv))),
        (L::Sinks, _) if a.has_sinks => Ok((1, a.num_heads)),
        (L::Gate | L::Up, MlpSpec::Dense { ff_dim, .. }) => Ok((*ff_dim, hidden)),
        (L::Down, MlpSpec::Dense { ff_dim, .. }) => Ok((hidden, *ff_dim)),
        (L::Router, MlpSpec::Moe(moe)) => Ok((moe.num_experts, hidden)),
        (L::RouterBias, MlpSpec::Moe(moe)) if moe.has_router_bias => Ok((1, moe.num_experts)),
        (L::Expert(e, part), MlpSpec::Moe(moe)) if e < moe.num_experts => match part {
            ExpertRole::Gate | ExpertRole::Up => Ok((moe.ff_dim, hidden)),
            ExpertRole::Down => Ok((hidden, moe.ff_dim)),
            ExpertRole::GateBias | ExpertRole::UpBias if moe.has_expert_bias => Ok((1, moe.ff_dim)),
            ExpertRole::DownBias if moe.has_expert_bias => Ok((1, hidden)),
            _ => Err(absent(role)),
        },
        _ => Err(absent(role)),
    }
}

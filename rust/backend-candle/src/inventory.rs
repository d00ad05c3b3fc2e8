//! Which weights a spec asks for, and their shapes.

use alloyforge_types::{ExpertRole, LayerRole, MlpSpec, ModelSpec, QkNorm, Role};

/// What a weight is used for, which decides the form it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A norm, a bias or the like: small, and kept in f32.
    Vector,
    /// A router: small, and its choices turn on close numbers, so that it is never quantised.
    Router,
    /// Any other matrix.
    Matrix,
}

/// The kind of the weight for `role`.
pub(crate) fn kind(role: Role) -> Kind {
    use LayerRole as L;
    match role {
        Role::Embedding | Role::Head => Kind::Matrix,
        Role::FinalNorm | Role::HeadBias => Kind::Vector,
        Role::Layer(_, role) => match role {
            L::Q | L::K | L::V | L::O | L::Gate | L::Up | L::Down => Kind::Matrix,
            L::Expert(_, ExpertRole::Gate | ExpertRole::Up | ExpertRole::Down) => Kind::Matrix,
            L::Router => Kind::Router,
            _ => Kind::Vector,
        },
    }
}

/// Every weight that `spec` asks for, in the order of the forward pass.
pub(crate) fn roles(spec: &ModelSpec) -> Vec<Role> {
    use LayerRole as L;
    let mut roles = vec![Role::Embedding];
    for (i, layer) in spec.layers.iter().enumerate() {
        let mut add = |wanted: bool, role: L| {
            if wanted {
                roles.push(Role::Layer(i, role));
            }
        };
        let a = &layer.attention;
        add(layer.norms.has_pre(), L::AttnNorm);
        for (role, bias) in [(L::Q, L::QBias), (L::K, L::KBias), (L::V, L::VBias)] {
            add(true, role);
            add(a.has_qkv_bias, bias);
        }
        add(a.qk_norm != QkNorm::None, L::QNorm);
        add(a.qk_norm != QkNorm::None, L::KNorm);
        add(a.has_sinks, L::Sinks);
        add(true, L::O);
        add(a.has_o_bias, L::OBias);
        add(layer.norms.has_post(), L::AttnPostNorm);
        add(layer.norms.has_pre(), L::MlpNorm);
        if let MlpSpec::Moe(moe) = &layer.mlp {
            add(true, L::Router);
            add(moe.has_router_bias, L::RouterBias);
            for e in 0..moe.num_experts {
                use ExpertRole as E;
                for (role, bias) in [(E::Gate, E::GateBias), (E::Up, E::UpBias), (E::Down, E::DownBias)] {
                    add(true, L::Expert(e, role));
                    add(moe.has_expert_bias, L::Expert(e, bias));
                }
            }
        } else {
            add(true, L::Gate);
            add(true, L::Up);
            add(true, L::Down);
        }
        add(layer.norms.has_post(), L::MlpPostNorm);
    }
    roles.push(Role::FinalNorm);
    if !spec.has_tied_head {
        roles.push(Role::Head);
    }
    if spec.has_head_bias {
        roles.push(Role::HeadBias);
    }
    roles
}

/// The shape `[rows, cols]` of the weight for `role`; `None` where `spec` has no such layer.
pub(crate) fn shape(spec: &ModelSpec, role: Role) -> Option<(usize, usize)> {
    use LayerRole as L;
    let hidden = spec.hidden_dim;
    let (index, role) = match role {
        Role::Embedding | Role::Head => return Some((spec.vocab_size, hidden)),
        Role::FinalNorm => return Some((1, hidden)),
        Role::HeadBias => return Some((1, spec.vocab_size)),
        Role::Layer(index, role) => (index, role),
    };
    let layer = spec.layers.get(index)?;
    let a = &layer.attention;
    let (q, kv) = (a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim);
    let (ff, experts) = match &layer.mlp {
        MlpSpec::Dense { ff_dim, .. } => (*ff_dim, 0),
        MlpSpec::Moe(moe) => (moe.ff_dim, moe.num_experts),
        _ => return None,
    };
    let is_per_head = a.qk_norm == QkNorm::PerHead;
    Some(match role {
        L::AttnNorm | L::AttnPostNorm | L::MlpNorm | L::MlpPostNorm | L::OBias => (1, hidden),
        L::Q => (q, hidden),
        L::K | L::V => (kv, hidden),
        L::O => (hidden, q),
        L::QBias => (1, q),
        L::KBias | L::VBias => (1, kv),
        L::QNorm | L::KNorm if is_per_head => (1, a.head_dim),
        L::QNorm => (1, q),
        L::KNorm => (1, kv),
        L::Sinks => (1, a.num_heads),
        L::Gate | L::Up | L::Expert(_, ExpertRole::Gate | ExpertRole::Up) => (ff, hidden),
        L::Down | L::Expert(_, ExpertRole::Down) => (hidden, ff),
        L::Router => (experts, hidden),
        L::RouterBias => (1, experts),
        L::Expert(_, ExpertRole::GateBias | ExpertRole::UpBias) => (1, ff),
        L::Expert(_, ExpertRole::DownBias) => (1, hidden),
    })
}

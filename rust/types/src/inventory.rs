//! Which weights a decoder has, and their shapes.

use crate::{ExpertRole, LayerRole, LayerSpec, MlpSpec, ModelSpec, NormKind, QkNorm, Role};

impl Role {
    /// Whether the weight is a vector: a norm, a bias or sinks.
    pub fn is_vector(self) -> bool {
        use ExpertRole as E;
        use LayerRole as L;
        match self {
            Self::FinalNorm | Self::FinalNormBias | Self::HeadBias => true,
            Self::Embedding | Self::Positions | Self::Head => false,
            Self::Layer(_, L::Expert(_, part)) => matches!(part, E::GateBias | E::UpBias | E::DownBias),
            Self::Layer(_, part) => !matches!(
                part,
                L::Q | L::K
                    | L::V
                    | L::O
                    | L::CrossQ
                    | L::CrossK
                    | L::CrossV
                    | L::CrossO
                    | L::Gate
                    | L::Up
                    | L::Down
                    | L::Router
            ),
        }
    }
}

impl ModelSpec {
    /// Every role of the model, in the order in which a decoder comes to them. A head that is the
    /// embedding matrix has none of its own.
    pub fn roles(&self) -> impl Iterator<Item = Role> {
        let layers = self.layers.iter().enumerate();
        let kind = self.norm;
        let layers =
            layers.flat_map(move |(i, layer)| of_layer(layer, kind).map(move |role| Role::Layer(i, role)));
        let positions = self.positions.is_some().then_some(Role::Positions);
        let norm_bias = (kind == NormKind::Layer).then_some(Role::FinalNormBias);
        let head = (!self.has_tied_head).then_some(Role::Head);
        let bias = self.has_head_bias.then_some(Role::HeadBias);
        let ends = [Role::FinalNorm].into_iter().chain(norm_bias).chain(head).chain(bias);
        std::iter::once(Role::Embedding).chain(positions).chain(layers).chain(ends)
    }

    /// The shape `[rows, cols]` of the weight for `role`; `None` for a role that the model does not
    /// have, and where a width overflows.
    pub fn weight_shape(&self, role: Role) -> Option<(usize, usize)> {
        let hidden = self.hidden_dim;
        match role {
            Role::Embedding | Role::Head => Some((self.vocab_size, hidden)),
            Role::Positions => self.positions.map(|len| (len, hidden)),
            Role::FinalNorm => Some((1, hidden)),
            Role::FinalNormBias => (self.norm == NormKind::Layer).then_some((1, hidden)),
            Role::HeadBias => self.has_head_bias.then_some((1, self.vocab_size)),
            Role::Layer(i, part) => layer_shape(self.layers.get(i)?, self.norm, hidden, part),
        }
    }
}

fn of_layer(layer: &LayerSpec, norm: NormKind) -> impl Iterator<Item = LayerRole> {
    use LayerRole as L;
    let a = &layer.attention;
    let (pre, post) = (layer.norms.has_pre(), layer.norms.has_post() || layer.norms.has_after());
    let (pre_bias, post_bias) = (pre && norm == NormKind::Layer, post && norm == NormKind::Layer);
    let (cross, cross_bias) = (layer.cross.is_some(), layer.cross.as_ref().is_some_and(|c| c.has_bias));
    let has_qk_norm = a.qk_norm != QkNorm::None;
    let attention = [
        (pre, L::AttnNorm),
        (pre_bias, L::AttnNormBias),
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
        (post_bias, L::AttnPostNormBias),
        (cross, L::CrossNorm),
        (cross && norm == NormKind::Layer, L::CrossNormBias),
        (cross, L::CrossQ),
        (cross, L::CrossK),
        (cross, L::CrossV),
        (cross, L::CrossO),
        (cross_bias, L::CrossQBias),
        (cross_bias, L::CrossKBias),
        (cross_bias, L::CrossVBias),
        (cross_bias, L::CrossOBias),
        (pre, L::MlpNorm),
        (pre_bias, L::MlpNormBias),
    ];
    let attention = attention.into_iter().filter_map(|(is_there, role)| is_there.then_some(role));
    let last = [(post, L::MlpPostNorm), (post_bias, L::MlpPostNormBias)];
    let last = last.into_iter().filter_map(|(is_there, role)| is_there.then_some(role));
    attention.chain(of_mlp(&layer.mlp)).chain(last)
}

fn of_mlp(mlp: &MlpSpec) -> Box<dyn Iterator<Item = LayerRole> + '_> {
    use ExpertRole as E;
    match mlp {
        MlpSpec::Dense { has_bias, .. } => {
            use LayerRole as L;
            let roles = [L::Gate, L::Up, L::Down, L::GateBias, L::UpBias, L::DownBias];
            Box::new(roles.into_iter().take(if *has_bias { 6 } else { 3 }))
        }
        MlpSpec::Plain { has_bias, .. } => {
            let roles = [LayerRole::Up, LayerRole::Down, LayerRole::UpBias, LayerRole::DownBias];
            Box::new(roles.into_iter().take(if *has_bias { 4 } else { 2 }))
        }
        MlpSpec::Moe(moe) => {
            let router_bias = moe.has_router_bias.then_some(LayerRole::RouterBias);
            let parts = [E::Gate, E::Up, E::Down, E::GateBias, E::UpBias, E::DownBias];
            let num_parts = if moe.has_expert_bias { 6 } else { 3 };
            let experts = (0..moe.num_experts)
                .flat_map(move |e| parts.into_iter().take(num_parts).map(move |p| LayerRole::Expert(e, p)));
            Box::new(std::iter::once(LayerRole::Router).chain(router_bias).chain(experts))
        }
    }
}

fn layer_shape(layer: &LayerSpec, norm: NormKind, hidden: usize, part: LayerRole) -> Option<(usize, usize)> {
    use ExpertRole as E;
    use LayerRole as L;
    let a = &layer.attention;
    let (q, kv) = (a.num_heads.checked_mul(a.head_dim)?, a.num_kv_heads.checked_mul(a.head_dim)?);
    let has_qk_norm = a.qk_norm != QkNorm::None;
    let norm_width = |full: usize| if a.qk_norm == QkNorm::PerHead { a.head_dim } else { full };
    let is_layer_norm = norm == NormKind::Layer;
    let has_post = layer.norms.has_post() || layer.norms.has_after();
    let cross = match &layer.cross {
        Some(cross) => Some((cross.num_heads.checked_mul(cross.head_dim)?, cross.has_bias)),
        None => None,
    };
    match (part, &layer.mlp) {
        (L::AttnNorm | L::MlpNorm, _) if layer.norms.has_pre() => Some((1, hidden)),
        (L::AttnNormBias | L::MlpNormBias, _) if layer.norms.has_pre() && is_layer_norm => Some((1, hidden)),
        (L::CrossNorm, _) => cross.map(|_| (1, hidden)),
        (L::CrossNormBias, _) if is_layer_norm => cross.map(|_| (1, hidden)),
        (L::CrossQ | L::CrossK | L::CrossV, _) => cross.map(|(width, _)| (width, hidden)),
        (L::CrossO, _) => cross.map(|(width, _)| (hidden, width)),
        (L::CrossQBias | L::CrossKBias | L::CrossVBias, _) => {
            cross.and_then(|(width, has_bias)| has_bias.then_some((1, width)))
        }
        (L::CrossOBias, _) => cross.and_then(|(_, has_bias)| has_bias.then_some((1, hidden))),
        (L::AttnPostNorm | L::MlpPostNorm, _) if has_post => Some((1, hidden)),
        (L::AttnPostNormBias | L::MlpPostNormBias, _) if has_post && is_layer_norm => Some((1, hidden)),
        (L::Q, _) => Some((q, hidden)),
        (L::K | L::V, _) => Some((kv, hidden)),
        (L::O, _) => Some((hidden, q)),
        (L::QBias, _) if a.has_qkv_bias => Some((1, q)),
        (L::KBias | L::VBias, _) if a.has_qkv_bias => Some((1, kv)),
        (L::OBias, _) if a.has_o_bias => Some((1, hidden)),
        (L::QNorm, _) if has_qk_norm => Some((1, norm_width(q))),
        (L::KNorm, _) if has_qk_norm => Some((1, norm_width(kv))),
        (L::Sinks, _) if a.has_sinks => Some((1, a.num_heads)),
        (L::Gate | L::Up, MlpSpec::Dense { ff_dim, .. }) => Some((*ff_dim, hidden)),
        (L::Down, MlpSpec::Dense { ff_dim, .. }) => Some((hidden, *ff_dim)),
        (L::GateBias | L::UpBias, MlpSpec::Dense { ff_dim, has_bias: true, .. }) => Some((1, *ff_dim)),
        (L::DownBias, MlpSpec::Dense { has_bias: true, .. }) => Some((1, hidden)),
        (L::Up, MlpSpec::Plain { ff_dim, .. }) => Some((*ff_dim, hidden)),
        (L::Down, MlpSpec::Plain { ff_dim, .. }) => Some((hidden, *ff_dim)),
        (L::UpBias, MlpSpec::Plain { ff_dim, has_bias: true, .. }) => Some((1, *ff_dim)),
        (L::DownBias, MlpSpec::Plain { has_bias: true, .. }) => Some((1, hidden)),
        (L::Router, MlpSpec::Moe(moe)) => Some((moe.num_experts, hidden)),
        (L::RouterBias, MlpSpec::Moe(moe)) if moe.has_router_bias => Some((1, moe.num_experts)),
        (L::Expert(e, part), MlpSpec::Moe(moe)) if e < moe.num_experts => match part {
            E::Gate | E::Up => Some((moe.ff_dim, hidden)),
            E::Down => Some((hidden, moe.ff_dim)),
            E::GateBias | E::UpBias => moe.has_expert_bias.then_some((1, moe.ff_dim)),
            E::DownBias => moe.has_expert_bias.then_some((1, hidden)),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, AttentionSpec, CrossSpec, MoeSpec, NormPlacement, RouterOrder};

    /// Two layers, dense and of 3 experts, with everything optional or with nothing of it.
    fn spec(has_all: bool) -> ModelSpec {
        let attention = AttentionSpec {
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 8,
            scale: 1.0,
            qk_norm: if has_all { QkNorm::PerHead } else { QkNorm::None },
            rope: None,
            window: None,
            softcap: None,
            has_sinks: has_all,
            has_qkv_bias: has_all,
            has_o_bias: has_all,
        };
        let moe = MoeSpec {
            num_experts: 3,
            experts_per_token: 2,
            ff_dim: 5,
            activation: Activation::Silu,
            order: RouterOrder::TopKThenSoftmax,
            has_router_bias: has_all,
            has_expert_bias: has_all,
        };
        let cross = CrossSpec { num_heads: 2, head_dim: 8, scale: 1.0, has_bias: true };
        let norms = if has_all { NormPlacement::Sandwich } else { NormPlacement::Pre };
        let layer = |mlp| LayerSpec {
            attention: attention.clone(),
            cross: has_all.then(|| cross.clone()),
            mlp,
            norms,
            kv_group: 0,
        };
        ModelSpec {
            architecture: "test".into(),
            vocab_size: 10,
            hidden_dim: 6,
            context_len: 1,
            layers: vec![
                layer(MlpSpec::Dense { ff_dim: 7, activation: Activation::Silu, has_bias: has_all }),
                layer(MlpSpec::Moe(moe)),
                layer(MlpSpec::Plain { ff_dim: 7, activation: Activation::Gelu, has_bias: has_all }),
            ],
            ropes: Vec::new(),
            kv_groups: Vec::new(),
            norm: if has_all { NormKind::Layer } else { NormKind::Rms },
            norm_eps: 0.0,
            positions: has_all.then_some(3),
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            has_tied_head: !has_all,
            has_head_bias: has_all,
        }
    }

    #[test]
    fn every_role_occurs_once_and_has_a_shape() {
        // embedding and last norm; per layer two norms and q, k, v, o; the MLPs. With all: positions, a
        // head, two more biases, and per layer the cross attention's ten, four of norms, and nine others
        for (has_all, count) in [(false, 2 + 3 * 6 + 3 + (1 + 9) + 2), (true, 6 + 3 * 29 + 6 + (2 + 18) + 4)]
        {
            let spec = spec(has_all);
            let roles: Vec<Role> = spec.roles().collect();
            assert_eq!(roles.len(), count);
            assert_eq!(roles.iter().collect::<std::collections::HashSet<_>>().len(), count);
            for role in roles {
                let (rows, cols) = spec.weight_shape(role).unwrap_or_else(|| panic!("{role:?}"));
                assert!(cols > 0 && (rows == 1) == role.is_vector(), "{role:?}: [{rows}, {cols}]");
            }
        }
    }

    #[test]
    fn what_a_model_lacks_has_no_shape() {
        let (bare, full) = (spec(false), spec(true));
        for role in full.roles().filter(|role| *role != Role::Head) {
            assert_eq!(bare.weight_shape(role).is_some(), bare.roles().any(|r| r == role), "{role:?}");
        }
        assert_eq!(full.weight_shape(Role::Layer(3, LayerRole::Q)), None);
        let mut huge = full;
        huge.layers[0].attention.head_dim = usize::MAX;
        assert_eq!(huge.weight_shape(Role::Layer(0, LayerRole::O)), None);
    }
}

//! Mixtures of experts in place of dense MLPs.

use alloyforge_types::{Activation, MlpSpec, MoeSpec, Result, RouterOrder};

use super::Draft;
use crate::config::{Key, Reader, keys};

/// What differs between mixtures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Experts {
    /// Experts where the file is silent.
    pub(super) count: usize,
    /// Experts each token takes where the file is silent.
    pub(super) used: usize,
    /// The key of the width of one expert.
    pub(super) ff: Key,
    pub(super) activation: Activation,
    pub(super) order: RouterOrder,
    /// Whether router and experts have biases.
    pub(super) has_bias: bool,
}

impl Experts {
    /// Puts a mixture in place of the dense MLP of every layer that `of` says.
    pub(super) fn place(&self, c: &Reader<'_>, draft: &mut Draft, of: impl Fn(usize) -> bool) -> Result<()> {
        // transformers 5 renamed `num_experts`
        let key = if c.has(keys::EXPERTS) || c.is_gguf() { keys::EXPERTS } else { keys::OLD_EXPERTS };
        let num_experts = if c.is_gguf() { c.size(key)? } else { c.size_or(key, self.count)? };
        let used = keys::EXPERTS_USED;
        let experts_per_token = if c.is_gguf() { c.size(used)? } else { c.size_or(used, self.used)? };
        if experts_per_token > num_experts {
            let fault = format!("is {experts_per_token}, the model has {num_experts} experts");
            return Err(c.fault(used, fault));
        }
        self.refuse_routing(c)?;
        let own_ff = c.count(self.ff)?.filter(|&n| n > 0);
        for (i, layer) in draft.spec.layers.iter_mut().enumerate().filter(|(i, _)| of(*i)) {
            let ff_dim = match (own_ff, &layer.mlp) {
                (Some(ff_dim), _) => ff_dim,
                (None, MlpSpec::Dense { ff_dim, .. }) => *ff_dim,
                _ => return Err(c.fault(self.ff, format!("is missing for layer {i}"))),
            };
            layer.mlp = MlpSpec::Moe(MoeSpec {
                num_experts,
                experts_per_token,
                ff_dim,
                activation: self.activation,
                order: self.order,
                has_router_bias: self.has_bias,
                has_expert_bias: self.has_bias,
            });
        }
        Ok(())
    }

    /// Refuses a GGUF file's routing that is not this mixture's.
    fn refuse_routing(&self, c: &Reader<'_>) -> Result<()> {
        // llama.cpp's numbers: 1 softmax over all, 3 over the chosen
        let expected = match self.order {
            RouterOrder::TopKThenSoftmax => [1, 3],
            _ => [1, 1],
        };
        match c.count(keys::GATING)? {
            Some(n) if n != 0 && !expected.contains(&n) => Err(c.unsupported(keys::GATING, n)),
            _ => match c.number(keys::EXPERT_SCALE)? {
                Some(scale) if scale != 0.0 => c.require(keys::EXPERT_SCALE, 1.0),
                _ => Ok(()),
            },
        }
    }
}

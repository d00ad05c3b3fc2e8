//! What must hold of a spec for the phases to be in bounds.
//!
//! A spec comes from a file through the families' translation, which refuses what is wrong with a
//! message of its own. This is the last line: the phases index by these numbers.

use alloyforge_types::{Error, MlpSpec, ModelSpec, NormKind, Result};

/// Checks `spec`.
///
/// # Errors
/// `Internal` naming what contradicts itself.
pub(crate) fn spec(spec: &ModelSpec) -> Result<()> {
    let wrong = |what: String| Err(Error::internal(format!("model spec: {what}")));
    if spec.vocab_size == 0 || spec.hidden_dim == 0 {
        return wrong(format!("vocabulary of {}, width {}", spec.vocab_size, spec.hidden_dim));
    }
    if spec.norm != NormKind::Rms && spec.layers.iter().any(|layer| layer.norms.has_post()) {
        return wrong(format!("norms of kind {:?} after a block", spec.norm));
    }
    if spec.positions == Some(0) {
        return wrong("no position".to_owned());
    }
    let widest_head = spec.layers.iter().map(|layer| layer.attention.head_dim).max().unwrap_or(0);
    for (i, rope) in spec.ropes.iter().enumerate() {
        if rope.dim == 0 || !rope.dim.is_multiple_of(2) || rope.dim > widest_head {
            return wrong(format!("rope {i} turns {} coordinates", rope.dim));
        }
        if rope.sections.is_some_and(|s| s.counts().iter().any(|&n| n > rope.dim / 2)) {
            return wrong(format!("rope {i} has sections {:?}", rope.sections));
        }
    }
    for (i, layer) in spec.layers.iter().enumerate() {
        let a = &layer.attention;
        if a.num_heads == 0
            || a.num_kv_heads == 0
            || a.head_dim == 0
            || !a.num_heads.is_multiple_of(a.num_kv_heads)
        {
            return wrong(format!(
                "layer {i} has {} heads on {} of width {}",
                a.num_heads, a.num_kv_heads, a.head_dim
            ));
        }
        if a.num_heads.checked_mul(a.head_dim).is_none_or(|width| width > 1 << 30) {
            return wrong(format!("layer {i} has {} heads of width {}", a.num_heads, a.head_dim));
        }
        if let Some(index) = a.rope
            && spec.ropes.get(index).is_none_or(|rope| rope.dim > a.head_dim)
        {
            return wrong(format!("layer {i} has no rope {index} that fits heads of {}", a.head_dim));
        }
        if a.window == Some(0) {
            return wrong(format!("layer {i} sees nothing"));
        }
        let Some(group) = spec.kv_groups.get(layer.kv_group) else {
            return wrong(format!("layer {i} is in no KV group {}", layer.kv_group));
        };
        // blocks behind the group's window may be gone
        let within = group.window.is_none_or(|w| a.window.is_some_and(|own| own <= w));
        if !within || group.layers.iter().filter(|&&l| l == i).count() != 1 {
            return wrong(format!("layer {i} does not belong to KV group {}", layer.kv_group));
        }
        if let Some(c) = &layer.cross
            && (c.num_heads == 0
                || c.head_dim == 0
                || c.num_heads.checked_mul(c.head_dim).is_none_or(|width| width > 1 << 30))
        {
            return wrong(format!("layer {i} has {} cross heads of width {}", c.num_heads, c.head_dim));
        }
        match &layer.mlp {
            MlpSpec::Dense { ff_dim, .. } | MlpSpec::Plain { ff_dim, .. } if *ff_dim > 0 => {}
            MlpSpec::Moe(moe) if moe.ff_dim > 0 && (1..=moe.num_experts).contains(&moe.experts_per_token) => {
            }
            other => return wrong(format!("layer {i} has the MLP {other:?}")),
        }
    }
    for (i, group) in spec.kv_groups.iter().enumerate() {
        if group.layers.iter().any(|&l| spec.layers.get(l).is_none_or(|layer| layer.kv_group != i)) {
            return wrong(format!("KV group {i} has layers {:?}", group.layers));
        }
    }
    Ok(())
}

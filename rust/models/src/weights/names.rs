//! The names that files give to roles.

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{ExpertRole as E, LayerRole as L, Role};

/// Which piece of its tensor a role is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// Rows of q, k and v one after another.
    Qkv,
    /// Rows of the gate, then rows of the up projection.
    GateUp,
    /// One expert of a stack `[experts, rows, cols]`, or of vectors `[experts, cols]`.
    Expert,
    /// One expert of a stack that holds the gate's rows, then those of the up projection.
    ExpertGateUp,
    /// One expert of a stack `[experts, cols, rows]`.
    ExpertTurned,
    /// One expert of a stack `[experts, cols, 2 * rows]` of gate and up by turns.
    ExpertGateUpTurned,
    /// One expert of vectors `[experts, 2 * cols]` of gate and up by turns.
    ExpertGateUpBias,
    /// One expert in MXFP4: bytes `[experts, rows, blocks, 16]` beside scales `[experts, rows, blocks]`.
    ExpertMxfp4,
    /// Likewise with rows of gate and up by turns.
    ExpertGateUpMxfp4,
}

impl Part {
    /// Whether it is read from plain bytes.
    pub(super) fn takes_bytes(self) -> bool {
        matches!(self, Self::ExpertMxfp4 | Self::ExpertGateUpMxfp4)
    }

    /// Whether its numbers are moved one by one, which blocks do not allow.
    pub(super) fn is_rearranged(self) -> bool {
        matches!(self, Self::ExpertTurned | Self::ExpertGateUpTurned | Self::ExpertGateUpBias)
    }

    /// The other tensors that the one called `name` comes with.
    pub(super) fn companions(self, name: &str) -> Option<String> {
        self.takes_bytes().then(|| scales_of(name))
    }
}

/// The name of the scales beside the blocks called `name`.
pub(super) fn scales_of(name: &str) -> String {
    let stem = name.strip_suffix("_blocks").unwrap_or(name);
    format!("{stem}_scales")
}

/// A role's name: `{p}` stands for what a checkpoint puts before the text model's names, `{l}` for the
/// layer, `{e}` for the expert. Of several names for one role the first that the file has counts.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The role, of layer and expert 0.
    pub(super) role: Role,
    pub(super) name: &'static str,
    pub(super) part: Part,
}

impl Entry {
    /// The whole tensor `name` of a layer.
    pub(crate) const fn layer(role: L, name: &'static str) -> Self {
        Self { role: Role::Layer(0, role), name, part: Part::Whole }
    }

    /// A piece of the tensor `name` of a layer.
    pub(crate) const fn piece(role: L, name: &'static str, part: Part) -> Self {
        Self { role: Role::Layer(0, role), name, part }
    }

    /// A weight of an expert.
    pub(crate) const fn expert(role: E, name: &'static str, part: Part) -> Self {
        Self { role: Role::Layer(0, L::Expert(0, role)), name, part }
    }

    const fn whole(role: Role, name: &'static str) -> Self {
        Self { role, name, part: Part::Whole }
    }

    /// The name for `role`.
    pub(super) fn name_for(&self, prefix: &str, role: Role) -> String {
        let (layer, expert) = match role {
            Role::Layer(layer, L::Expert(expert, _)) => (layer, expert),
            Role::Layer(layer, _) => (layer, 0),
            _ => (0, 0),
        };
        let mut name = self.name.replace("{p}", prefix);
        for (mark, number) in [("{l}", layer), ("{e}", expert)] {
            if name.contains(mark) {
                name = name.replace(mark, &number.to_string());
            }
        }
        name
    }
}

/// What a family calls otherwise than the common tables. A role that occurs here is looked up here
/// alone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Names {
    /// In Hugging Face checkpoints.
    pub(crate) hf: &'static [Entry],
    /// In GGUF files.
    pub(crate) gguf: &'static [Entry],
    /// Whether norms of Hugging Face checkpoints multiply by one plus their weight.
    pub(crate) norm_plus_one: bool,
}

/// `role` with layer and expert 0.
pub(super) fn kind(role: Role) -> Role {
    match role {
        Role::Layer(_, L::Expert(_, part)) => Role::Layer(0, L::Expert(0, part)),
        Role::Layer(_, part) => Role::Layer(0, part),
        other => other,
    }
}

/// What stands before the text model's names: nothing but `model.` in a causal language model, more
/// where it is part of a larger one, nothing where the bare model was saved.
pub(super) fn hf_prefix(store: &dyn TensorStore) -> &'static str {
    const PREFIXES: [&str; 6] = [
        "model.",
        "language_model.model.",
        "model.language_model.",
        "model.text_model.",
        "language_model.",
        "",
    ];
    let has = |p: &&&str| store.tensor(&format!("{p}embed_tokens.weight")).is_some();
    PREFIXES.iter().find(has).copied().unwrap_or("model.")
}

/// The layer whose tensor is called `name`.
pub(super) fn layer_of(name: &str, prefix: &str, is_gguf: bool) -> Option<u64> {
    let rest = match is_gguf {
        true => name.strip_prefix("blk."),
        false => name.strip_prefix(prefix)?.strip_prefix("layers."),
    };
    rest?.split('.').next()?.parse().ok()
}

/// Whether `name` is that of a tensor which holds no weight: frequencies that some checkpoints carry.
pub(super) fn is_buffer(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn_rot_embd.weight")
}

/// The names of Hugging Face's Llama, which most families share.
pub(super) const HF: &[Entry] = &[
    Entry::whole(Role::Embedding, "{p}embed_tokens.weight"),
    Entry::whole(Role::FinalNorm, "{p}norm.weight"),
    Entry::whole(Role::Head, "lm_head.weight"),
    Entry::whole(Role::Head, "language_model.lm_head.weight"),
    Entry::whole(Role::HeadBias, "lm_head.bias"),
    Entry::layer(L::AttnNorm, "{p}layers.{l}.input_layernorm.weight"),
    Entry::layer(L::MlpNorm, "{p}layers.{l}.post_attention_layernorm.weight"),
    Entry::layer(L::Q, "{p}layers.{l}.self_attn.q_proj.weight"),
    Entry::layer(L::K, "{p}layers.{l}.self_attn.k_proj.weight"),
    Entry::layer(L::V, "{p}layers.{l}.self_attn.v_proj.weight"),
    Entry::layer(L::O, "{p}layers.{l}.self_attn.o_proj.weight"),
    Entry::layer(L::QBias, "{p}layers.{l}.self_attn.q_proj.bias"),
    Entry::layer(L::KBias, "{p}layers.{l}.self_attn.k_proj.bias"),
    Entry::layer(L::VBias, "{p}layers.{l}.self_attn.v_proj.bias"),
    Entry::layer(L::OBias, "{p}layers.{l}.self_attn.o_proj.bias"),
    Entry::layer(L::QNorm, "{p}layers.{l}.self_attn.q_norm.weight"),
    Entry::layer(L::KNorm, "{p}layers.{l}.self_attn.k_norm.weight"),
    Entry::layer(L::Sinks, "{p}layers.{l}.self_attn.sinks"),
    Entry::layer(L::Gate, "{p}layers.{l}.mlp.gate_proj.weight"),
    Entry::layer(L::Up, "{p}layers.{l}.mlp.up_proj.weight"),
    Entry::layer(L::Down, "{p}layers.{l}.mlp.down_proj.weight"),
    Entry::layer(L::Router, "{p}layers.{l}.mlp.gate.weight"),
    Entry::expert(E::Gate, "{p}layers.{l}.mlp.experts.{e}.gate_proj.weight", Part::Whole),
    Entry::expert(E::Gate, "{p}layers.{l}.mlp.experts.gate_up_proj", Part::ExpertGateUp),
    Entry::expert(E::Up, "{p}layers.{l}.mlp.experts.{e}.up_proj.weight", Part::Whole),
    Entry::expert(E::Up, "{p}layers.{l}.mlp.experts.gate_up_proj", Part::ExpertGateUp),
    Entry::expert(E::Down, "{p}layers.{l}.mlp.experts.{e}.down_proj.weight", Part::Whole),
    Entry::expert(E::Down, "{p}layers.{l}.mlp.experts.down_proj", Part::Expert),
];

/// The names of llama.cpp, `gguf-py/gguf/constants.py`, which all families share.
pub(super) const GGUF: &[Entry] = &[
    Entry::whole(Role::Embedding, "token_embd.weight"),
    Entry::whole(Role::FinalNorm, "output_norm.weight"),
    Entry::whole(Role::Head, "output.weight"),
    Entry::whole(Role::HeadBias, "output.bias"),
    Entry::layer(L::AttnNorm, "blk.{l}.attn_norm.weight"),
    Entry::layer(L::AttnPostNorm, "blk.{l}.post_attention_norm.weight"),
    Entry::layer(L::MlpNorm, "blk.{l}.ffn_norm.weight"),
    Entry::layer(L::MlpPostNorm, "blk.{l}.post_ffw_norm.weight"),
    Entry::layer(L::Q, "blk.{l}.attn_q.weight"),
    Entry::piece(L::Q, "blk.{l}.attn_qkv.weight", Part::Qkv),
    Entry::layer(L::K, "blk.{l}.attn_k.weight"),
    Entry::piece(L::K, "blk.{l}.attn_qkv.weight", Part::Qkv),
    Entry::layer(L::V, "blk.{l}.attn_v.weight"),
    Entry::piece(L::V, "blk.{l}.attn_qkv.weight", Part::Qkv),
    Entry::layer(L::QBias, "blk.{l}.attn_q.bias"),
    Entry::piece(L::QBias, "blk.{l}.attn_qkv.bias", Part::Qkv),
    Entry::layer(L::KBias, "blk.{l}.attn_k.bias"),
    Entry::piece(L::KBias, "blk.{l}.attn_qkv.bias", Part::Qkv),
    Entry::layer(L::VBias, "blk.{l}.attn_v.bias"),
    Entry::piece(L::VBias, "blk.{l}.attn_qkv.bias", Part::Qkv),
    Entry::layer(L::O, "blk.{l}.attn_output.weight"),
    Entry::layer(L::OBias, "blk.{l}.attn_output.bias"),
    Entry::layer(L::QNorm, "blk.{l}.attn_q_norm.weight"),
    Entry::layer(L::KNorm, "blk.{l}.attn_k_norm.weight"),
    Entry::layer(L::Sinks, "blk.{l}.attn_sinks.weight"),
    Entry::layer(L::Gate, "blk.{l}.ffn_gate.weight"),
    Entry::layer(L::Up, "blk.{l}.ffn_up.weight"),
    Entry::layer(L::Down, "blk.{l}.ffn_down.weight"),
    Entry::layer(L::Router, "blk.{l}.ffn_gate_inp.weight"),
    Entry::layer(L::RouterBias, "blk.{l}.ffn_gate_inp.bias"),
    Entry::expert(E::Gate, "blk.{l}.ffn_gate_exps.weight", Part::Expert),
    Entry::expert(E::Gate, "blk.{l}.ffn_gate_up_exps.weight", Part::ExpertGateUp),
    Entry::expert(E::Gate, "blk.{l}.ffn_gate.{e}.weight", Part::Whole),
    Entry::expert(E::Up, "blk.{l}.ffn_up_exps.weight", Part::Expert),
    Entry::expert(E::Up, "blk.{l}.ffn_gate_up_exps.weight", Part::ExpertGateUp),
    Entry::expert(E::Up, "blk.{l}.ffn_up.{e}.weight", Part::Whole),
    Entry::expert(E::Down, "blk.{l}.ffn_down_exps.weight", Part::Expert),
    Entry::expert(E::Down, "blk.{l}.ffn_down.{e}.weight", Part::Whole),
    Entry::expert(E::GateBias, "blk.{l}.ffn_gate_exps.bias", Part::Expert),
    Entry::expert(E::UpBias, "blk.{l}.ffn_up_exps.bias", Part::Expert),
    Entry::expert(E::DownBias, "blk.{l}.ffn_down_exps.bias", Part::Expert),
];

//! What is in a model's files, for people and for `inspect`.

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{KvType, MlpSpec, ModelSpec, QuantType};
use serde::Serialize;

use crate::config::Config;
use crate::resolve::Resolved;

/// One stored format's share of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TypeShare {
    /// The format's name.
    pub name: String,
    /// Tensors in it.
    pub tensors: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// What a model is and takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// The family, as the file names it.
    pub architecture: String,
    /// Numbers in all weights.
    pub parameters: u64,
    /// The format of most weights.
    pub file_type: String,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_dim: usize,
    /// Query heads of the first layer.
    pub heads: usize,
    /// Key and value heads of the first layer.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the first layer's MLP or of one of its experts.
    pub ff_dim: usize,
    /// Experts of the layers that have them, 0 where none has.
    pub experts: usize,
    /// Experts each token takes.
    pub experts_per_token: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Most tokens that the model was made for.
    pub context_len: usize,
    /// Tokens that windowed layers see; `None` where no layer has a window.
    pub window: Option<usize>,
    /// Layers with a window.
    pub windowed_layers: usize,
    /// Whether the head is the embedding matrix.
    pub has_tied_head: bool,
    /// Bytes of all tensors in the file.
    pub weight_bytes: u64,
    /// Bytes that one token takes in a cache of f16.
    pub kv_bytes_per_token: u64,
    /// The stored formats, largest first.
    pub types: Vec<TypeShare>,
}

/// Describes a resolved model and the tensors that it was resolved from.
pub fn describe(resolved: &Resolved, store: &dyn TensorStore) -> Description {
    let spec = &resolved.spec;
    let types = type_shares(store);
    let first = spec.layers.first();
    let moe = spec.layers.iter().find_map(|l| match &l.mlp {
        MlpSpec::Moe(moe) => Some(moe),
        _ => None,
    });
    let windows = || spec.layers.iter().filter_map(|l| l.attention.window);
    Description {
        architecture: spec.architecture.clone(),
        parameters: resolved.parameters,
        file_type: resolved.file_type.clone(),
        layers: spec.layers.len(),
        hidden_dim: spec.hidden_dim,
        heads: first.map_or(0, |l| l.attention.num_heads),
        kv_heads: first.map_or(0, |l| l.attention.num_kv_heads),
        head_dim: first.map_or(0, |l| l.attention.head_dim),
        ff_dim: first.map_or(0, |l| match &l.mlp {
            MlpSpec::Dense { ff_dim, .. } | MlpSpec::Plain { ff_dim, .. } => *ff_dim,
            MlpSpec::Moe(moe) => moe.ff_dim,
            _ => 0,
        }),
        experts: moe.map_or(0, |m| m.num_experts),
        experts_per_token: moe.map_or(0, |m| m.experts_per_token),
        vocab_size: spec.vocab_size,
        context_len: spec.context_len,
        window: windows().min(),
        windowed_layers: windows().count(),
        has_tied_head: spec.has_tied_head,
        weight_bytes: types.iter().map(|t| t.bytes).sum(),
        kv_bytes_per_token: kv_bytes_per_token(spec, KvType::F16),
        types,
    }
}

/// Bytes that one token takes in the caches of all layers.
pub(crate) fn kv_bytes_per_token(spec: &ModelSpec, ty: KvType) -> u64 {
    (0..spec.kv_groups.len()).map(|group| spec.kv_token_bytes(group, ty) as u64).sum()
}

/// The stored formats of all tensors, largest first.
fn type_shares(store: &dyn TensorStore) -> Vec<TypeShare> {
    let mut shares: Vec<TypeShare> = Vec::new();
    for view in store.names().into_iter().filter_map(|name| store.tensor(name)) {
        let bytes = view.data.len() as u64;
        match shares.iter_mut().find(|s| s.name == view.ty.name()) {
            Some(share) => {
                share.tensors += 1;
                share.bytes = share.bytes.saturating_add(bytes);
            }
            None => shares.push(TypeShare { name: view.ty.name().to_owned(), tensors: 1, bytes }),
        }
    }
    shares.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    shares
}

/// The name of a model's format: what a GGUF file says of itself, else the format of most bytes.
pub(crate) fn file_type(config: Config<'_>, store: &dyn TensorStore) -> String {
    let declared = match config {
        Config::Gguf(metadata) => metadata.u64("general.file_type").and_then(declared_name),
        Config::HuggingFace(config) => config["quantization_config"]["quant_method"].as_str(),
    };
    let largest =
        || type_shares(store).into_iter().next().map_or(QuantType::F32.name().to_owned(), |t| t.name);
    declared.map_or_else(largest, str::to_owned)
}

/// llama.cpp's `llama_ftype`, by number.
fn declared_name(number: u64) -> Option<&'static str> {
    const NAMES: &[(u64, &str)] = &[
        (0, "f32"),
        (1, "f16"),
        (2, "q4_0"),
        (3, "q4_1"),
        (7, "q8_0"),
        (8, "q5_0"),
        (9, "q5_1"),
        (10, "q2_k"),
        (11, "q3_k_s"),
        (12, "q3_k_m"),
        (13, "q3_k_l"),
        (14, "q4_k_s"),
        (15, "q4_k_m"),
        (16, "q5_k_s"),
        (17, "q5_k_m"),
        (18, "q6_k"),
        (19, "iq2_xxs"),
        (20, "iq2_xs"),
        (21, "q2_k_s"),
        (22, "iq3_xs"),
        (23, "iq3_xxs"),
        (24, "iq1_s"),
        (25, "iq4_nl"),
        (26, "iq3_s"),
        (27, "iq3_m"),
        (28, "iq2_s"),
        (29, "iq2_m"),
        (30, "iq4_xs"),
        (31, "iq1_m"),
        (32, "bf16"),
        (36, "tq1_0"),
        (37, "tq2_0"),
        (38, "mxfp4"),
    ];
    NAMES.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}

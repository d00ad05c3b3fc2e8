//! A decoder described layer by layer.

use crate::{KvType, RopeSpec};

/// Where a block's norms stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormPlacement {
    /// `x + f(norm(x))`: most families.
    Pre,
    /// `x + norm(f(x))`: Olmo2.
    Post,
    /// `x + norm(f(norm(x)))`: Gemma 2 and 3.
    Sandwich,
    /// `norm(x + f(x))`: BERT.
    After,
}

impl NormPlacement {
    /// Whether a norm stands before attention and before the MLP.
    pub fn has_pre(self) -> bool {
        matches!(self, Self::Pre | Self::Sandwich)
    }

    /// Whether a norm stands after attention and after the MLP, before the residual.
    pub fn has_post(self) -> bool {
        matches!(self, Self::Post | Self::Sandwich)
    }

    /// Whether a norm stands after attention and after the MLP, behind the residual sum.
    pub fn has_after(self) -> bool {
        self == Self::After
    }
}

/// What the norms of the residual stream compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + eps) * weight`: most decoders.
    Rms,
    /// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`: Whisper, BERT. With [`NormPlacement::Pre`] or
    /// [`NormPlacement::After`] alone.
    Layer,
}

/// The norm on queries and keys, before the rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QkNorm {
    /// None.
    None,
    /// RMS over each head's vector, one weight for all heads: Qwen3, Gemma 3.
    PerHead,
    /// RMS over all heads together: Olmo2.
    FullWidth,
}

/// What stands between a gated MLP's two input products and its output product.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up` with the tanh approximation.
    GeluTanh,
    /// `gelu(gate) * up` with the error function.
    Gelu,
    /// GPT-OSS: `g * sigmoid(alpha * g) * (u + 1)` with `g = min(gate, limit)` and
    /// `u = clamp(up, -limit, limit)`.
    ClampedSwiglu {
        /// The slope inside the sigmoid.
        alpha: f32,
        /// The bound.
        limit: f32,
    },
    /// `gate * sigmoid(1.702 gate) * up`: CLIP.
    QuickGelu,
    /// `max(gate, 0) * up`.
    Relu,
}

/// How a router's logits become expert weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouterOrder {
    /// Softmax over the chosen experts' logits: Mixtral, GPT-OSS.
    TopKThenSoftmax,
    /// Softmax over all experts, then the choice.
    SoftmaxThenTopK {
        /// Whether the chosen weights are divided by their sum: Qwen3-MoE with `norm_topk_prob`.
        renormalise: bool,
    },
}

/// A mixture of experts.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeSpec {
    /// Experts in the layer.
    pub num_experts: usize,
    /// Experts each token takes.
    pub experts_per_token: usize,
    /// Width of one expert.
    pub ff_dim: usize,
    /// The experts' activation.
    pub activation: Activation,
    /// How logits become weights. Of equal logits the expert with the lower index wins.
    pub order: RouterOrder,
    /// Whether the router has a bias.
    pub has_router_bias: bool,
    /// Whether every expert's three products have biases.
    pub has_expert_bias: bool,
}

/// A layer's MLP.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MlpSpec {
    /// `down(activation(gate(x), up(x)))`.
    Dense {
        /// Width between.
        ff_dim: usize,
        /// The activation.
        activation: Activation,
        /// Whether all three products have biases: Qwen2.5-VL's encoder.
        has_bias: bool,
    },
    /// `down(activation(up(x)))`, without a gate: Whisper.
    Plain {
        /// Width between.
        ff_dim: usize,
        /// The activation, of `up(x)` alone.
        activation: Activation,
        /// Whether both products have biases.
        has_bias: bool,
    },
    /// A mixture of experts.
    Moe(MoeSpec),
}

/// A layer's attention over the states that an encoder left: its keys and values are computed once for
/// each [slot](crate::SequenceStep::states), with no position and no mask. It stands between the
/// layer's own attention and its MLP, with a norm before it and a residual sum after it.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossSpec {
    /// Heads, of queries, keys and values alike.
    pub num_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// The factor on query times key.
    pub scale: f32,
    /// Whether all four products have biases.
    pub has_bias: bool,
}

/// A layer's attention.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// The factor on query times key.
    pub scale: f32,
    /// The norm on queries and keys.
    pub qk_norm: QkNorm,
    /// Index into [`ModelSpec::ropes`]; `None`: no position at all on this layer.
    pub rope: Option<usize>,
    /// Tokens that a token sees, itself included; `None`: all before it.
    pub window: Option<usize>,
    /// Logits become `cap * tanh(logit / cap)`.
    pub softcap: Option<f32>,
    /// One more logit a head in the softmax's sum, without a value: GPT-OSS.
    pub has_sinks: bool,
    /// Whether q, k and v have biases.
    pub has_qkv_bias: bool,
    /// Whether the output has a bias.
    pub has_o_bias: bool,
}

impl AttentionSpec {
    /// The plainest attention: scores over the root of the head's width, no positions, all tokens before it
    /// seen, nothing added.
    pub fn plain(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Self {
        Self {
            num_heads,
            num_kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            qk_norm: QkNorm::None,
            rope: None,
            window: None,
            softcap: None,
            has_sinks: false,
            has_qkv_bias: false,
            has_o_bias: false,
        }
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Its attention.
    pub attention: AttentionSpec,
    /// Its attention over an encoder's states.
    pub cross: Option<CrossSpec>,
    /// Its MLP.
    pub mlp: MlpSpec,
    /// Where its norms stand.
    pub norms: NormPlacement,
    /// Index into [`ModelSpec::kv_groups`].
    pub kv_group: usize,
}

/// Layers that keep the same tokens in the KV cache and so share block tables.
///
/// A block of a group holds [`BLOCK_LEN`](crate::BLOCK_LEN) tokens of every layer in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvGroup {
    /// The layers, ascending.
    pub layers: Vec<usize>,
    /// Tokens that the layers see; blocks wholly behind it may be given back.
    pub window: Option<usize>,
    /// Whether no step reads what an earlier one left, as in an encoder: then the layers keep their keys
    /// and values in one place, each in its turn.
    pub is_transient: bool,
}

/// A decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The family's name, for people: never a switch in a forward pass.
    pub architecture: String,
    /// Rows of the embedding and the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_dim: usize,
    /// Most tokens that the model was made for.
    pub context_len: usize,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// The rotary embeddings that layers refer to.
    pub ropes: Vec<RopeSpec>,
    /// The KV groups that layers refer to.
    pub kv_groups: Vec<KvGroup>,
    /// What the norms compute; those on queries and keys are RMS in any case.
    pub norm: NormKind,
    /// Added to the mean square or the variance in every norm.
    pub norm_eps: f32,
    /// Rows of a table of learned positions, which is added to token embeddings (not to spliced ones).
    /// No sequence is longer.
    pub positions: Option<usize>,
    /// The factor on token embeddings (not on spliced ones).
    pub embedding_scale: f32,
    /// The factor on what each block adds to the residual stream: Granite.
    pub residual_scale: f32,
    /// The factor on logits.
    pub logit_scale: f32,
    /// Logits become `cap * tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    /// Whether the head is the embedding matrix.
    pub has_tied_head: bool,
    /// Whether the head has a bias.
    pub has_head_bias: bool,
}

impl ModelSpec {
    /// The plainest model of `layers`, whose groups are assigned: RMS norms, every factor 1, a head that is
    /// the embedding matrix, a vocabulary of one token and no bound on the context.
    pub fn plain(architecture: &str, hidden_dim: usize, layers: Vec<LayerSpec>) -> Self {
        let mut spec = Self {
            architecture: architecture.to_owned(),
            vocab_size: 1,
            hidden_dim,
            context_len: u32::MAX as usize,
            layers,
            ropes: Vec::new(),
            kv_groups: Vec::new(),
            norm: NormKind::Rms,
            norm_eps: 1e-5,
            positions: None,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            has_tied_head: true,
            has_head_bias: false,
        };
        spec.assign_kv_groups();
        spec
    }

    /// The most query heads that share a key head in any layer.
    pub fn max_group(&self) -> usize {
        let groups = self.layers.iter().map(|layer| &layer.attention);
        groups.map(|attention| attention.num_heads / attention.num_kv_heads.max(1)).max().unwrap_or(0)
    }

    /// Groups the layers by window and fills [`ModelSpec::kv_groups`] and each layer's index.
    pub fn assign_kv_groups(&mut self) {
        self.kv_groups.clear();
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let window = layer.attention.window;
            layer.kv_group = match self.kv_groups.iter().position(|g| g.window == window) {
                Some(group) => group,
                None => {
                    self.kv_groups.push(KvGroup { layers: Vec::new(), window, is_transient: false });
                    self.kv_groups.len() - 1
                }
            };
            self.kv_groups[layer.kv_group].layers.push(i);
        }
    }

    /// Bytes that one token takes in the cache of `group`: keys and values of all its layers, or of the
    /// widest where they take turns.
    pub fn kv_token_bytes(&self, group: usize, ty: KvType) -> usize {
        let group = &self.kv_groups[group];
        let layers = group.layers.iter().map(|&i| {
            let a = &self.layers[i].attention;
            2 * a.num_kv_heads * ty.vector_bytes(a.head_dim)
        });
        if group.is_transient { layers.max().unwrap_or(0) } else { layers.sum() }
    }

    /// Whether a layer attends to an encoder's states.
    pub fn has_cross(&self) -> bool {
        self.layers.iter().any(|layer| layer.cross.is_some())
    }
}

//! The decoder that most families share, before they state their differences.

use alloyforge_types::{
    Activation, AttentionSpec, LayerSpec, MlpSpec, ModelSpec, NormKind, NormPlacement, QkNorm, Result,
    RopeLayout,
};

use super::Draft;
use crate::config::{Key, Reader, RopeDefaults, RopeOf, keys};
use crate::weights::names::Names;

/// Whether products have biases. A GGUF file says it by its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    /// They never have.
    Never,
    /// They always have.
    Always,
    /// As `attention_bias` says.
    Configured {
        /// Where it says nothing.
        default: bool,
    },
}

/// What differs between families that are one decoder otherwise. Sizes and numbers are what the
/// family's configuration class of transformers has where `config.json` is silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dense {
    pub(super) vocab_size: Option<usize>,
    pub(super) num_heads: Option<usize>,
    /// `None`: as many as query heads.
    pub(super) num_kv_heads: Option<usize>,
    /// `None`: the width divided by the heads.
    pub(super) head_dim: Option<usize>,
    pub(super) context_len: usize,
    pub(super) norm_eps: f64,
    pub(super) rope_theta: f64,
    pub(super) has_tied_head: bool,
    /// The key of the activation and what it is by default.
    pub(super) activation: (Key, Activation),
    pub(super) qkv_bias: Bias,
    pub(super) o_bias: Bias,
    pub(super) qk_norm: QkNorm,
    pub(super) norms: NormPlacement,
    /// Whether `rope_parameters` is written for each layer type.
    pub(super) rope_of: RopeOf,
    /// How the family's GGUF files lay out q and k.
    pub(super) gguf_layout: RopeLayout,
    /// Whether YaRN's ramp ends on whole coordinates where the file is silent.
    pub(super) yarn_truncate: bool,
    pub(super) names: Names,
}

impl Default for Dense {
    fn default() -> Self {
        Self::LLAMA
    }
}

impl Dense {
    /// Llama without biases, in the layout of Hugging Face.
    pub(super) const LLAMA: Self = Self {
        vocab_size: None,
        num_heads: None,
        num_kv_heads: None,
        head_dim: None,
        context_len: 2048,
        norm_eps: 1e-6,
        rope_theta: 10_000.0,
        has_tied_head: false,
        activation: (keys::ACTIVATION, Activation::Silu),
        qkv_bias: Bias::Never,
        o_bias: Bias::Never,
        qk_norm: QkNorm::None,
        norms: NormPlacement::Pre,
        rope_of: RopeOf::Model,
        gguf_layout: RopeLayout::Half,
        yarn_truncate: true,
        names: Names { hf: &[], gguf: &[], norm_plus_one: false },
    };

    /// The decoder that `c` describes: every layer alike but for per-layer sizes of a GGUF file, no
    /// windows, a dense MLP.
    pub(super) fn build(&self, c: &Reader<'_>) -> Result<Draft> {
        let num_layers = checked_layers(c)?;
        let hidden_dim = c.size(keys::HIDDEN)?;
        let context_len =
            if c.is_gguf() { c.size(keys::CONTEXT)? } else { c.size_or(keys::CONTEXT, self.context_len)? };
        let heads = c.layer_sizes(keys::HEADS, num_layers, self.num_heads)?;
        let kv_heads = match self.num_kv_heads.filter(|_| !c.is_gguf()) {
            None if !c.has(keys::KV_HEADS) => heads.clone(),
            default => c.layer_sizes(keys::KV_HEADS, num_layers, default)?,
        };
        let head_dim = self.head_dim(c, hidden_dim, &heads)?;
        // a mixture in every layer may leave out the width that none of them has
        let expert_ff = if c.is_gguf() { c.count(keys::EXPERT_FF)? } else { None };
        let ff_dims = c.layer_sizes(keys::FF, num_layers, expert_ff)?;
        let activation = self.activation(c)?;
        self.refuse_others(c)?;

        let mut layers = Vec::with_capacity(num_layers);
        for (i, ((num_heads, num_kv_heads), ff_dim)) in
            heads.into_iter().zip(kv_heads).zip(ff_dims).enumerate()
        {
            if !num_heads.is_multiple_of(num_kv_heads) {
                let fault = format!("is {num_kv_heads}, which does not divide {num_heads} query heads");
                return Err(c.fault(keys::KV_HEADS, fault));
            }
            let attention = AttentionSpec {
                num_heads,
                num_kv_heads,
                head_dim,
                scale: (head_dim as f64).powf(-0.5) as f32,
                qk_norm: self.qk_norm,
                rope: Some(0),
                window: None,
                softcap: None,
                has_sinks: false,
                has_qkv_bias: has_bias(
                    c,
                    self.qkv_bias,
                    &[format!("blk.{i}.attn_q"), format!("blk.{i}.attn_qkv")],
                )?,
                has_o_bias: has_bias(c, self.o_bias, &[format!("blk.{i}.attn_output")])?,
            };
            let mlp = MlpSpec::Dense { ff_dim, activation, has_bias: false };
            layers.push(LayerSpec { attention, cross: None, mlp, norms: self.norms, kv_group: 0 });
        }
        let rope = RopeDefaults {
            of: self.rope_of,
            theta: self.rope_theta,
            gguf_layout: self.gguf_layout,
            yarn_truncate: self.yarn_truncate,
        };
        let spec = ModelSpec {
            architecture: c.family().to_owned(),
            vocab_size: self.vocab_size(c)?,
            hidden_dim,
            context_len,
            layers,
            ropes: vec![c.rope(head_dim, context_len, &rope)?],
            kv_groups: Vec::new(),
            norm: NormKind::Rms,
            norm_eps: self.norm_eps(c)? as f32,
            positions: None,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            has_tied_head: c.has_tied_head(self.has_tied_head)?,
            has_head_bias: c.has_tensor(if c.is_gguf() { "output.bias" } else { "lm_head.bias" }),
        };
        Ok(Draft { spec, names: self.names })
    }

    /// Refuses what no family of this kind has.
    fn refuse_others(&self, c: &Reader<'_>) -> Result<()> {
        if !c.flag(keys::CAUSAL, true)? {
            return Err(c.unsupported(keys::CAUSAL, false));
        }
        c.refuse(keys::MLP_BIAS)?;
        if self.qkv_bias == Bias::Never { c.refuse(keys::ATTENTION_BIAS) } else { Ok(()) }
    }

    fn head_dim(&self, c: &Reader<'_>, hidden_dim: usize, heads: &[usize]) -> Result<usize> {
        // a file may write the key as null, which means the same as leaving it out
        let default = self.head_dim.filter(|_| !c.is_gguf());
        let head_dim = match c.count(keys::HEAD_DIM)?.or(default) {
            Some(_) => c.size_or(keys::HEAD_DIM, default.unwrap_or(0))?,
            None => {
                let first = heads.first().copied().unwrap_or(1);
                if !hidden_dim.is_multiple_of(first) {
                    let fault = format!("is {first}, which does not divide the width {hidden_dim}");
                    return Err(c.fault(keys::HEADS, fault));
                }
                hidden_dim / first
            }
        };
        match c.count(keys::VALUE_DIM)? {
            Some(width) if width != head_dim => Err(c.unsupported(keys::VALUE_DIM, width)),
            _ => Ok(head_dim),
        }
    }

    fn vocab_size(&self, c: &Reader<'_>) -> Result<usize> {
        if !c.is_gguf() {
            return match self.vocab_size {
                Some(default) => c.size_or(keys::VOCAB, default),
                None => c.size(keys::VOCAB),
            };
        }
        // the count of rows rules; a key beside it must agree
        let rows = c.store().tensor("token_embd.weight").and_then(|t| t.shape.first().copied());
        let rows = match rows {
            Some(rows) if rows > 0 => rows,
            _ => c.size(keys::VOCAB)?,
        };
        match c.count(keys::VOCAB)? {
            Some(vocab) if vocab != rows => {
                Err(c.fault(keys::VOCAB, format!("is {vocab}, the embedding has {rows} rows")))
            }
            _ => Ok(rows),
        }
    }

    fn norm_eps(&self, c: &Reader<'_>) -> Result<f64> {
        match c.number(keys::NORM_EPS)? {
            Some(eps) if eps < 0.0 => Err(c.fault(keys::NORM_EPS, format!("is {eps}, expected at least 0"))),
            Some(eps) => Ok(eps),
            None if c.is_gguf() => Err(c.fault(keys::NORM_EPS, "is missing")),
            None => Ok(self.norm_eps),
        }
    }

    fn activation(&self, c: &Reader<'_>) -> Result<Activation> {
        let (key, default) = self.activation;
        match c.text(key)? {
            None => Ok(default),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Ok(Activation::GeluTanh),
            Some("gelu") => Ok(Activation::Gelu),
            Some(other) => Err(c.unsupported(key, format!("\"{other}\""))),
        }
    }
}

/// The count of layers, which no file has more of than tensors: it is checked before anything is made
/// for each layer.
fn checked_layers(c: &Reader<'_>) -> Result<usize> {
    let layers = c.size(keys::LAYERS)?;
    let tensors = c.store().names().len();
    if layers > tensors {
        return Err(c.fault(keys::LAYERS, format!("is {layers}, the file has {tensors} tensors")));
    }
    Ok(layers)
}

fn has_bias(c: &Reader<'_>, bias: Bias, tensors: &[String]) -> Result<bool> {
    match bias {
        Bias::Always => {
            c.ignore(&[keys::ATTENTION_BIAS]);
            Ok(true)
        }
        _ if c.is_gguf() => Ok(tensors.iter().any(|t| c.has_tensor(&format!("{t}.bias")))),
        Bias::Never => Ok(false),
        Bias::Configured { default } => c.flag(keys::ATTENTION_BIAS, default),
    }
}

impl Draft {
    /// Gives each layer the window that `of` says.
    pub(super) fn set_windows(&mut self, window: Option<usize>, of: &[bool]) {
        for (layer, has_window) in self.spec.layers.iter_mut().zip(of) {
            layer.attention.window = window.filter(|_| *has_window);
        }
    }

    /// Gives every layer the same window.
    pub(super) fn set_window(&mut self, window: Option<usize>) {
        for layer in &mut self.spec.layers {
            layer.attention.window = window;
        }
    }

    /// Layers in it.
    pub(super) fn num_layers(&self) -> usize {
        self.spec.layers.len()
    }
}

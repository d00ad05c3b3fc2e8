//! Whisper and encoders of its kind: a configuration and its tensors become two decoders' specs.
//!
//! The encoder is described as a decoder whose rows are spliced in, made by two convolutions, and all
//! see each other; its table of "tokens" is the table of positions, which no step reads. So both halves
//! run on the same phases, with the same quantised weights, on every backend.

use std::borrow::Cow;
use std::sync::Arc;

use alloyforge_interfaces::{TensorStore, WeightSource};
use alloyforge_types::{
    Activation, AttentionSpec, CrossSpec, Error, LayerRole, LayerSpec, MlpSpec, ModelSpec, NormKind,
    NormPlacement, QuantType, Result, Role, Weight,
};
use serde_json::{Map, Value};

use crate::resolve::Resolved;

/// Most that a width or a count of the configuration may be.
const MAX_SIZE: u64 = 1 << 20;

/// A Whisper model, understood.
#[derive(Debug)]
pub struct Whisper {
    /// The encoder.
    pub encoder: AudioTower,
    /// The decoder.
    pub decoder: Resolved,
    /// Its most tokens.
    pub target_len: usize,
}

/// An encoder of sound: two convolutions, then layers over rows that see each other.
#[derive(Debug)]
pub struct AudioTower {
    /// The layers.
    pub layers: Resolved,
    /// What its tensors' names begin with, such as `model.encoder`.
    pub prefix: String,
    /// Numbers in a frame of the spectrum.
    pub num_mels: usize,
    /// Rows that it gives: half as many as there are frames.
    pub source_len: usize,
}

/// Reads a JSON object, naming what is wrong.
struct Keys<'a> {
    object: &'a Map<String, Value>,
    label: &'a str,
}

impl Keys<'_> {
    fn fault(&self, key: &str, fault: impl Into<String>) -> Error {
        Error::format(self.label, format!("config.json `{key}`"), fault)
    }

    fn size(&self, key: &str) -> Result<usize> {
        match self.object.get(key) {
            None | Some(Value::Null) => Err(self.fault(key, "is missing")),
            Some(value) => match value.as_u64().filter(|n| (1..=MAX_SIZE).contains(n)) {
                Some(n) => Ok(n as usize),
                None => Err(self.fault(key, format!("is {value}, expected an integer from 1 to {MAX_SIZE}"))),
            },
        }
    }

    fn activation(&self) -> Result<Activation> {
        match self.object.get("activation_function").and_then(Value::as_str) {
            Some("gelu") | None => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some(other) => Err(Error::unsupported(
                self.label,
                format!("config.json `activation_function` = \"{other}\""),
            )),
        }
    }

    /// Refuses a setting that would change what is computed.
    fn refuse_scale(&self) -> Result<()> {
        match self.object.get("scale_embedding") {
            Some(Value::Bool(true)) => {
                Err(Error::unsupported(self.label, "config.json `scale_embedding` = true"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether `config` is that of a Whisper model.
pub fn is_whisper(config: &Value) -> bool {
    config.get("model_type").and_then(Value::as_str) == Some("whisper")
}

/// Understands the Whisper model that `config` describes.
///
/// # Errors
/// `Format` for a configuration or a tensor that is missing, damaged or contradicts another;
/// `Unsupported` for a setting that is not known.
pub fn resolve_whisper(config: &Value, store: Arc<dyn TensorStore>) -> Result<Whisper> {
    let label = store.label().to_owned();
    let Some(object) = config.as_object() else {
        return Err(Error::format(label, "config.json", "is no object"));
    };
    let keys = Keys { object, label: &label };
    if object.get("tie_word_embeddings") == Some(&Value::Bool(false))
        && store.tensor("proj_out.weight").is_some()
    {
        return Err(Error::unsupported(label, "a head that is not the embedding matrix"));
    }
    let has = |name: &str| store.tensor(name).is_some();
    let root = if has("model.decoder.embed_tokens.weight") { "model." } else { "" };
    let encoder = audio_tower(object, &format!("{root}encoder"), Arc::clone(&store))?;
    let (width, heads) = (keys.size("d_model")?, keys.size("decoder_attention_heads")?);
    let target_len = keys.size("max_target_positions")?;
    let shape = Shape {
        width,
        heads,
        layers: keys.size("decoder_layers")?,
        ff_dim: keys.size("decoder_ffn_dim")?,
        vocab_size: keys.size("vocab_size")?,
        positions: Some(target_len),
        has_cross: true,
    };
    let decoder = shape.resolve(&keys, "whisper", &format!("{root}decoder"), "embed_tokens", store)?;
    Ok(Whisper { encoder, decoder, target_len })
}

/// Understands the encoder that `config` describes, whose tensors' names begin with `prefix`.
///
/// # Errors
/// As [`resolve_whisper`].
pub fn audio_tower(
    config: &Map<String, Value>,
    prefix: &str,
    store: Arc<dyn TensorStore>,
) -> Result<AudioTower> {
    let label = store.label().to_owned();
    let keys = Keys { object: config, label: &label };
    keys.refuse_scale()?;
    let (width, num_mels) = (keys.size("d_model")?, keys.size("num_mel_bins")?);
    let source_len = keys.size("max_source_positions")?;
    let shape = Shape {
        width,
        heads: keys.size("encoder_attention_heads")?,
        layers: keys.size("encoder_layers")?,
        ff_dim: keys.size("encoder_ffn_dim")?,
        vocab_size: source_len,
        positions: None,
        has_cross: false,
    };
    for (name, shape) in [
        ("conv1.weight", vec![width, num_mels, 3]),
        ("conv1.bias", vec![width]),
        ("conv2.weight", vec![width, width, 3]),
        ("conv2.bias", vec![width]),
    ] {
        plain(&*store, &format!("{prefix}.{name}"), &shape)?;
    }
    let layers = shape.resolve(&keys, "whisper_encoder", prefix, "embed_positions", store)?;
    Ok(AudioTower { layers, prefix: prefix.to_owned(), num_mels, source_len })
}

/// The tensor `name`, its shape checked.
fn shaped<'a>(
    store: &'a dyn TensorStore,
    name: &str,
    shape: &[usize],
) -> Result<alloyforge_types::TensorView<'a>> {
    let fault = |fault: String| Err(Error::format(store.label(), format!("tensor `{name}`"), fault));
    let Some(view) = store.tensor(name) else {
        return match store.foreign_type(name) {
            Some(ty) => Err(Error::unsupported(store.label(), format!("tensor `{name}` of type {ty}"))),
            None => fault("is missing".to_owned()),
        };
    };
    // llama.cpp's files give the biases of convolutions a dimension more
    let shape_of_view = match view.shape.as_slice() {
        [len, 1] if shape.len() == 1 => &[*len][..],
        all => all,
    };
    if shape_of_view != shape {
        return fault(format!("has shape {:?}, expected {shape:?}", view.shape));
    }
    Ok(view)
}

/// As [`shaped`], of plain numbers.
fn plain<'a>(
    store: &'a dyn TensorStore,
    name: &str,
    shape: &[usize],
) -> Result<alloyforge_types::TensorView<'a>> {
    let view = shaped(store, name, shape)?;
    if !view.ty.is_plain() {
        let fault = format!("is of type {}, expected plain numbers", view.ty.name());
        return Err(Error::format(store.label(), format!("tensor `{name}`"), fault));
    }
    Ok(view)
}

/// What a half's spec follows from.
struct Shape {
    width: usize,
    heads: usize,
    layers: usize,
    ff_dim: usize,
    vocab_size: usize,
    positions: Option<usize>,
    has_cross: bool,
}

impl Shape {
    fn resolve(
        &self,
        keys: &Keys<'_>,
        architecture: &str,
        prefix: &str,
        table: &'static str,
        store: Arc<dyn TensorStore>,
    ) -> Result<Resolved> {
        let (width, heads) = (self.width, self.heads);
        if !width.is_multiple_of(heads) {
            return Err(keys.fault("d_model", format!("is {width}, no multiple of its {heads} heads")));
        }
        // each layer has tensors of its own, so that their count bounds what is made here
        if self.layers > store.names().len() {
            return Err(keys.fault("layers", format!("are {}, more than there are tensors", self.layers)));
        }
        let head_dim = width / heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let activation = keys.activation()?;
        let layer = LayerSpec {
            attention: AttentionSpec {
                has_qkv_bias: true,
                has_o_bias: true,
                ..AttentionSpec::plain(heads, heads, head_dim)
            },
            cross: self.has_cross.then_some(CrossSpec { num_heads: heads, head_dim, scale, has_bias: true }),
            mlp: MlpSpec::Plain { ff_dim: self.ff_dim, activation, has_bias: true },
            norms: NormPlacement::Pre,
            kv_group: 0,
        };
        let spec = ModelSpec {
            vocab_size: self.vocab_size,
            context_len: self.positions.unwrap_or(self.vocab_size),
            norm: NormKind::Layer,
            norm_eps: 1e-5,
            positions: self.positions,
            ..ModelSpec::plain(architecture, width, vec![layer; self.layers])
        };
        let weights = Weights { store, spec: spec.clone(), prefix: prefix.to_owned(), table };
        let mut parameters = 0u64;
        let mut types: Vec<(QuantType, u64)> = Vec::new();
        for role in spec.roles() {
            let weight = weights.weight(role)?;
            let count = weight.rows as u64 * weight.cols as u64;
            parameters += if weights.name(role).is_some() { count } else { 0 };
            match types.iter_mut().find(|(ty, _)| *ty == weight.ty) {
                Some((_, sum)) => *sum += count,
                None => types.push((weight.ty, count)),
            }
        }
        let most = types.iter().max_by_key(|(_, count)| *count).map_or("f32", |(ty, _)| ty.name());
        let file_type = most.to_owned();
        Ok(Resolved { spec, weights: Box::new(weights), parameters, file_type })
    }
}

/// One half's weights by role.
struct Weights {
    store: Arc<dyn TensorStore>,
    spec: ModelSpec,
    prefix: String,
    /// The table that embeddings are read from.
    table: &'static str,
}

impl Weights {
    /// The tensor's name; `None` for the bias on keys, which Whisper does not have.
    fn name(&self, role: Role) -> Option<String> {
        use LayerRole as L;
        let prefix = &self.prefix;
        let (i, role) = match role {
            Role::Embedding | Role::Head => return Some(format!("{prefix}.{}.weight", self.table)),
            Role::Positions => return Some(format!("{prefix}.embed_positions.weight")),
            Role::FinalNorm => return Some(format!("{prefix}.layer_norm.weight")),
            Role::FinalNormBias => return Some(format!("{prefix}.layer_norm.bias")),
            Role::HeadBias => return None,
            Role::Layer(i, role) => (i, role),
        };
        let name = match role {
            L::AttnNorm => "self_attn_layer_norm.weight",
            L::AttnNormBias => "self_attn_layer_norm.bias",
            L::Q => "self_attn.q_proj.weight",
            L::K => "self_attn.k_proj.weight",
            L::V => "self_attn.v_proj.weight",
            L::O => "self_attn.out_proj.weight",
            L::QBias => "self_attn.q_proj.bias",
            L::VBias => "self_attn.v_proj.bias",
            L::OBias => "self_attn.out_proj.bias",
            L::CrossNorm => "encoder_attn_layer_norm.weight",
            L::CrossNormBias => "encoder_attn_layer_norm.bias",
            L::CrossQ => "encoder_attn.q_proj.weight",
            L::CrossK => "encoder_attn.k_proj.weight",
            L::CrossV => "encoder_attn.v_proj.weight",
            L::CrossO => "encoder_attn.out_proj.weight",
            L::CrossQBias => "encoder_attn.q_proj.bias",
            L::CrossVBias => "encoder_attn.v_proj.bias",
            L::CrossOBias => "encoder_attn.out_proj.bias",
            L::MlpNorm => "final_layer_norm.weight",
            L::MlpNormBias => "final_layer_norm.bias",
            L::Up => "fc1.weight",
            L::UpBias => "fc1.bias",
            L::Down => "fc2.weight",
            L::DownBias => "fc2.bias",
            _ => return None,
        };
        Some(format!("{prefix}.layers.{i}.{name}"))
    }
}

impl WeightSource for Weights {
    fn weight(&self, role: Role) -> Result<Weight<'_>> {
        let Some((rows, cols)) = self.spec.weight_shape(role) else {
            return Err(Error::internal(format!("{role:?} is no weight of the model")));
        };
        let Some(name) = self.name(role) else {
            let data = Cow::Owned(vec![0; 4 * cols]);
            return Ok(Weight { name: format!("{role:?}"), ty: QuantType::F32, rows: 1, cols, data });
        };
        let shape = if role.is_vector() { vec![cols] } else { vec![rows, cols] };
        let view = if role.is_vector() {
            plain(&*self.store, &name, &shape)?
        } else {
            shaped(&*self.store, &name, &shape)?
        };
        Ok(Weight { name, ty: view.ty, rows, cols, data: Cow::Borrowed(view.data) })
    }
}

//! Models that write nothing: texts and pictures to embeddings, and pictures to labels.

use std::sync::Arc;

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{
    EncoderNorm, Error, HeadThen, Pooling, QuantType, Result, TextHead, TextSpec, TowerSpec, VisionHead,
    VisionSpec,
};
use serde_json::{Value, json};

use super::fields::Fields;
use super::renamed::Renamed;
use super::vision::{self, Tower};

/// What the rows of a tower of pictures are.
#[derive(Debug, Clone, PartialEq)]
pub enum VisionTask {
    /// Embeddings.
    Embedding,
    /// One score a label, before the softmax.
    Labels(Vec<String>),
}

/// How a text and a picture are compared: their cosine, times a scale, plus a bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The scale.
    pub scale: f32,
    /// The bias.
    pub bias: f32,
    /// Whether each pair stands for itself (SigLIP's sigmoid) or a picture's scores are shares
    /// (CLIP's softmax).
    pub is_sigmoid: bool,
}

/// How a model scores a text for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranking {
    /// Ends between the two texts: one in BERT's, two in RoBERTa's.
    pub num_ends: usize,
    /// Whether a score is brought between 0 and 1.
    pub is_sigmoid: bool,
}

/// A model without a decoder.
pub struct Embedder {
    /// The family's name.
    pub architecture: String,
    /// The tower of texts, with its tensors.
    pub text: Option<(TextSpec, Arc<dyn TensorStore>)>,
    /// The tower of pictures, with its tensors and what its rows are.
    pub vision: Option<(VisionSpec, Arc<dyn TensorStore>, VisionTask)>,
    /// How the two are compared.
    pub comparison: Option<Comparison>,
    /// How it scores one text for another; then it embeds none.
    pub ranking: Option<Ranking>,
    /// The tokens that a text begins and ends with, where the tokenizer does not put them there.
    pub frame: [Option<u32>; 2],
    /// Whether its embeddings have unit length by its own account.
    pub is_normalised: bool,
    /// The family of processors that prepares its pictures.
    pub processor: Value,
}

/// What sentence-transformers' files say of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentenceSettings {
    /// What an embedding is made of.
    pub pooling: Pooling,
    /// Whether it is brought to unit length.
    pub is_normalised: bool,
}

/// The model without a decoder that `config` describes; `None` for another. `sentence` is what
/// sentence-transformers' files say, where there are any.
///
/// # Errors
/// `Format` for a configuration that contradicts itself, `Unsupported` for a value that is not known.
pub fn resolve_embedder(
    config: &Value,
    store: &Arc<dyn TensorStore>,
    sentence: Option<SentenceSettings>,
) -> Result<Option<Embedder>> {
    let label = store.label().to_owned();
    let c = Fields::new(&label, "", config.as_object());
    let Some(family) = c.text("model_type")? else { return Ok(None) };
    let class = c.value("architectures").and_then(|a| a.get(0)).and_then(Value::as_str).unwrap_or_default();
    match family {
        "bert" | "roberta" | "xlm-roberta" | "camembert" => {
            bert(&c, store, family, class, sentence).map(Some)
        }
        "clip" => clip(&c, store).map(Some),
        "siglip" => siglip(&c, store).map(Some),
        "vit" => vit(&c, store, class).map(Some),
        "dinov2" => dinov2(&c, store).map(Some),
        _ => Ok(None),
    }
}

const BERT: &[(&str, &str)] = &[
    ("token_embd", "embeddings.word_embeddings"),
    ("position_embd", "embeddings.position_embeddings"),
    ("segment_embd", "embeddings.token_type_embeddings"),
    ("embd_norm", "embeddings.LayerNorm"),
    ("blk.{l}.attn_q", "encoder.layer.{l}.attention.self.query"),
    ("blk.{l}.attn_k", "encoder.layer.{l}.attention.self.key"),
    ("blk.{l}.attn_v", "encoder.layer.{l}.attention.self.value"),
    ("blk.{l}.attn_out", "encoder.layer.{l}.attention.output.dense"),
    ("blk.{l}.ln1", "encoder.layer.{l}.attention.output.LayerNorm"),
    ("blk.{l}.ffn_up", "encoder.layer.{l}.intermediate.dense"),
    ("blk.{l}.ffn_down", "encoder.layer.{l}.output.dense"),
    ("blk.{l}.ln2", "encoder.layer.{l}.output.LayerNorm"),
];

fn bert(
    c: &Fields<'_>,
    store: &Arc<dyn TensorStore>,
    family: &str,
    class: &str,
    sentence: Option<SentenceSettings>,
) -> Result<Embedder> {
    let is_roberta = family != "bert";
    let kind = c.text("position_embedding_type")?.unwrap_or("absolute");
    if kind != "absolute" || c.flag("is_decoder", false)? {
        return Err(c.unsupported("position_embedding_type"));
    }
    let (width, heads) = (c.size("hidden_size", 768)?, c.size("num_attention_heads", 12)?);
    let layers = c.size("num_hidden_layers", 12)?;
    let rows = c.size("max_position_embeddings", 512)?;
    if !width.is_multiple_of(heads) {
        return Err(c.fault("num_attention_heads", format!("is {heads}, the width {width}")));
    }
    // RoBERTa's positions begin behind that of the padding
    let pad = c.integer("pad_token_id")?.unwrap_or(1).max(0) as usize;
    let first_position = if is_roberta { pad + 1 } else { 0 };
    if first_position >= rows {
        return Err(
            c.fault("max_position_embeddings", format!("is {rows}, the first position {first_position}"))
        );
    }
    let prefixes = ["", "bert.", "roberta.", "model."];
    let probe = "embeddings.word_embeddings.weight";
    let prefix = prefixes.iter().find(|p| store.tensor(&format!("{p}{probe}")).is_some()).unwrap_or(&"");
    let mut names = Renamed::new(Arc::clone(store));
    names.put_all(prefix, layers, BERT);
    let is_ranker = class.ends_with("ForSequenceClassification");
    let (mut pooling, mut head, mut out_dim) = (sentence.map_or(Pooling::Mean, |s| s.pooling), vec![], width);
    if is_ranker {
        let last = if is_roberta { "classifier.out_proj" } else { "classifier" };
        let rows = store.tensor(&format!("{last}.weight")).and_then(|t| t.shape.first().copied());
        if rows != Some(1) {
            let fault = format!("architecture `{class}` with {} labels", rows.unwrap_or(0));
            return Err(Error::unsupported(store.label(), fault));
        }
        let first = if is_roberta { "classifier.dense".to_owned() } else { format!("{prefix}pooler.dense") };
        names.put("head.0", first);
        names.put("head.1", last);
        pooling = Pooling::First;
        head = vec![
            TextHead { dim: width, has_bias: true, then: HeadThen::Tanh },
            TextHead { dim: 1, has_bias: true, then: HeadThen::Nothing },
        ];
        out_dim = 1;
    }
    // sentence-transformers brings one label's score between 0 and 1, unless the file names another way
    let own = c.inner("sentence_transformers").text("activation_fn")?;
    let is_sigmoid = match own.map(|name| name.rsplit('.').next().unwrap_or(name)) {
        None | Some("Sigmoid") => true,
        Some("Identity") => false,
        Some(other) => {
            return Err(Error::unsupported(
                store.label(),
                format!("config.json `activation_fn` = \"{other}\""),
            ));
        }
    };
    let num_ends = if is_roberta { 2 } else { 1 };
    let tower = TowerSpec {
        num_layers: layers,
        width,
        num_heads: heads,
        head_dim: width / heads,
        ff_dim: c.size("intermediate_size", 3072)?,
        norm: EncoderNorm::Layer,
        norm_eps: c.number("layer_norm_eps", 1e-12)? as f32,
        is_post_norm: true,
        activation: c.activation("hidden_act", "gelu")?,
        is_gated: false,
        is_causal: false,
        rope: None,
        has_bias: [true, true],
        has_layer_scale: false,
        has_pre_norm: false,
        has_post_norm: false,
    };
    let spec = TextSpec {
        vocab_size: c.size("vocab_size", 30522)?,
        max_len: rows - first_position,
        first_position,
        has_segments: true,
        has_embedding_norm: true,
        tower,
        padded_with: None,
        pooling,
        head,
        out_dim,
    };
    Ok(Embedder {
        ranking: is_ranker.then_some(Ranking { num_ends, is_sigmoid }),
        architecture: family.to_owned(),
        text: Some((spec, Arc::new(names))),
        vision: None,
        comparison: None,
        frame: [None; 2],
        is_normalised: !is_ranker && sentence.is_none_or(|s| s.is_normalised),
        processor: Value::Null,
    })
}

/// The names of CLIP's text tower, which SigLIP shares.
const TEXT: &[(&str, &str)] = &[
    ("token_embd", "embeddings.token_embedding"),
    ("position_embd", "embeddings.position_embedding"),
    ("post_ln", "final_layer_norm"),
    ("blk.{l}.ln1", "encoder.layers.{l}.layer_norm1"),
    ("blk.{l}.ln2", "encoder.layers.{l}.layer_norm2"),
    ("blk.{l}.attn_q", "encoder.layers.{l}.self_attn.q_proj"),
    ("blk.{l}.attn_k", "encoder.layers.{l}.self_attn.k_proj"),
    ("blk.{l}.attn_v", "encoder.layers.{l}.self_attn.v_proj"),
    ("blk.{l}.attn_out", "encoder.layers.{l}.self_attn.out_proj"),
    ("blk.{l}.ffn_up", "encoder.layers.{l}.mlp.fc1"),
    ("blk.{l}.ffn_down", "encoder.layers.{l}.mlp.fc2"),
];

/// The text tower of CLIP or SigLIP.
fn text_tower(
    c: &Fields<'_>,
    store: &Arc<dyn TensorStore>,
    activation: &str,
    eps: f64,
    sizes: [usize; 6],
) -> Result<(TextSpec, Renamed)> {
    let [vocab, width, ff_dim, layers, heads, max_len] = sizes;
    let (width, heads) = (c.size("hidden_size", width)?, c.size("num_attention_heads", heads)?);
    if !width.is_multiple_of(heads) {
        return Err(c.fault("num_attention_heads", format!("is {heads}, the width {width}")));
    }
    let layers = c.size("num_hidden_layers", layers)?;
    let mut names = Renamed::new(Arc::clone(store));
    names.put_all("text_model.", layers, TEXT);
    let tower = TowerSpec {
        num_layers: layers,
        width,
        num_heads: heads,
        head_dim: width / heads,
        ff_dim: c.size("intermediate_size", ff_dim)?,
        norm: EncoderNorm::Layer,
        norm_eps: c.number("layer_norm_eps", eps)? as f32,
        is_post_norm: false,
        activation: c.activation("hidden_act", activation)?,
        is_gated: false,
        is_causal: false,
        rope: None,
        has_bias: [true, true],
        has_layer_scale: false,
        has_pre_norm: false,
        has_post_norm: true,
    };
    let spec = TextSpec {
        vocab_size: c.size("vocab_size", vocab)?,
        max_len: c.size("max_position_embeddings", max_len)?,
        first_position: 0,
        has_segments: false,
        has_embedding_norm: false,
        tower,
        padded_with: None,
        pooling: Pooling::Last,
        head: Vec::new(),
        out_dim: width,
    };
    Ok((spec, names))
}

/// The one number of `name`, its exponential where `is_log`.
fn scalar(store: &dyn TensorStore, name: &str) -> Option<f32> {
    let view = store.tensor(name)?;
    match view.ty {
        QuantType::F32 => Some(f32::from_le_bytes(view.data.try_into().ok()?)),
        QuantType::F16 => Some(half::f16::from_le_bytes(view.data.try_into().ok()?).to_f32()),
        QuantType::BF16 => Some(half::bf16::from_le_bytes(view.data.try_into().ok()?).to_f32()),
        _ => None,
    }
}

fn clip(c: &Fields<'_>, store: &Arc<dyn TensorStore>) -> Result<Embedder> {
    let dim = c.size("projection_dim", 512)?;
    let text = c.inner("text_config");
    let sizes = [49408, 512, 2048, 12, 8, 77];
    let (mut spec, mut names) = text_tower(&text, store, "quick_gelu", 1e-5, sizes)?;
    spec.tower.is_causal = true;
    // early configurations have the wrong id 2; with it transformers looks for the highest one
    spec.pooling = match text.integer("eos_token_id")?.unwrap_or(49407) {
        2 => Pooling::HighestId,
        id => Pooling::Token(u32::try_from(id).unwrap_or(u32::MAX)),
    };
    spec.head = vec![TextHead { dim, has_bias: false, then: HeadThen::Nothing }];
    spec.out_dim = dim;
    let id = |key: &str, default: i64| -> Result<Option<u32>> {
        let id = text.integer(key)?.unwrap_or(default);
        Ok(u32::try_from(id).ok().filter(|&id| (id as usize) < spec.vocab_size))
    };
    let frame = [id("bos_token_id", 49406)?, id("eos_token_id", 49407)?];
    names.put("head.0", "text_projection");
    let Tower { spec: mut picture, names: mut tower_names, .. } =
        vision::clip(&c.inner("vision_config"), store)?;
    picture.head = VisionHead::Class { has_projection: true, has_bias: false, dim };
    picture.out_dim = dim;
    tower_names.put("head", "visual_projection");
    let scale = scalar(&**store, "logit_scale").unwrap_or(2.6592).exp();
    Ok(Embedder {
        ranking: None,
        architecture: "clip".into(),
        text: Some((spec, Arc::new(names))),
        vision: Some((picture, Arc::new(tower_names), VisionTask::Embedding)),
        comparison: Some(Comparison { scale, bias: 0.0, is_sigmoid: false }),
        frame,
        is_normalised: true,
        processor: json!({ "family": "clip" }),
    })
}

fn siglip(c: &Fields<'_>, store: &Arc<dyn TensorStore>) -> Result<Embedder> {
    let text = c.inner("text_config");
    let sizes = [32000, 768, 3072, 12, 12, 64];
    let (mut spec, mut names) = text_tower(&text, store, "gelu_pytorch_tanh", 1e-6, sizes)?;
    let dim = text.size("projection_size", spec.tower.width)?;
    // texts are padded to the full length with the end token, and the padding is seen
    let pad = text.integer("pad_token_id")?.unwrap_or(1);
    spec.padded_with = Some(u32::try_from(pad).unwrap_or(0));
    spec.head = vec![TextHead { dim, has_bias: true, then: HeadThen::Nothing }];
    spec.out_dim = dim;
    let end = text.integer("eos_token_id")?.and_then(|id| u32::try_from(id).ok());
    let frame = [None, end.filter(|&id| (id as usize) < spec.vocab_size)];
    names.put("head.0", "text_model.head");
    let pictures = c.inner("vision_config");
    if !pictures.flag("vision_use_head", true)? {
        return Err(pictures.unsupported("vision_use_head"));
    }
    let Tower { spec: mut picture, names: mut own, prefix } = vision::siglip(&pictures, store)?;
    picture.head = VisionHead::AttentionPool;
    own.put("pool.probe", format!("{prefix}head.probe"));
    for (part, stem) in ["pool.q", "pool.k", "pool.v"].into_iter().enumerate() {
        for kind in ["weight", "bias"] {
            own.put_part(format!("{stem}.{kind}"), format!("{prefix}head.attention.in_proj_{kind}"), part, 3);
        }
    }
    own.put("pool.out", format!("{prefix}head.attention.out_proj"));
    own.put("pool.norm", format!("{prefix}head.layernorm"));
    own.put("pool.1", format!("{prefix}head.mlp.fc1"));
    own.put("pool.2", format!("{prefix}head.mlp.fc2"));
    let scale = scalar(&**store, "logit_scale").unwrap_or(0.0).exp();
    let bias = scalar(&**store, "logit_bias").unwrap_or(0.0);
    Ok(Embedder {
        ranking: None,
        architecture: "siglip".into(),
        text: Some((spec, Arc::new(names))),
        vision: Some((picture, Arc::new(own), VisionTask::Embedding)),
        comparison: Some(Comparison { scale, bias, is_sigmoid: true }),
        frame,
        is_normalised: true,
        processor: json!({ "family": "clip" }),
    })
}

fn vit(c: &Fields<'_>, store: &Arc<dyn TensorStore>, class: &str) -> Result<Embedder> {
    let Tower { mut spec, mut names, .. } = vision::vit(c, store, false)?;
    let mut task = VisionTask::Embedding;
    if class == "ViTForImageClassification" || store.tensor("classifier.weight").is_some() {
        let rows = store.tensor("classifier.weight").and_then(|t| t.shape.first().copied());
        let rows =
            rows.ok_or_else(|| Error::format(store.label(), "tensor `classifier.weight`", "is missing"))?;
        let given = c.inner("id2label");
        let label = |i: usize| {
            let name = given.value(&i.to_string()).and_then(Value::as_str);
            name.map_or_else(|| format!("LABEL_{i}"), str::to_owned)
        };
        task = VisionTask::Labels((0..rows).map(label).collect());
        names.put("head", "classifier");
        spec.head = VisionHead::Class { has_projection: true, has_bias: true, dim: rows };
        spec.out_dim = rows;
    }
    Ok(pictures("vit", spec, names, task))
}

fn dinov2(c: &Fields<'_>, store: &Arc<dyn TensorStore>) -> Result<Embedder> {
    let Tower { spec, names, .. } = vision::vit(c, store, true)?;
    Ok(pictures("dinov2", spec, names, VisionTask::Embedding))
}

fn pictures(architecture: &str, spec: VisionSpec, names: Renamed, task: VisionTask) -> Embedder {
    Embedder {
        ranking: None,
        architecture: architecture.to_owned(),
        text: None,
        vision: Some((spec, Arc::new(names), task)),
        comparison: None,
        frame: [None; 2],
        is_normalised: false,
        processor: json!({ "family": "clip" }),
    }
}

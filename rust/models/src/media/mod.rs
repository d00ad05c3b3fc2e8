//! What models see with: which encoder a checkpoint has, what its placeholders become, and how
//! positions run.
//!
//! A vision-language model is a decoder like any other, and a tower with a head that makes rows of the
//! decoder's width. Here its configuration becomes a [`VisionSpec`] and a table of names; the text half
//! goes the way of all text models.

mod decoder_embedder;
mod embedder;
mod fields;
mod hearing;
mod layers;
mod projector;
mod prompts;
mod renamed;
mod vision;

use std::sync::Arc;

use alloyforge_interfaces::{MediaPrompts, TensorStore};
use alloyforge_types::{EncoderActivation, Error, Result, TileLayout, VisionHead, VisionSpec};
use serde_json::{Map, Value, json};

use fields::Fields;
use prompts::{Layout, Prompts};
use vision::{Qwen, Tower};

pub use decoder_embedder::{DecoderEmbedder, EmbedderLimits, last_norm};
pub use embedder::{Comparison, Embedder, Ranking, SentenceSettings, VisionTask, resolve_embedder};
pub(crate) use hearing::lacks_text;
pub use hearing::{Hearing, resolve_hearing, resolve_sound_projector};
pub use layers::BackendLayers;
pub use projector::resolve_projector;

/// What a model sees with.
pub struct Vision {
    /// The encoder.
    pub spec: VisionSpec,
    /// Its tensors, under the names that encoders ask for.
    pub store: Arc<dyn TensorStore>,
    /// How prompts hold media.
    pub prompts: Arc<dyn MediaPrompts>,
    /// The family of processors that prepares its media, with what that takes from the configuration.
    pub processor: Value,
}

impl std::fmt::Debug for Vision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vision").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The models that see, by `model_type`, and what they see with where `config.json` says nothing.
const FAMILIES: &[&str] = &[
    "gemma3",
    "idefics3",
    "llava",
    "llava_next",
    "mistral3",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
    "smolvlm",
];

/// Whether `model_type` is that of a model whose decoder is one half of it.
pub(crate) fn is_family(model_type: &str) -> bool {
    FAMILIES.contains(&model_type) || hearing::FAMILIES.contains(&model_type)
}

/// The text half of a configuration that leaves out what is the default of its own class.
pub(crate) fn text_defaults(config: &Map<String, Value>) -> Option<Map<String, Value>> {
    let text = config.get("text_config")?.as_object()?;
    let kind = text.get("model_type").and_then(Value::as_str).unwrap_or("llama");
    let defaults = match kind {
        "llama" => json!({
            "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000,
        }),
        "mistral" => json!({
            "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "vocab_size": 32000,
        }),
        "qwen2" => json!({
            "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        }),
        "gemma3_text" => json!({
            "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        }),
        _ => json!({}),
    };
    let mut merged = defaults.as_object().cloned().unwrap_or_default();
    // what Idefics3's files keep of the model before it, and of its training
    const UNUSED: [&str; 3] = ["neftune_noise_alpha", "perceiver_config", "pixel_shuffle_factor"];
    let used = text.iter().filter(|(key, _)| !UNUSED.contains(&key.as_str()));
    merged.extend(used.map(|(k, v)| (k.clone(), v.clone())));
    Some(merged)
}

/// What the model that `config` describes sees with; `None` for one that reads text alone. Its decoder
/// has rows of `hidden_dim` numbers and adds `text_eps` in its norms.
///
/// # Errors
/// `Format` for a configuration that contradicts itself, `Unsupported` for a value that is not known.
pub fn resolve_vision(
    config: &Value,
    store: &Arc<dyn TensorStore>,
    hidden_dim: usize,
    text_eps: f32,
) -> Result<Option<Vision>> {
    let label = store.label().to_owned();
    let outer = Fields::new(&label, "", config.as_object());
    let Some(family) = outer.text("model_type")?.filter(|name| FAMILIES.contains(name)) else {
        return Ok(None);
    };
    // Gemma 3's text models have the name too
    if outer.value("vision_config").is_none() && matches!(family, "gemma3" | "mistral3") {
        return Ok(None);
    }
    let c = outer.inner("vision_config");
    let found = match family {
        "llava" => llava(&outer, &c, store, hidden_dim, TileLayout::Plain)?,
        "llava_next" => llava(&outer, &c, store, hidden_dim, TileLayout::Unpadded)?,
        "idefics3" | "smolvlm" => idefics3(&outer, &c, store, hidden_dim)?,
        "qwen2_vl" => qwen(&c, store, Qwen::V2, hidden_dim)?,
        "qwen2_5_vl" => qwen(&c, store, Qwen::V25, hidden_dim)?,
        "qwen3_vl" => qwen(&c, store, Qwen::V3, hidden_dim)?,
        "gemma3" => gemma3(&outer, &c, store, hidden_dim)?,
        "mistral3" => mistral3(&outer, &c, store, hidden_dim, text_eps)?,
        other => return Err(Error::internal(format!("family `{other}` has no translation"))),
    };
    Ok(Some(found))
}

fn finish(tower: Tower, layout: Layout, family: &str, settings: Value) -> Vision {
    let mut processor = settings.as_object().cloned().unwrap_or_default();
    processor.insert("family".into(), family.into());
    Vision {
        spec: tower.spec,
        store: Arc::new(tower.names),
        prompts: Arc::new(Prompts::new(layout)),
        processor: Value::Object(processor),
    }
}

/// The first of the prefixes that checkpoints put before a projector's names.
fn find(store: &dyn TensorStore, prefixes: &[&str], probe: &str) -> String {
    let found = prefixes.iter().find(|p| store.tensor(&format!("{p}{probe}")).is_some());
    found.or(prefixes.first()).copied().unwrap_or_default().to_owned()
}

const PROJECTORS: &[&str] = &["multi_modal_projector.", "model.multi_modal_projector."];

/// Which rows of a tower of `layers` blocks `vision_feature_layer` means: states before the first block
/// count too. Blocks behind the last one wanted are left out.
fn feature_layers(outer: &Fields<'_>, tower: &mut Tower, default: i64) -> Result<()> {
    const KEY: &str = "vision_feature_layer";
    let layers = tower.spec.tower.num_layers as i64;
    let one = |i: i64| {
        let index = if i < 0 { i + layers + 1 } else { i };
        // a state before any block would need no tower
        (1..=layers).contains(&index).then_some(index as usize - 1)
    };
    let list = match outer.value(KEY) {
        Some(Value::Array(list)) => list.iter().map(|v| v.as_i64().and_then(one)).collect::<Option<Vec<_>>>(),
        _ => outer.integer(KEY)?.map_or(one(default), one).map(|i| vec![i]),
    };
    let list = list.filter(|list| !list.is_empty()).ok_or_else(|| outer.unsupported(KEY))?;
    if !list.is_sorted_by(|a, b| a < b) {
        return Err(outer.unsupported(KEY));
    }
    tower.spec.tower.num_layers = list.last().map_or(0, |&last| last + 1);
    // features are taken before the last norm
    tower.spec.tower.has_post_norm = false;
    if list.len() > 1 {
        tower.spec.taps = list;
    }
    Ok(())
}

fn llava(
    outer: &Fields<'_>,
    c: &Fields<'_>,
    store: &Arc<dyn TensorStore>,
    hidden_dim: usize,
    tiles: TileLayout,
) -> Result<Vision> {
    let kind = c.text("model_type")?.unwrap_or("clip_vision_model");
    let mut tower = match kind {
        "clip_vision_model" => vision::clip(c, store)?,
        "siglip_vision_model" => vision::siglip(c, store)?,
        "pixtral" => vision::pixtral(c, store)?,
        _ => return Err(c.unsupported("model_type")),
    };
    feature_layers(outer, &mut tower, if kind == "pixtral" { -1 } else { -2 })?;
    let keeps_class = match outer.text("vision_feature_select_strategy")?.unwrap_or("default") {
        "full" => true,
        // SigLIP has no class token, and transformers cuts a patch away all the same
        "default" if tower.spec.has_class_token || kind == "pixtral" => false,
        _ => return Err(outer.unsupported("vision_feature_select_strategy")),
    };
    let activation = outer.activation("projector_hidden_act", "gelu")?;
    let side = c.size("image_size", if kind == "siglip_vision_model" { 224 } else { 336 })?
        / tower.spec.patch_size.max(1);
    let prefix = find(&**store, PROJECTORS, "linear_1.weight");
    for (stem, name) in [("mm.1", "linear_1"), ("mm.2", "linear_2")] {
        tower.names.put(stem, format!("{prefix}{name}"));
    }
    for name in ["image_newline", "model.image_newline"] {
        if store.tensor(name).is_some() {
            tower.names.put("newline", name);
        }
    }
    tower.spec.out_dim = hidden_dim;
    let patch = tower.spec.patch_size;
    if kind == "pixtral" {
        tower.spec.head = VisionHead::Merge { merge: 1, activation, norm_eps: None };
        let settings = json!({ "patch_size": patch, "merge": 1 });
        return Ok(finish(tower, Layout::Mistral3 { merge: 1 }, "pixtral", settings));
    }
    tower.spec.head = VisionHead::Mlp { activation, keeps_class, tiles };
    Ok(match tiles {
        TileLayout::Plain => {
            let rows = side * side + usize::from(keeps_class && tower.spec.has_class_token);
            finish(tower, Layout::Llava { rows }, "clip", json!({}))
        }
        TileLayout::Unpadded => {
            if keeps_class && tower.spec.has_class_token {
                return Err(outer.unsupported("vision_feature_select_strategy"));
            }
            let pinpoints = outer.value("image_grid_pinpoints").cloned().unwrap_or(json!(null));
            let settings = json!({ "image_grid_pinpoints": pinpoints, "side": side });
            finish(tower, Layout::LlavaNext { side }, "llava_next", settings)
        }
    })
}

fn idefics3(
    outer: &Fields<'_>,
    c: &Fields<'_>,
    store: &Arc<dyn TensorStore>,
    hidden_dim: usize,
) -> Result<Vision> {
    let mut tower = vision::idefics3(c, store)?;
    let scale = outer.size("scale_factor", 2)?;
    let image = c.size("image_size", 224)?;
    let side = image / tower.spec.patch_size;
    if !side.is_multiple_of(scale) {
        return Err(outer.fault("scale_factor", format!("is {scale}, which does not divide {side} patches")));
    }
    let prefix = find(&**store, &["model.connector.", "connector."], "modality_projection.proj.weight");
    tower.names.put("mm.1", format!("{prefix}modality_projection.proj"));
    tower.spec.head = VisionHead::PixelShuffle { scale };
    tower.spec.out_dim = hidden_dim;
    let rows = (side / scale) * (side / scale);
    Ok(finish(tower, Layout::Idefics3 { rows }, "idefics3", json!({ "image_size": image })))
}

fn qwen(c: &Fields<'_>, store: &Arc<dyn TensorStore>, version: Qwen, hidden_dim: usize) -> Result<Vision> {
    let tower = vision::qwen(c, store, version, hidden_dim)?;
    let merge = match tower.spec.head {
        VisionHead::Merger { merge, .. } => merge,
        _ => 1,
    };
    let tokens_per_second = match version {
        Qwen::V25 => Some(c.number("tokens_per_second", 4.0)? as f32),
        _ => None,
    };
    let has_timestamps = version == Qwen::V3;
    let settings = json!({
        "patch_size": tower.spec.patch_size,
        "temporal_patch_size": tower.spec.frames,
        "merge_size": merge,
        "has_timestamps": has_timestamps,
    });
    Ok(finish(tower, Layout::Qwen { merge, tokens_per_second, has_timestamps }, "qwen_vl", settings))
}

fn gemma3(
    outer: &Fields<'_>,
    c: &Fields<'_>,
    store: &Arc<dyn TensorStore>,
    hidden_dim: usize,
) -> Result<Vision> {
    let mut tower = vision::siglip(c, store)?;
    let rows = outer.size("mm_tokens_per_image", 256)?;
    let side = rows.isqrt();
    let patches = c.size("image_size", 224)? / tower.spec.patch_size;
    if side * side != rows || side > patches {
        return Err(outer.unsupported("mm_tokens_per_image"));
    }
    let prefix = find(&**store, PROJECTORS, "mm_soft_emb_norm.weight");
    tower.names.put("mm.norm", format!("{prefix}mm_soft_emb_norm"));
    tower.names.put("mm.1.turned", format!("{prefix}mm_input_projection_weight"));
    tower.spec.head = VisionHead::Pool { side, norm_eps: c.number("layer_norm_eps", 1e-6)? as f32 };
    tower.spec.out_dim = hidden_dim;
    Ok(finish(tower, Layout::Gemma3 { rows }, "gemma3", json!({})))
}

fn mistral3(
    outer: &Fields<'_>,
    c: &Fields<'_>,
    store: &Arc<dyn TensorStore>,
    hidden_dim: usize,
    text_eps: f32,
) -> Result<Vision> {
    let mut tower = vision::pixtral(c, store)?;
    feature_layers(outer, &mut tower, -1)?;
    let merge = outer.size("spatial_merge_size", 2)?;
    if !tower.spec.taps.is_empty() {
        return Err(outer.unsupported("vision_feature_layer"));
    }
    let prefix = find(&**store, PROJECTORS, "linear_1.weight");
    let names = [
        ("mm.1", "linear_1"),
        ("mm.2", "linear_2"),
        ("mm.norm", "norm"),
        ("mm.merge", "patch_merger.merging_layer"),
    ];
    for (stem, name) in names {
        tower.names.put(stem, format!("{prefix}{name}"));
    }
    let activation: EncoderActivation = outer.activation("projector_hidden_act", "gelu")?;
    tower.spec.head = VisionHead::Merge { merge, activation, norm_eps: Some(text_eps) };
    tower.spec.out_dim = hidden_dim;
    let settings = json!({ "patch_size": tower.spec.patch_size, "merge": merge });
    Ok(finish(tower, Layout::Mistral3 { merge }, "pixtral", settings))
}

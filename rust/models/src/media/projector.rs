//! Towers in files of their own, as llama.cpp writes them beside a text model (`mmproj`).
//!
//! Keys and names: `tools/mtmd/clip-impl.h` of llama.cpp and `gguf-py/gguf/constants.py`.

use std::sync::Arc;

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{
    EncoderActivation, EncoderNorm, Error, GridPositions, GridRope, MetaArray, Metadata, Result, TileLayout,
    TowerSpec, VisionHead, VisionSpec,
};
use serde_json::{Value, json};

use super::prompts::Layout;
use super::renamed::Renamed;
use super::vision::Tower;
use super::{Vision, finish};

/// The base of Pixtral's and Qwen's rotary embeddings, which no key names.
const THETA: f32 = 10_000.0;

/// Most that a count or a width may be.
const MAX_SIZE: u64 = 1 << 20;

const NAMES: &[(&str, &str)] = &[
    ("patch_embd", "v.patch_embd"),
    ("patch_embd.weight.1", "v.patch_embd.weight.1"),
    ("class_embd", "v.class_embd"),
    ("position_embd", "v.position_embd"),
    ("pre_ln", "v.pre_ln"),
    ("post_ln", "v.post_ln"),
    ("blk.{l}.ln1", "v.blk.{l}.ln1"),
    ("blk.{l}.ln2", "v.blk.{l}.ln2"),
    ("blk.{l}.attn_q", "v.blk.{l}.attn_q"),
    ("blk.{l}.attn_k", "v.blk.{l}.attn_k"),
    ("blk.{l}.attn_v", "v.blk.{l}.attn_v"),
    ("blk.{l}.attn_out", "v.blk.{l}.attn_out"),
    ("blk.{l}.ffn_gate", "v.blk.{l}.ffn_gate"),
    ("blk.{l}.ffn_up", "v.blk.{l}.ffn_up"),
    ("blk.{l}.ffn_down", "v.blk.{l}.ffn_down"),
];

/// A projector's keys.
struct Keys<'a> {
    metadata: &'a Metadata,
    label: &'a str,
}

impl Keys<'_> {
    fn fault(&self, key: &str, fault: impl Into<String>) -> Error {
        Error::format(self.label, format!("key `{key}`"), fault)
    }

    fn unsupported(&self, key: &str, value: impl std::fmt::Display) -> Error {
        Error::unsupported(self.label, format!("key `{key}` = {value}"))
    }

    fn size(&self, key: &str) -> Result<usize> {
        match self.metadata.u64(key) {
            Some(n) if (1..=MAX_SIZE).contains(&n) => Ok(n as usize),
            Some(n) => Err(self.fault(key, format!("is {n}, expected an integer from 1 to {MAX_SIZE}"))),
            None => Err(self.fault(key, "is missing or no integer")),
        }
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.metadata.get(key).is_none() { Ok(default) } else { self.size(key) }
    }

    fn number(&self, key: &str) -> Result<f32> {
        match self.metadata.f64(key) {
            Some(x) if x > 0.0 && (x as f32).is_finite() => Ok(x as f32),
            _ => Err(self.fault(key, "is no number above 0")),
        }
    }

    fn flag(&self, key: &str) -> bool {
        self.metadata.bool(key).unwrap_or(false)
    }

    /// The list of integers at `key`; none where it is missing.
    fn integers(&self, key: &str) -> Result<Vec<usize>> {
        let Some(array) = self.metadata.array(key) else { return Ok(Vec::new()) };
        let list: Option<Vec<usize>> = match array {
            MetaArray::U64(a) => a.iter().map(|&n| usize::try_from(n).ok()).collect(),
            MetaArray::I64(a) => a.iter().map(|&n| usize::try_from(n).ok()).collect(),
            _ => None,
        };
        list.ok_or_else(|| self.fault(key, "is no list of integers"))
    }

    fn triple(&self, key: &str) -> Result<Value> {
        match self.metadata.array(key) {
            Some(MetaArray::F32(a)) if a.len() == 3 && a.iter().all(|x| x.is_finite()) => {
                Ok(json!(a.to_vec()))
            }
            _ => Err(self.fault(key, "is no list of three numbers")),
        }
    }
}

/// What the projector in `store`, described by `metadata`, sees for a decoder of `hidden_dim`, whose
/// norms add `text_eps`.
///
/// # Errors
/// `Format` for a file that contradicts itself or does not fit the decoder, `Unsupported` for a kind
/// that is not known.
pub fn resolve_projector(
    metadata: &Metadata,
    store: &Arc<dyn TensorStore>,
    hidden_dim: usize,
    text_eps: f32,
) -> Result<Vision> {
    let label = store.label().to_owned();
    let k = Keys { metadata, label: &label };
    if metadata.str("general.architecture") != Some("clip") {
        return Err(k.unsupported("general.architecture", metadata.str("general.architecture").unwrap_or("")));
    }
    if !k.flag("clip.has_vision_encoder") {
        return Err(Error::unsupported(&label, "a projector that does not see"));
    }
    let kind = metadata
        .str("clip.vision.projector_type")
        .or_else(|| metadata.str("clip.projector_type"))
        .unwrap_or("mlp");
    if let Some(dim) = metadata.u64("clip.vision.projection_dim")
        && dim != hidden_dim as u64
        && !matches!(kind, "mlp" | "qwen2vl_merger" | "qwen2.5vl_merger")
    {
        return Err(
            k.fault("clip.vision.projection_dim", format!("is {dim}, the decoder's width {hidden_dim}"))
        );
    }
    let mut tower = base(&k, store)?;
    tower.spec.out_dim = hidden_dim;
    let settings = preprocessing(&k)?;
    match kind {
        "mlp" => mlp(&k, tower, settings),
        "idefics3" => idefics3(&k, tower, settings),
        "qwen2vl_merger" | "qwen2.5vl_merger" | "qwen3vl_merger" => qwen(&k, tower, settings, kind),
        "gemma3" => gemma3(&k, tower, settings),
        "pixtral" => pixtral(&k, tower, settings, text_eps),
        other => Err(k.unsupported("clip.projector_type", other)),
    }
}

/// The settings that all kinds have, as the file of a processor.
fn preprocessing(k: &Keys<'_>) -> Result<Value> {
    Ok(json!({
        "image_mean": k.triple("clip.vision.image_mean")?,
        "image_std": k.triple("clip.vision.image_std")?,
    }))
}

/// `settings` with `more`, as what a processor of `family` is given.
fn with(settings: Value, more: Value, own: Value) -> Value {
    let mut file = settings;
    if let (Some(file), Value::Object(more)) = (file.as_object_mut(), more) {
        file.extend(more);
    }
    let mut all = own;
    all["files"] = json!({ "preprocessor_config.json": file });
    all
}

/// What all kinds share: sizes, names, which tensors there are.
fn base(k: &Keys<'_>, store: &Arc<dyn TensorStore>) -> Result<Tower> {
    let layers = k.size("clip.vision.block_count")?;
    let width = k.size("clip.vision.embedding_length")?;
    let heads = k.size("clip.vision.attention.head_count")?;
    let (image, patch) = (k.size_or("clip.vision.image_size", 0)?, k.size("clip.vision.patch_size")?);
    if !width.is_multiple_of(heads) {
        return Err(k.fault("clip.vision.attention.head_count", format!("is {heads}, the width {width}")));
    }
    if layers > store.names().len() {
        return Err(k.fault("clip.vision.block_count", format!("is {layers}, more than there are tensors")));
    }
    let mut names = Renamed::new(Arc::clone(store));
    names.put_all("", layers, NAMES);
    if store.tensor("v.blk.0.attn_qkv.weight").is_some() {
        for i in 0..layers {
            for (part, stem) in ["attn_q", "attn_k", "attn_v"].into_iter().enumerate() {
                names.put_part(format!("blk.{i}.{stem}"), format!("v.blk.{i}.attn_qkv"), part, 3);
            }
        }
    }
    let ff_dim = k.size("clip.vision.feed_forward_length")?;
    // early files call the two products of an MLP by each other's names
    let up_rows = store.tensor("v.blk.0.ffn_up.weight").and_then(|t| t.shape.first().copied());
    if up_rows == Some(width) && ff_dim != width {
        for i in 0..layers {
            names.put(format!("blk.{i}.ffn_up"), format!("v.blk.{i}.ffn_down"));
            names.put(format!("blk.{i}.ffn_down"), format!("v.blk.{i}.ffn_up"));
        }
    }
    let has = |name: &str| names.has(name);
    let activation = if k.flag("clip.use_gelu") {
        EncoderActivation::GeluTanh
    } else if k.flag("clip.use_silu") {
        EncoderActivation::Silu
    } else {
        EncoderActivation::QuickGelu
    };
    let tower = TowerSpec {
        num_layers: layers,
        width,
        num_heads: heads,
        head_dim: width / heads,
        ff_dim,
        norm: if has("blk.0.ln1.bias") { EncoderNorm::Layer } else { EncoderNorm::Rms },
        norm_eps: k.number("clip.vision.attention.layer_norm_epsilon")?,
        is_post_norm: false,
        activation,
        is_gated: has("blk.0.ffn_gate.weight"),
        is_causal: false,
        rope: None,
        has_bias: [has("blk.0.attn_q.bias"), has("blk.0.ffn_up.bias")],
        has_layer_scale: false,
        has_pre_norm: has("pre_ln.weight"),
        has_post_norm: has("post_ln.weight"),
    };
    let side = image / patch;
    let spec = VisionSpec {
        patch_size: patch,
        frames: 1,
        has_patch_bias: has("patch_embd.bias"),
        has_class_token: has("class_embd"),
        positions: if has("position_embd.weight") {
            GridPositions::Table { side }
        } else {
            GridPositions::None
        },
        tower,
        taps: Vec::new(),
        windows: Vec::new(),
        head: VisionHead::AttentionPool,
        out_dim: width,
    };
    Ok(Tower { spec, names, prefix: String::new() })
}

fn side(tower: &Tower) -> usize {
    match tower.spec.positions {
        GridPositions::Table { side }
        | GridPositions::Buckets { side }
        | GridPositions::Bilinear { side } => side,
        _ => 0,
    }
}

/// LLaVA: states before the last block.
fn mlp(k: &Keys<'_>, mut tower: Tower, settings: Value) -> Result<Vision> {
    if !k.integers("clip.vision.feature_layer")?.is_empty() {
        return Err(k.unsupported("clip.vision.feature_layer", "a list"));
    }
    for (stem, name) in [("mm.1", "mm.0"), ("mm.2", "mm.2"), ("newline", "model.image_newline")] {
        tower.names.put(stem, name);
    }
    let layers = tower.spec.tower.num_layers;
    if layers < 2 {
        return Err(k.fault("clip.vision.block_count", "is less than 2"));
    }
    tower.spec.tower.num_layers = layers - 1;
    let pinpoints = k.integers("clip.vision.image_grid_pinpoints")?;
    let side = side(&tower);
    let edge = side * tower.spec.patch_size;
    let is_next = k.metadata.str("clip.vision.mm_patch_merge_type") == Some("spatial_unpad");
    let tiles = if is_next && tower.names.has("newline") { TileLayout::Unpadded } else { TileLayout::Plain };
    tower.spec.head = VisionHead::Mlp { activation: EncoderActivation::Gelu, keeps_class: false, tiles };
    let more = json!({
        "size": { "shortest_edge": edge }, "crop_size": { "height": edge, "width": edge },
        "do_center_crop": true, "resample": 3,
    });
    if tiles == TileLayout::Unpadded {
        let pairs: Vec<[usize; 2]> = pinpoints.chunks_exact(2).map(|p| [p[1], p[0]]).collect();
        let own = json!({ "image_grid_pinpoints": pairs, "side": side });
        return Ok(finish(tower, Layout::LlavaNext { side }, "llava_next", with(settings, more, own)));
    }
    let layout = Layout::Llava { rows: side * side };
    Ok(finish(tower, layout, "clip", with(settings, more, json!({}))))
}

fn idefics3(k: &Keys<'_>, mut tower: Tower, settings: Value) -> Result<Vision> {
    let scale = k.size("clip.vision.projector.scale_factor")?;
    let side = side(&tower);
    if !side.is_multiple_of(scale) {
        return Err(k.unsupported("clip.vision.projector.scale_factor", scale));
    }
    tower.names.put("mm.1", "mm.model.fc");
    tower.spec.positions = GridPositions::Buckets { side };
    tower.spec.head = VisionHead::PixelShuffle { scale };
    let edge = side * tower.spec.patch_size;
    let longest = k.size_or("clip.vision.preproc_image_size", 4 * edge)?;
    let more = json!({
        "size": { "longest_edge": longest }, "max_image_size": { "longest_edge": edge }, "resample": 1,
    });
    let rows = (side / scale) * (side / scale);
    Ok(finish(
        tower,
        Layout::Idefics3 { rows },
        "idefics3",
        with(settings, more, json!({ "image_size": edge })),
    ))
}

fn qwen(k: &Keys<'_>, mut tower: Tower, settings: Value, kind: &str) -> Result<Vision> {
    let is_v3 = kind == "qwen3vl_merger";
    let merge = k.size_or("clip.vision.spatial_merge_size", 2)?;
    let layers = tower.spec.tower.num_layers;
    let mut deepstack = Vec::new();
    if is_v3 {
        if let Some(MetaArray::Bool(flags)) = k.metadata.array("clip.vision.is_deepstack_layers") {
            deepstack = flags.iter().enumerate().filter(|(_, on)| **on).map(|(i, _)| i).collect();
        }
        if deepstack.iter().any(|&i| i >= layers) {
            return Err(k.fault("clip.vision.is_deepstack_layers", "names a block that is not there"));
        }
        for (i, layer) in deepstack.iter().enumerate() {
            for (stem, name) in [("norm", "norm"), ("1", "fc1"), ("2", "fc2")] {
                tower.names.put(format!("deep.{i}.{stem}"), format!("v.deepstack.{layer}.{name}"));
            }
        }
        let side = side(&tower);
        tower.spec.positions = GridPositions::Bilinear { side };
    }
    // the merger's norm is called the last one
    tower.names.put("mm.norm", "v.post_ln");
    tower.names.put("mm.1", "mm.0");
    tower.names.put("mm.2", "mm.2");
    let norm = if tower.names.has("mm.norm.bias") { EncoderNorm::Layer } else { EncoderNorm::Rms };
    let spec = &mut tower.spec;
    (spec.tower.has_pre_norm, spec.tower.has_post_norm) = (false, false);
    spec.tower.rope = Some(GridRope::Halves { theta: THETA });
    spec.frames = if tower.names.has("patch_embd.weight.1") { 2 } else { 1 };
    if spec.frames != 2 {
        return Err(Error::unsupported(k.label, "a projector of Qwen-VL without two frames in a patch"));
    }
    if kind == "qwen2.5vl_merger" {
        let window = k.size_or("clip.vision.window_size", 112)?;
        let edge = window / merge / spec.patch_size;
        let indexes = k.integers("clip.vision.wa_layer_indexes")?;
        let pattern = k.size_or("clip.vision.n_wa_pattern", 8)?;
        let is_whole = |i: usize| match indexes.is_empty() {
            true => (i + 1).is_multiple_of(pattern),
            false => indexes.contains(&i),
        };
        if edge == 0 {
            return Err(k.fault("clip.vision.window_size", "is smaller than what is merged"));
        }
        spec.windows = (0..layers).map(|i| (!is_whole(i)).then_some(edge)).collect();
    }
    spec.head = VisionHead::Merger { merge, norm, deepstack };
    let patch = spec.patch_size;
    let unit = patch * merge * patch * merge;
    let more = json!({
        "size": {
            "shortest_edge": k.size_or("clip.vision.image_min_pixels", 4 * unit)?,
            "longest_edge": k.size_or("clip.vision.image_max_pixels", 1280 * unit)?,
        },
        "resample": 3,
    });
    let own = json!({
        "patch_size": patch, "temporal_patch_size": 2, "merge_size": merge, "has_timestamps": is_v3,
    });
    let tokens_per_second = (kind == "qwen2.5vl_merger").then_some(2.0);
    let layout = Layout::Qwen { merge, tokens_per_second, has_timestamps: is_v3 };
    Ok(finish(tower, layout, "qwen_vl", with(settings, more, own)))
}

fn gemma3(k: &Keys<'_>, mut tower: Tower, settings: Value) -> Result<Vision> {
    let patches = side(&tower);
    let factor = k.size_or("clip.vision.projector.scale_factor", 4)?;
    let rows = patches / factor;
    if rows == 0 {
        return Err(k.unsupported("clip.vision.projector.scale_factor", factor));
    }
    // the file has the norm's one added, and the product turned back by how it is multiplied
    tower.names.put("mm.norm", "mm.soft_emb_norm");
    tower.names.put("mm.1.stored", "mm.input_projection.weight");
    let norm_eps = tower.spec.tower.norm_eps;
    tower.spec.head = VisionHead::Pool { side: rows, norm_eps };
    let edge = patches * tower.spec.patch_size;
    let more = json!({ "size": { "height": edge, "width": edge }, "resample": 2 });
    let layout = Layout::Gemma3 { rows: rows * rows };
    Ok(finish(tower, layout, "gemma3", with(settings, more, json!({}))))
}

fn pixtral(k: &Keys<'_>, mut tower: Tower, settings: Value, text_eps: f32) -> Result<Vision> {
    let merge = k.size_or("clip.vision.spatial_merge_size", 1)?;
    for (stem, name) in
        [("mm.1", "mm.1"), ("mm.2", "mm.2"), ("mm.norm", "mm.input_norm"), ("mm.merge", "mm.patch_merger")]
    {
        tower.names.put(stem, name);
    }
    let norm_eps = tower.names.has("mm.merge.weight").then_some(text_eps);
    let spec = &mut tower.spec;
    spec.positions = GridPositions::None;
    spec.tower.rope = Some(GridRope::Paired { theta: THETA });
    spec.tower.has_post_norm = false;
    spec.head = VisionHead::Merge { merge, activation: EncoderActivation::Gelu, norm_eps };
    let patch = spec.patch_size;
    let edge = k.size("clip.vision.image_size")?;
    let more = json!({ "size": { "longest_edge": edge }, "patch_size": patch * merge, "resample": 3 });
    let own = json!({ "patch_size": patch, "merge": merge });
    Ok(finish(tower, Layout::Mistral3 { merge }, "pixtral", with(settings, more, own)))
}

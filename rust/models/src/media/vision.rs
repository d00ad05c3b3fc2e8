//! Encoders of pictures: configurations and names of each kind.

use std::sync::Arc;

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{
    EncoderActivation, EncoderNorm, GridPositions, GridRope, Result, TowerSpec, VisionHead, VisionSpec,
};

use super::fields::Fields;
use super::renamed::Renamed;

/// A tower, and its tensors under the names that encoders ask for.
pub(super) struct Tower {
    pub(super) spec: VisionSpec,
    pub(super) names: Renamed,
    /// What stands before the names of the tower in the file.
    pub(super) prefix: String,
}

/// The names of CLIP's blocks, which SigLIP and Idefics3 share.
const CLIP: &[(&str, &str)] = &[
    ("patch_embd", "embeddings.patch_embedding"),
    ("class_embd", "embeddings.class_embedding"),
    ("position_embd", "embeddings.position_embedding"),
    ("post_ln", "post_layernorm"),
    ("blk.{l}.ln1", "encoder.layers.{l}.layer_norm1"),
    ("blk.{l}.ln2", "encoder.layers.{l}.layer_norm2"),
    ("blk.{l}.attn_q", "encoder.layers.{l}.self_attn.q_proj"),
    ("blk.{l}.attn_k", "encoder.layers.{l}.self_attn.k_proj"),
    ("blk.{l}.attn_v", "encoder.layers.{l}.self_attn.v_proj"),
    ("blk.{l}.attn_out", "encoder.layers.{l}.self_attn.out_proj"),
    ("blk.{l}.ffn_up", "encoder.layers.{l}.mlp.fc1"),
    ("blk.{l}.ffn_down", "encoder.layers.{l}.mlp.fc2"),
];

const PIXTRAL: &[(&str, &str)] = &[
    ("patch_embd", "patch_conv"),
    ("pre_ln", "ln_pre"),
    ("blk.{l}.ln1", "transformer.layers.{l}.attention_norm"),
    ("blk.{l}.ln2", "transformer.layers.{l}.ffn_norm"),
    ("blk.{l}.attn_q", "transformer.layers.{l}.attention.q_proj"),
    ("blk.{l}.attn_k", "transformer.layers.{l}.attention.k_proj"),
    ("blk.{l}.attn_v", "transformer.layers.{l}.attention.v_proj"),
    ("blk.{l}.attn_out", "transformer.layers.{l}.attention.o_proj"),
    ("blk.{l}.ffn_gate", "transformer.layers.{l}.feed_forward.gate_proj"),
    ("blk.{l}.ffn_up", "transformer.layers.{l}.feed_forward.up_proj"),
    ("blk.{l}.ffn_down", "transformer.layers.{l}.feed_forward.down_proj"),
];

const QWEN: &[(&str, &str)] = &[
    ("patch_embd", "patch_embed.proj"),
    ("position_embd", "pos_embed"),
    ("blk.{l}.ln1", "blocks.{l}.norm1"),
    ("blk.{l}.ln2", "blocks.{l}.norm2"),
    ("blk.{l}.attn_out", "blocks.{l}.attn.proj"),
];

const VIT: &[(&str, &str)] = &[
    ("patch_embd", "embeddings.patch_embeddings.projection"),
    ("class_embd", "embeddings.cls_token"),
    ("position_embd.weight", "embeddings.position_embeddings"),
    ("post_ln", "layernorm"),
    ("blk.{l}.attn_q", "encoder.layer.{l}.attention.attention.query"),
    ("blk.{l}.attn_k", "encoder.layer.{l}.attention.attention.key"),
    ("blk.{l}.attn_v", "encoder.layer.{l}.attention.attention.value"),
    ("blk.{l}.attn_out", "encoder.layer.{l}.attention.output.dense"),
];

/// The first of `prefixes` behind which the file has `probe`.
fn find_prefix(store: &dyn TensorStore, prefixes: &[&str], probe: &str) -> String {
    let found = prefixes.iter().find(|p| store.tensor(&format!("{p}{probe}")).is_some());
    found.or(prefixes.first()).copied().unwrap_or_default().to_owned()
}

/// What the kinds have in common, from the keys that most of them spell alike.
struct Sizes {
    layers: usize,
    width: usize,
    heads: usize,
    ff_dim: usize,
    image: usize,
    patch: usize,
    eps: f32,
}

impl Sizes {
    fn read(c: &Fields<'_>, of: [usize; 6], eps: f64) -> Result<Self> {
        let [width, ff_dim, layers, heads, image, patch] = of;
        c.require("num_channels", 3)?;
        let sizes = Self {
            layers: c.size("num_hidden_layers", layers)?,
            width: c.size("hidden_size", width)?,
            heads: c.size("num_attention_heads", heads)?,
            ff_dim: c.size("intermediate_size", ff_dim)?,
            image: c.size("image_size", image)?,
            patch: c.size("patch_size", patch)?,
            eps: c.number("layer_norm_eps", eps)? as f32,
        };
        if !sizes.width.is_multiple_of(sizes.heads) {
            let fault = format!("is {}, which does not divide the width {}", sizes.heads, sizes.width);
            return Err(c.fault("num_attention_heads", fault));
        }
        if sizes.image < sizes.patch {
            return Err(c.fault("patch_size", format!("is {}, larger than a picture", sizes.patch)));
        }
        Ok(sizes)
    }

    fn side(&self) -> usize {
        self.image / self.patch
    }

    fn tower(&self, activation: EncoderActivation) -> TowerSpec {
        TowerSpec {
            num_layers: self.layers,
            width: self.width,
            num_heads: self.heads,
            head_dim: self.width / self.heads,
            ff_dim: self.ff_dim,
            norm: EncoderNorm::Layer,
            norm_eps: self.eps,
            is_post_norm: false,
            activation,
            is_gated: false,
            is_causal: false,
            rope: None,
            has_bias: [true, true],
            has_layer_scale: false,
            has_pre_norm: false,
            has_post_norm: true,
        }
    }

    fn spec(&self, tower: TowerSpec, positions: GridPositions, head: VisionHead) -> VisionSpec {
        VisionSpec {
            patch_size: self.patch,
            frames: 1,
            has_patch_bias: true,
            has_class_token: false,
            positions,
            tower,
            taps: Vec::new(),
            windows: Vec::new(),
            head,
            out_dim: self.width,
        }
    }
}

/// A head that is put in later.
const NO_HEAD: VisionHead = VisionHead::Class { has_projection: false, has_bias: false, dim: 0 };

/// CLIP's tower.
pub(super) fn clip(c: &Fields<'_>, store: &Arc<dyn TensorStore>) -> Result<Tower> {
    let sizes = Sizes::read(c, [768, 3072, 12, 12, 224, 32], 1e-5)?;
    let tower = TowerSpec { has_pre_norm: true, ..sizes.tower(c.activation("hidden_act", "quick_gelu")?) };
    let mut spec = sizes.spec(tower, GridPositions::Table { side: sizes.side() }, NO_HEAD);
    (spec.has_class_token, spec.has_patch_bias) = (true, false);
    let prefix = find_prefix(&**store, PREFIXES, "embeddings.patch_embedding.weight");
    let mut names = Renamed::new(Arc::clone(store));
    names.put_all(&prefix, sizes.layers, CLIP);
    // transformers' own spelling, and a correct one
    names.put("pre_ln", format!("{prefix}pre_layrnorm"));
    if !names.has("pre_ln.weight") {
        names.put("pre_ln", format!("{prefix}pre_layernorm"));
    }
    Ok(Tower { spec, names, prefix })
}

/// Where checkpoints put a tower that CLIP's names are used in.
const PREFIXES: &[&str] = &[
    "vision_tower.vision_model.",
    "model.vision_tower.vision_model.",
    "model.vision_model.",
    "vision_model.",
    "model.vision_tower.",
    "vision_tower.",
    "",
];

/// SigLIP's tower.
pub(super) fn siglip(c: &Fields<'_>, store: &Arc<dyn TensorStore>) -> Result<Tower> {
    let sizes = Sizes::read(c, [768, 3072, 12, 12, 224, 16], 1e-6)?;
    let tower = sizes.tower(c.activation("hidden_act", "gelu_pytorch_tanh")?);
    let spec = sizes.spec(tower, GridPositions::Table { side: sizes.side() }, NO_HEAD);
    let prefix = find_prefix(&**store, PREFIXES, "embeddings.patch_embedding.weight");
    let mut names = Renamed::new(Arc::clone(store));
    names.put_all(&prefix, sizes.layers, CLIP);
    Ok(Tower { spec, names, prefix })
}

/// The tower of Idefics3 and SmolVLM: SigLIP's, for pictures of other shapes.
pub(super) fn idefics3(c: &Fields<'_>, store: &Arc<dyn TensorStore>) -> Result<Tower> {
    let sizes = Sizes::read(c, [1152, 3072, 12, 16, 224, 32], 1e-6)?;
    let tower = sizes.tower(c.activation("hidden_act", "gelu_pytorch_tanh")?);
    let spec = sizes.spec(tower, GridPositions::Buckets { side: sizes.side() }, NO_HEAD);
    let prefix = find_prefix(&**store, PREFIXES, "embeddings.patch_embedding.weight");
    let mut names = Renamed::new(Arc::clone(store));
    names.put_all(&prefix, sizes.layers, CLIP);
    Ok(Tower { spec, names, prefix })
}

/// Pixtral's tower.
pub(super) fn pixtral(c: &Fields<'_>, store: &Arc<dyn TensorStore>) -> Result<Tower> {
    let sizes = Sizes::read(c, [1024, 4096, 24, 16, 1024, 16], 1e-5)?;
    let head_dim = c.size("head_dim", sizes.width / sizes.heads)?;
    if !head_dim.is_multiple_of(4) {
        return Err(c.unsupported("head_dim"));
    }
    let tower = TowerSpec {
        head_dim,
        norm: EncoderNorm::Rms,
        norm_eps: 1e-5,
        is_gated: true,
        rope: Some(GridRope::EvenOdd { theta: c.rope_theta(10_000.0)? }),
        has_bias: [false, false],
        has_pre_norm: true,
        has_post_norm: false,
        ..sizes.tower(c.activation("hidden_act", "gelu")?)
    };
    let mut spec = sizes.spec(tower, GridPositions::None, NO_HEAD);
    spec.has_patch_bias = false;
    let prefix = find_prefix(&**store, PREFIXES, "patch_conv.weight");
    let mut names = Renamed::new(Arc::clone(store));
    names.put_all(&prefix, sizes.layers, PIXTRAL);
    Ok(Tower { spec, names, prefix })
}

/// Which of Qwen's vision-language models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Qwen {
    V2,
    V25,
    V3,
}

/// The tower of Qwen2-VL, Qwen2.5-VL or Qwen3-VL, with its merger.
pub(super) fn qwen(
    c: &Fields<'_>,
    store: &Arc<dyn TensorStore>,
    version: Qwen,
    hidden_dim: usize,
) -> Result<Tower> {
    for key in ["in_channels", "in_chans"] {
        c.require(key, 3)?;
    }
    let layers = c.size("depth", if version == Qwen::V3 { 27 } else { 32 })?;
    let heads = c.size("num_heads", 16)?;
    let merge = c.size("spatial_merge_size", 2)?;
    let width = match version {
        Qwen::V2 => c.size("embed_dim", 1280)?,
        Qwen::V25 => c.size("hidden_size", 3584)?,
        Qwen::V3 => c.size("hidden_size", 1152)?,
    };
    if !width.is_multiple_of(heads) || !(width / heads).is_multiple_of(4) {
        return Err(c.fault("num_heads", format!("is {heads}, which does not fit the width {width}")));
    }
    let (activation, ff_dim, norm) = match version {
        Qwen::V2 => {
            let ratio = c.number("mlp_ratio", 4.0)?;
            ("quick_gelu", (width as f64 * ratio) as usize, EncoderNorm::Layer)
        }
        Qwen::V25 => ("silu", c.size("intermediate_size", 3420)?, EncoderNorm::Rms),
        Qwen::V3 => ("gelu_pytorch_tanh", c.size("intermediate_size", 4304)?, EncoderNorm::Layer),
    };
    let patch_size =
        c.size_of(&["patch_size", "spatial_patch_size"], if version == Qwen::V3 { 16 } else { 14 })?;
    let mut windows = Vec::new();
    if version == Qwen::V25 {
        let whole = c.indices("fullatt_block_indexes", &[7, 15, 23, 31], usize::MAX)?;
        let edge = c.size("window_size", 112)? / merge / patch_size;
        if edge == 0 {
            return Err(c.fault("window_size", "is smaller than what is merged"));
        }
        windows = (0..layers).map(|i| (!whole.contains(&i)).then_some(edge)).collect();
    }
    let deepstack = match version {
        Qwen::V3 => c.indices("deepstack_visual_indexes", &[8, 16, 24], layers)?,
        _ => Vec::new(),
    };
    if !deepstack.is_sorted_by(|a, b| a < b) {
        return Err(c.unsupported("deepstack_visual_indexes"));
    }
    let positions = match version {
        Qwen::V3 => GridPositions::Bilinear { side: c.size("num_position_embeddings", 2304)?.isqrt() },
        _ => GridPositions::None,
    };
    let prefix = find_prefix(&**store, &["visual.", "model.visual."], "patch_embed.proj.weight");
    let mut names = Renamed::new(Arc::clone(store));
    names.put_all(&prefix, layers, QWEN);
    let mlp: &[(&str, &str)] = match version {
        Qwen::V2 => &[("ffn_up", "fc1"), ("ffn_down", "fc2")],
        Qwen::V25 => &[("ffn_gate", "gate_proj"), ("ffn_up", "up_proj"), ("ffn_down", "down_proj")],
        Qwen::V3 => &[("ffn_up", "linear_fc1"), ("ffn_down", "linear_fc2")],
    };
    for i in 0..layers {
        for (part, stem) in ["attn_q", "attn_k", "attn_v"].into_iter().enumerate() {
            names.put_part(format!("blk.{i}.{stem}"), format!("{prefix}blocks.{i}.attn.qkv"), part, 3);
        }
        for (stem, name) in mlp {
            names.put(format!("blk.{i}.{stem}"), format!("{prefix}blocks.{i}.mlp.{name}"));
        }
    }
    let merger: [(&str, &str); 3] = match version {
        Qwen::V3 => [("norm", "norm"), ("1", "linear_fc1"), ("2", "linear_fc2")],
        _ => [("norm", "ln_q"), ("1", "mlp.0"), ("2", "mlp.2")],
    };
    for (stem, name) in merger {
        names.put(format!("mm.{stem}"), format!("{prefix}merger.{name}"));
        for i in 0..deepstack.len() {
            names.put(format!("deep.{i}.{stem}"), format!("{prefix}deepstack_merger_list.{i}.{name}"));
        }
    }
    let tower = TowerSpec {
        num_layers: layers,
        width,
        num_heads: heads,
        head_dim: width / heads,
        ff_dim,
        norm,
        norm_eps: 1e-6,
        is_post_norm: false,
        activation: c.activation("hidden_act", activation)?,
        is_gated: version == Qwen::V25,
        is_causal: false,
        rope: Some(GridRope::Halves { theta: c.rope_theta(10_000.0)? }),
        has_bias: [true, true],
        has_layer_scale: false,
        has_pre_norm: false,
        has_post_norm: false,
    };
    let spec = VisionSpec {
        patch_size,
        frames: c.size("temporal_patch_size", 2)?,
        has_patch_bias: version == Qwen::V3,
        has_class_token: false,
        positions,
        tower,
        taps: Vec::new(),
        windows,
        head: VisionHead::Merger { merge, norm, deepstack },
        out_dim: hidden_dim,
    };
    Ok(Tower { spec, names, prefix })
}

/// ViT's tower, or DINOv2's where `is_dino`.
pub(super) fn vit(c: &Fields<'_>, store: &Arc<dyn TensorStore>, is_dino: bool) -> Result<Tower> {
    let mut sizes = match is_dino {
        false => Sizes::read(c, [768, 3072, 12, 12, 224, 16], 1e-12)?,
        true => Sizes::read(c, [768, 3072, 12, 12, 224, 14], 1e-6)?,
    };
    let mut positions = GridPositions::Table { side: sizes.side() };
    if is_dino {
        if c.flag("use_swiglu_ffn", false)? {
            return Err(c.unsupported("use_swiglu_ffn"));
        }
        sizes.ff_dim = (sizes.width as f64 * c.number("mlp_ratio", 4.0)?) as usize;
        positions = GridPositions::Bicubic { side: sizes.side() };
    }
    if !c.flag("qkv_bias", true)? {
        return Err(c.unsupported("qkv_bias"));
    }
    let tower = TowerSpec { has_layer_scale: is_dino, ..sizes.tower(c.activation("hidden_act", "gelu")?) };
    let head = VisionHead::Class { has_projection: false, has_bias: false, dim: sizes.width };
    let mut spec = sizes.spec(tower, positions, head);
    spec.has_class_token = true;
    let prefixes = ["vit.", "dinov2.", "model.", ""];
    let prefix = find_prefix(&**store, &prefixes, "embeddings.patch_embeddings.projection.weight");
    let mut names = Renamed::new(Arc::clone(store));
    names.put_all(&prefix, sizes.layers, VIT);
    let blocks: &[(&str, &str)] = match is_dino {
        true => &[
            ("blk.{l}.ln1", "encoder.layer.{l}.norm1"),
            ("blk.{l}.ln2", "encoder.layer.{l}.norm2"),
            ("blk.{l}.ffn_up", "encoder.layer.{l}.mlp.fc1"),
            ("blk.{l}.ffn_down", "encoder.layer.{l}.mlp.fc2"),
            ("blk.{l}.ls1", "encoder.layer.{l}.layer_scale1.lambda1"),
            ("blk.{l}.ls2", "encoder.layer.{l}.layer_scale2.lambda1"),
        ],
        false => &[
            ("blk.{l}.ln1", "encoder.layer.{l}.layernorm_before"),
            ("blk.{l}.ln2", "encoder.layer.{l}.layernorm_after"),
            ("blk.{l}.ffn_up", "encoder.layer.{l}.intermediate.dense"),
            ("blk.{l}.ffn_down", "encoder.layer.{l}.output.dense"),
        ],
    };
    names.put_all(&prefix, sizes.layers, blocks);
    Ok(Tower { spec, names, prefix })
}

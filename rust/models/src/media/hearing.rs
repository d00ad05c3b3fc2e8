//! What text models hear with: an encoder of Whisper's kind, a head that makes the decoder's rows of its
//! own, and what placeholders for sounds become.

use std::sync::Arc;

use alloyforge_interfaces::{MediaPrompts, TensorStore};
use alloyforge_types::{
    Error, MediaItem, MediaKind, MediaPositions, MediaSpan, Metadata, PromptPiece, Result, SOUND_HOP,
    SOUND_RATE, SoundHead, SoundPieces, SoundSpec,
};
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::find;
use super::renamed::Renamed;
use crate::whisper::{AudioTower, audio_tower};

/// What a text model hears with.
pub struct Hearing {
    /// The encoder's layers.
    pub tower: AudioTower,
    /// How its rows become the decoder's.
    pub spec: SoundSpec,
    /// The tensors of both, under the names that they are asked for.
    pub store: Arc<dyn TensorStore>,
    /// How prompts hold sounds.
    pub prompts: Arc<dyn MediaPrompts>,
    /// The family of processors that prepares sounds.
    pub processor: Value,
}

impl std::fmt::Debug for Hearing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hearing").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The models that hear, by `model_type`.
pub(super) const FAMILIES: &[&str] = &["qwen2_audio", "ultravox"];

/// What the tensors of an encoder are called by Hugging Face and by llama.cpp.
const NAMES: &[(&str, &str)] = &[
    ("conv1", "a.conv1d.1"),
    ("conv2", "a.conv1d.2"),
    ("embed_positions", "a.position_embd"),
    ("layer_norm", "a.post_ln"),
    ("layers.{l}.self_attn_layer_norm", "a.blk.{l}.ln1"),
    ("layers.{l}.self_attn.q_proj", "a.blk.{l}.attn_q"),
    ("layers.{l}.self_attn.k_proj", "a.blk.{l}.attn_k"),
    ("layers.{l}.self_attn.v_proj", "a.blk.{l}.attn_v"),
    ("layers.{l}.self_attn.out_proj", "a.blk.{l}.attn_out"),
    ("layers.{l}.final_layer_norm", "a.blk.{l}.ln2"),
    ("layers.{l}.fc1", "a.blk.{l}.ffn_up"),
    ("layers.{l}.fc2", "a.blk.{l}.ffn_down"),
];

/// What an encoder's tensors begin with once they are renamed.
const PREFIX: &str = "audio";

/// What both of Ultravox's norms add; no key says it.
const STACK_EPS: f32 = 1e-6;

/// Whether the model that `config` describes hears, and its text half is not in its files.
pub(crate) fn lacks_text(config: &Map<String, Value>, store: &dyn TensorStore) -> Option<Error> {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    if text("model_type") != Some("ultravox") || store.names().iter().any(|n| n.contains("embed_tokens")) {
        return None;
    }
    let name = text("text_model_id").unwrap_or("a text model");
    Some(Error::unsupported(store.label(), format!("a projector without its text model, `{name}`")))
}

/// What the model that `config` describes hears with; `None` for one that does not hear. `files` are
/// those that describe its processor, by name; its decoder has rows of `hidden_dim` numbers.
///
/// # Errors
/// `Format` for a configuration that contradicts itself, `Unsupported` for a value that is not known.
pub fn resolve_hearing(
    config: &Value,
    files: &Map<String, Value>,
    store: &Arc<dyn TensorStore>,
    hidden_dim: usize,
) -> Result<Option<Hearing>> {
    let label = store.label().to_owned();
    let outer = Fields::new(&label, "", config.as_object());
    let Some(family) = outer.text("model_type")?.filter(|name| FAMILIES.contains(name)) else {
        return Ok(None);
    };
    let audio = audio_config(&outer, family)?;
    let c = Fields::new(&label, "audio_config", Some(&audio));
    let layers = c.size("encoder_layers", 1)?;
    if layers > store.names().len() {
        return Err(c.fault("encoder_layers", format!("is {layers}, more than there are tensors")));
    }
    let mut names = Renamed::new(Arc::clone(store));
    let tower = find(&**store, &["audio_tower.", "model.audio_tower."], "conv1.weight");
    put_tower(&mut names, layers, |name, _| format!("{tower}{name}"));
    let projector = find(&**store, super::PROJECTORS, "linear_1.weight");
    let (pieces, head) = match family {
        "qwen2_audio" => {
            let projector = find(&**store, super::PROJECTORS, "linear.weight");
            names.put("head.1", format!("{projector}linear"));
            (SoundPieces::Windows, SoundHead::Pool)
        }
        _ => {
            let parts = [
                ("head.1", "linear_1"),
                ("head.2", "linear_2"),
                ("head.norm_pre", "ln_pre"),
                ("head.norm_mid", "ln_mid"),
                ("head.norm_post", "ln_post"),
            ];
            for (stem, name) in parts {
                names.put(stem, format!("{projector}{name}"));
            }
            if !matches!(outer.text("projector_act")?, None | Some("swiglu")) {
                return Err(outer.unsupported("projector_act"));
            }
            if outer.value("audio_latency_block_size").is_some() {
                return Err(outer.unsupported("audio_latency_block_size"));
            }
            let (factor, wide) = (outer.size("stack_factor", 8)?, outer.size("hidden_size", 4096)?);
            let norms_inside = outer.flag("projector_ln_mid", false)?;
            let head = SoundHead::Stack { factor, inner: wide / 2, norms_inside, norm_eps: STACK_EPS };
            (SoundPieces::Cuts, head)
        }
    };
    let has_markers = family == "qwen2_audio";
    let hearing = finish(&audio, names, pieces, head, hidden_dim, has_markers)?;
    check_features(&label, files, &hearing.spec)?;
    Ok(Some(hearing))
}

/// The encoder's configuration, with the defaults of its class for what is not there.
fn audio_config(outer: &Fields<'_>, family: &str) -> Result<Map<String, Value>> {
    let defaults = match family {
        "qwen2_audio" => json!({
            "num_mel_bins": 128, "encoder_layers": 32, "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120, "d_model": 1280, "max_source_positions": 1500,
        }),
        _ => json!({
            "num_mel_bins": 80, "encoder_layers": 4, "encoder_attention_heads": 6,
            "encoder_ffn_dim": 1536, "d_model": 384, "max_source_positions": 1500,
        }),
    };
    let mut merged = defaults.as_object().cloned().unwrap_or_default();
    let Some(own) = outer.value("audio_config").and_then(Value::as_object) else {
        return Err(outer.fault("audio_config", "is missing or no object"));
    };
    if let Some(kind) = own.get("model_type").and_then(Value::as_str)
        && !matches!(kind, "whisper" | "qwen2_audio_encoder")
    {
        return Err(outer.inner("audio_config").unsupported("model_type"));
    }
    merged.extend(own.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())));
    Ok(merged)
}

/// Calls the encoder's tensors by the names that it asks for.
fn put_tower(names: &mut Renamed, layers: usize, name: impl Fn(&str, &str) -> String) {
    for (hugging_face, gguf) in NAMES {
        let count = if hugging_face.contains("{l}") { layers } else { 1 };
        for layer in 0..count {
            let number = |text: &str| text.replace("{l}", &layer.to_string());
            let (stem, gguf) = (number(hugging_face), number(gguf));
            names.put(format!("{PREFIX}.{stem}"), name(&stem, &gguf));
        }
    }
}

fn finish(
    audio: &Map<String, Value>,
    names: Renamed,
    pieces: SoundPieces,
    head: SoundHead,
    out_dim: usize,
    has_markers: bool,
) -> Result<Hearing> {
    let store: Arc<dyn TensorStore> = Arc::new(names);
    let tower = audio_tower(audio, PREFIX, Arc::clone(&store))?;
    let (num_mels, source_len) = (tower.num_mels, tower.source_len);
    let spec = SoundSpec { num_mels, source_len, pieces, head, out_dim };
    let prompts = Arc::new(Prompts::new(spec, has_markers));
    Ok(Hearing { tower, spec, store, prompts, processor: json!({ "family": "sound" }) })
}

/// Refuses a spectrum that is not Whisper's.
fn check_features(label: &str, files: &Map<String, Value>, spec: &SoundSpec) -> Result<()> {
    let own = files.get("preprocessor_config.json");
    let inner = files.get("processor_config.json").and_then(|file| file.get("feature_extractor"));
    let Some(settings) = own.or(inner).and_then(Value::as_object) else { return Ok(()) };
    let fields = Fields::new(label, "feature_extractor", Some(settings));
    fields.require("sampling_rate", SOUND_RATE as u64)?;
    fields.require("hop_length", SOUND_HOP as u64)?;
    fields.require("n_fft", 400)?;
    fields.require("feature_size", spec.num_mels as u64)
}

/// What a projector of llama.cpp's that hears, in `store` and described by `metadata`, makes for a decoder
/// of `hidden_dim`.
///
/// # Errors
/// `Format` for a file that contradicts itself, `Unsupported` for a kind that is not known.
pub fn resolve_sound_projector(
    metadata: &Metadata,
    store: &Arc<dyn TensorStore>,
    hidden_dim: usize,
) -> Result<Hearing> {
    let label = store.label().to_owned();
    let fault = |key: &str, fault: String| Error::format(&label, format!("key `{key}`"), fault);
    let size = |key: &str| match metadata.u64(key) {
        Some(n) if (1..=1 << 20).contains(&n) => Ok(n as usize),
        _ => Err(fault(key, "is missing or no count".into())),
    };
    let keys = ["clip.audio.projector_type", "clip.projector_type"];
    let kind = keys.into_iter().find_map(|key| metadata.str(key)).unwrap_or_default();
    const EPS: &str = "clip.audio.attention.layer_norm_epsilon";
    if metadata.f64(EPS).is_some_and(|eps| (eps - 1e-5).abs() > 1e-8) {
        return Err(Error::unsupported(&label, format!("key `{EPS}` other than 1e-5")));
    }
    let (layers, width) = (size("clip.audio.block_count")?, size("clip.audio.embedding_length")?);
    if layers > store.names().len() {
        return Err(fault("clip.audio.block_count", format!("is {layers}, more than there are tensors")));
    }
    let positions = store.tensor("a.position_embd.weight").and_then(|t| t.shape.first().copied());
    let positions =
        positions.ok_or_else(|| Error::format(&label, "tensor `a.position_embd.weight`", "is missing"))?;
    let mut names = Renamed::new(Arc::clone(store));
    put_tower(&mut names, layers, |_, name| name.to_owned());
    let parts =
        [("head.2", "mm.a.mlp.2"), ("head.norm_pre", "mm.a.norm_pre"), ("head.norm_mid", "mm.a.norm_mid")];
    for (stem, name) in parts {
        names.put(stem, name);
    }
    let (pieces, head) = match kind {
        "qwen2a" => {
            names.put("head.1", "mm.a.fc");
            (SoundPieces::Windows, SoundHead::Pool)
        }
        "ultravox" => {
            names.put("head.1", "mm.a.mlp.1");
            let wide = store.tensor("mm.a.mlp.1.weight").and_then(|t| t.shape.first().copied());
            let wide =
                wide.ok_or_else(|| Error::format(&label, "tensor `mm.a.mlp.1.weight`", "is missing"))?;
            let factor = size("clip.audio.projector.stack_factor")?;
            let head = SoundHead::Stack { factor, inner: wide / 2, norms_inside: true, norm_eps: STACK_EPS };
            (SoundPieces::Cuts, head)
        }
        other => {
            return Err(Error::unsupported(&label, format!("key `clip.audio.projector_type` = {other}")));
        }
    };
    let audio = json!({
        "d_model": width,
        "num_mel_bins": size("clip.audio.num_mel_bins")?,
        "max_source_positions": positions,
        "encoder_layers": layers,
        "encoder_attention_heads": size("clip.audio.attention.head_count")?,
        "encoder_ffn_dim": size("clip.audio.feed_forward_length")?,
    });
    let audio = audio.as_object().cloned().unwrap_or_default();
    finish(&audio, names, pieces, head, hidden_dim, kind == "qwen2a")
}

/// How prompts hold sounds.
#[derive(Debug)]
struct Prompts {
    spec: SoundSpec,
    placeholders: Vec<String>,
    row: &'static str,
    around: Option<[&'static str; 2]>,
}

impl Prompts {
    fn new(spec: SoundSpec, has_markers: bool) -> Self {
        let (placeholders, row, around): (&[&str], _, _) = if has_markers {
            const AROUND: [&str; 2] = ["<|audio_bos|>", "<|audio_eos|>"];
            (&["<|audio_bos|><|AUDIO|><|audio_eos|>", "<|AUDIO|>"], "<|AUDIO|>", Some(AROUND))
        } else {
            (&["<|audio|>"], "<|audio|>", None)
        };
        let placeholders = placeholders.iter().map(|&text| text.to_owned()).collect();
        Self { spec, placeholders, row, around }
    }
}

impl MediaPrompts for Prompts {
    fn placeholders(&self, kind: MediaKind) -> &[String] {
        if kind == MediaKind::Audio { &self.placeholders } else { &[] }
    }

    fn row_token(&self, _kind: MediaKind) -> &str {
        self.row
    }

    fn expand(&self, item: &MediaItem) -> Result<Vec<PromptPiece>> {
        let fault = |fault: &str| Error::Media { item: item.kind.noun().into(), fault: fault.into() };
        let samples = item.tensor("samples").ok_or_else(|| fault("its processor gave no `samples`"))?;
        let rows = self.spec.num_rows(samples.values.len());
        if rows == 0 {
            return Err(fault("is too short to be heard"));
        }
        let text = |text: &str| PromptPiece::Text(text.to_owned());
        Ok(match self.around {
            Some([before, behind]) => vec![text(before), PromptPiece::Rows(rows), text(behind)],
            None => vec![PromptPiece::Rows(rows)],
        })
    }

    fn positions(
        &self,
        _len: usize,
        _spans: &[MediaSpan],
        _items: &[Arc<MediaItem>],
    ) -> Result<Option<MediaPositions>> {
        Ok(None)
    }

    fn two_way_rows(&self) -> usize {
        0
    }
}

//! From a path to a transcriber.

use std::path::Path;
use std::sync::Arc;

use alloyforge_formats::ct2::{Ct2Folder, is_ct2};
use alloyforge_formats::hf::HfFolder;
use alloyforge_formats::safetensors::SafetensorsStore;
use alloyforge_interfaces::{KvBytes, LoadOptions, TensorStore, Tokenizer};
use alloyforge_models::{Whisper, is_whisper, resolve_whisper};
use alloyforge_speech::decode::{Limits, TextDecoder};
use alloyforge_speech::vad::VoiceActivity;
use alloyforge_speech::{SpeechParts, Transcriber, Vocabulary};
use alloyforge_tokenize::TextTokenizer;
use alloyforge_types::{BLOCK_LEN, Error, KvType, ModelSpec, Result};
use serde_json::Value;

use crate::backend::{choose_device, load};
use crate::hearing::load_tower;
use crate::open::OpenOptions;
use crate::source::json_tokenizer;

/// Windows that are decoded together at the most.
const MAX_SLOTS: usize = 16;

/// Hypotheses of all windows together at the most.
const MAX_HYPOTHESES: usize = 64;

/// Rows of one step of the decoder.
const MAX_ROWS: usize = 512;

/// Bytes that the caches of hypotheses, and those of windows, take at the most, each.
const CACHE_BYTES: u64 = 1 << 30;

/// A loaded speech model.
pub struct Speech {
    /// What transcribes.
    pub transcriber: Transcriber,
    /// What is loaded.
    pub info: SpeechInfo,
}

/// What a speech session has loaded.
#[derive(Debug, Clone)]
pub struct SpeechInfo {
    /// The family's name.
    pub architecture: String,
    /// Numbers in all weights.
    pub parameters: u64,
    /// The format of most weights.
    pub file_type: String,
    /// Rows of the head.
    pub vocab_size: usize,
    /// Most tokens of a window's text with its prompt.
    pub context_len: usize,
    /// The device.
    pub device: String,
    /// Threads that compute.
    pub threads: usize,
    /// What keys and values are kept in.
    pub kv_type: KvType,
    /// Bytes of keys and values that a token takes.
    pub kv_bytes_per_token: usize,
    /// Bytes of weights, caches and buffers.
    pub memory: [u64; 3],
}

/// What a speech model on disk comes to.
struct Opened {
    config: Value,
    generation: Option<Value>,
    store: Arc<dyn TensorStore>,
    tokenizer: TextTokenizer,
}

/// Whether the model at `path` is one that transcribes.
pub fn is_speech(path: &Path) -> bool {
    if is_ct2(path) {
        return true;
    }
    path.is_dir() && HfFolder::open(path).is_ok_and(|folder| is_whisper(&folder.config))
}

fn open_files(path: &Path) -> Result<Opened> {
    let missing =
        || Error::format(path.display().to_string(), "tokenizer.json", "is missing, and the model needs it");
    if is_ct2(path) {
        let folder = Ct2Folder::open(path)?;
        let tokenizer = json_tokenizer(folder.tokenizer_json.as_deref().ok_or_else(missing)?, None)?;
        return Ok(Opened {
            config: folder.config,
            generation: Some(folder.generation_config),
            store: Arc::new(folder.store),
            tokenizer,
        });
    }
    let folder = HfFolder::open(path)?;
    let store = Arc::new(folder.weights()?);
    let tokenizer = json_tokenizer(folder.tokenizer_json.as_deref().ok_or_else(missing)?, Some(&folder))?;
    Ok(Opened { config: folder.config, generation: folder.generation_config, store, tokenizer })
}

/// Opens the Whisper model at `path`: a folder as Hugging Face publishes it, or one of CTranslate2's.
///
/// # Errors
/// As [`open`](crate::open()).
pub fn open_speech(path: &Path, options: &OpenOptions) -> Result<Speech> {
    let device = if options.device.is_empty() { "auto" } else { &options.device };
    let device = choose_device(device, options.backend)?;
    if options.threads == Some(0) {
        return Err(Error::invalid("threads", "must be at least 1"));
    }
    let Opened { config, generation, store, tokenizer } = open_files(path)?;
    let Whisper { encoder: tower, decoder, target_len } = resolve_whisper(&config, Arc::clone(&store))?;
    let label = path.display().to_string();
    let (spec, parameters) = (decoder.spec.clone(), tower.layers.parameters + decoder.parameters);
    if tokenizer.vocab_size() > spec.vocab_size {
        let fault =
            format!("has {} tokens, and the decoder {} rows", tokenizer.vocab_size(), spec.vocab_size);
        return Err(Error::format(label, "the tokenizer", fault));
    }
    let file_type = decoder.file_type.clone();
    let limits = limits(&spec, options, target_len, tower.source_len);
    let load_options = LoadOptions {
        kv_bytes: Some(kv_bytes(&spec, &limits)),
        dtype: options.dtype,
        quantize: options.quantize,
        kv_type: options.kv_type,
        threads: options.threads,
        max_rows: limits.max_rows,
        max_logit_rows: limits.max_logit_rows,
        progress: options.progress.clone(),
    };
    let encoder = load_tower(tower, store, &device, options)?;
    let model = load(decoder, &device, options.backend, &load_options)?;
    let heads = spec.layers.first().and_then(|layer| layer.cross.as_ref()).map_or(0, |c| c.num_heads);
    let vocabulary = Vocabulary::new(
        Arc::new(tokenizer),
        &config,
        generation.as_ref(),
        spec.vocab_size,
        (spec.layers.len(), heads),
        &label,
    )?;
    let decoder = TextDecoder::new(model, limits)?;
    let used = [encoder.layers().memory(), decoder.model().memory()];
    let kv_type = decoder.model().kv_type();
    let info = SpeechInfo {
        architecture: spec.architecture.clone(),
        parameters,
        file_type,
        vocab_size: spec.vocab_size,
        context_len: target_len,
        device,
        threads: decoder.model().threads(),
        kv_type,
        kv_bytes_per_token: spec.kv_token_bytes(0, kv_type),
        memory: [
            used.iter().map(|m| m.weights).sum::<u64>() + encoder.bytes(),
            used.iter().map(|m| m.kv).sum(),
            used.iter().map(|m| m.workspace).sum(),
        ],
    };
    Ok(Speech { transcriber: Transcriber::new(SpeechParts { encoder, decoder, vocabulary }), info })
}

/// What a decoder of `spec` takes for its own keys and values, and for those of the sounds that it hears.
fn kv_bytes(spec: &ModelSpec, limits: &Limits) -> KvBytes {
    let (spec, blocks, slots, len) = (spec.clone(), limits.num_blocks, limits.num_slots, limits.source_len);
    Arc::new(move |ty| {
        let own = (blocks * BLOCK_LEN) as u64 * spec.kv_token_bytes(0, ty) as u64;
        Ok(own.saturating_add((slots * len) as u64 * state_bytes(&spec, ty) as u64))
    })
}

/// Bytes of one row of an encoder's states: keys and values of every layer.
fn state_bytes(spec: &ModelSpec, ty: KvType) -> usize {
    let cross = spec.layers.iter().filter_map(|layer| layer.cross.as_ref());
    cross.map(|c| 2 * c.num_heads * ty.vector_bytes(c.head_dim)).sum()
}

/// How many windows and hypotheses there is room for.
fn limits(spec: &ModelSpec, options: &OpenOptions, target_len: usize, source_len: usize) -> Limits {
    let ty = options.kv_type.unwrap_or(KvType::F16);
    let blocks = target_len.div_ceil(BLOCK_LEN) + 1;
    let each = (blocks * BLOCK_LEN * spec.kv_token_bytes(0, ty)).max(1) as u64;
    let window = (state_bytes(spec, ty) * source_len).max(1) as u64;
    let budget = options.kv_memory.map_or(CACHE_BYTES, |bytes| bytes / 2);
    let fit = |bytes: u64, most: usize, least: usize| ((budget / bytes) as usize).clamp(least, most);
    let max_hypotheses = fit(each, MAX_HYPOTHESES, 8);
    let num_slots = fit(window, options.max_batch.unwrap_or(MAX_SLOTS).clamp(1, MAX_SLOTS), 1);
    Limits {
        max_rows: MAX_ROWS.max(target_len.next_multiple_of(BLOCK_LEN)),
        max_logit_rows: MAX_HYPOTHESES,
        max_hypotheses,
        num_blocks: max_hypotheses * blocks,
        num_slots,
        target_len,
        source_len,
    }
}

/// Loads the network for voice activity in the safetensors file at `path`.
///
/// # Errors
/// `Io`, `Format`.
pub fn open_vad(path: &Path, threads: usize) -> Result<VoiceActivity> {
    VoiceActivity::load(&SafetensorsStore::open(path)?, threads)
}

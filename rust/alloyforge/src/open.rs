//! From a path to a session that serves requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloyforge_engine::kv::least_kv;
use alloyforge_engine::{Draft, EngineOptions, MediaModel, Session, SessionParts};
use alloyforge_formats::gguf::GgufFile;
use alloyforge_interfaces::{KvBytes, LoadOptions, Progress, TensorStore, Tokenizer};
use alloyforge_models::{Resolved, resolve_projector, resolve_sound_projector, resolve_vision};
use alloyforge_types::{DType, Error, KvType, ModelSpec, QuantMix, Result};
use serde_json::{Map, Value};

use crate::backend::{BackendChoice, choose_device, load};
use crate::embedding::{EmbeddingModel, open_embedder, with_files};
use crate::encoder::EncoderPlace;
use crate::hearing::{load_hearing, open_hearing};
use crate::source::Source;

/// How a model is opened. The default lets everything be chosen.
#[derive(Clone, Default)]
pub struct OpenOptions {
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `metal`; empty: `auto`.
    pub device: String,
    /// Which implementation runs it.
    pub backend: BackendChoice,
    /// What unquantised weights are computed in.
    pub dtype: Option<DType>,
    /// What weight matrices are turned into at load.
    pub quantize: Option<QuantMix>,
    /// Most tokens that one sequence may hold.
    pub context_len: Option<usize>,
    /// What keys and values are kept in.
    pub kv_type: Option<KvType>,
    /// Bytes for the KV cache.
    pub kv_memory: Option<u64>,
    /// Threads that compute.
    pub threads: Option<usize>,
    /// Most sequences in one step.
    pub max_batch: Option<usize>,
    /// A GGUF file of what a text model sees with.
    pub projector: Option<PathBuf>,
    /// Whether prompts that begin alike do not share what was computed.
    pub no_prefix_cache: bool,
    /// Where guesses at the tokens to come are from.
    pub draft: Option<DraftSource>,
    /// Told how far loading is, from any thread.
    pub progress: Option<Progress>,
}

/// Where guesses at the tokens to come are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DraftSource {
    /// The text so far.
    Ngram,
    /// A smaller model with the same tokens, at this path.
    Model(PathBuf),
}

/// A model that is open.
pub enum Opened {
    /// One that writes.
    Text(Box<Session>),
    /// One that does not.
    Embedding(Box<EmbeddingModel>),
}

/// Opens the model at `path`.
///
/// # Errors
/// `Io` where there is none; `Format` and `Unsupported` for its files; `InvalidRequest` naming the
/// option at fault; `Device`, `OutOfMemory`.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened> {
    let device = if options.device.is_empty() { "auto" } else { &options.device };
    let device = choose_device(device, options.backend)?;
    if options.threads == Some(0) {
        return Err(Error::invalid("threads", "must be at least 1"));
    }
    let source = Source::open(path)?;
    if let Some(model) = open_embedder(&source, options)? {
        return Ok(Opened::Embedding(Box::new(model)));
    }
    let resolved = source.resolve()?;
    let media = open_media(&source, &resolved, &device, options)?;
    let tokenizer = source.tokenizer()?;
    check_vocabulary(&tokenizer, resolved.spec.vocab_size, &*source.store())?;

    let mut engine = engine_options(options);
    engine.two_way_rows = media.as_ref().map_or(0, |m| m.prompts.two_way_rows());
    engine.max_rows = engine.max_rows.max(engine.max_batch.saturating_add(engine.two_way_rows));
    let load_options = LoadOptions {
        kv_bytes: Some(kv_bytes(&resolved.spec, &engine)),
        dtype: options.dtype,
        quantize: options.quantize,
        kv_type: options.kv_type,
        threads: options.threads,
        max_rows: engine.max_rows,
        max_logit_rows: engine.max_logit_rows(),
        progress: options.progress.clone(),
    };
    let (parameters, file_type) = (resolved.parameters, resolved.file_type.clone());
    let draft = match &options.draft {
        None => Draft::Off,
        Some(DraftSource::Ngram) => Draft::Ngram,
        Some(DraftSource::Model(path)) => {
            let source = Source::open(path)?;
            check_same_tokens(&tokenizer, &source.tokenizer()?)?;
            let draft = source.resolve()?;
            let own = EngineOptions { context_len: None, kv_memory: None, ..engine.clone() };
            let kv_bytes = Some(kv_bytes(&draft.spec, &own));
            let load_options = LoadOptions { progress: None, kv_bytes, ..load_options.clone() };
            Draft::Model(load(draft, &device, options.backend, &load_options)?)
        }
    };
    let model = load(resolved, &device, options.backend, &load_options)?;
    let session = Session::new(SessionParts {
        model,
        template_variables: special_texts(&tokenizer),
        tokenizer: Arc::new(tokenizer),
        chat_template: source.chat_template(),
        generation_config: source.generation_config(),
        parameters,
        file_type,
        media,
        options: engine,
        draft,
    })?;
    Ok(Opened::Text(Box::new(session)))
}

/// Loads what the model sees or hears with.
fn open_media(
    source: &Source,
    resolved: &Resolved,
    device: &str,
    options: &OpenOptions,
) -> Result<Option<MediaModel>> {
    let (hidden_dim, eps) = (resolved.spec.hidden_dim, resolved.spec.norm_eps);
    let place = EncoderPlace { device, backend: options.backend, threads: options.threads };
    if let Some(path) = &options.projector {
        let file = Arc::new(GgufFile::open(path)?);
        let store = Arc::clone(&file) as Arc<dyn TensorStore>;
        let has = |key: &str| file.metadata().bool(key).unwrap_or(false);
        if has("clip.has_audio_encoder") && !has("clip.has_vision_encoder") {
            let hearing = resolve_sound_projector(file.metadata(), &store, hidden_dim)?;
            return load_hearing(hearing, device, options).map(Some);
        }
        let vision = resolve_projector(file.metadata(), &store, hidden_dim, eps)?;
        let encoder = place.vision(&vision.spec, &*vision.store)?;
        let (prompts, processor) = (vision.prompts, vision.processor);
        return Ok(Some(MediaModel { prompts, encoder: Arc::new(encoder), processor }));
    }
    let Source::Folder(folder, _) = source else { return Ok(None) };
    let Some(vision) = resolve_vision(&folder.config, &source.store(), hidden_dim, eps)? else {
        return open_hearing(source, hidden_dim, device, options);
    };
    let encoder = place.vision(&vision.spec, &*vision.store)?;
    Ok(Some(MediaModel {
        prompts: vision.prompts,
        encoder: Arc::new(encoder),
        processor: with_files(vision.processor, folder)?,
    }))
}

/// The least that an engine on a model of `spec` takes for its KV cache.
fn kv_bytes(spec: &ModelSpec, options: &EngineOptions) -> KvBytes {
    let (spec, options) = (spec.clone(), options.clone());
    Arc::new(move |ty| least_kv(&spec, ty, &options))
}

fn engine_options(options: &OpenOptions) -> EngineOptions {
    let defaults = EngineOptions::default();
    let max_batch = options.max_batch.unwrap_or(defaults.max_batch);
    EngineOptions {
        context_len: options.context_len,
        kv_memory: options.kv_memory,
        max_batch,
        // a step must hold every sequence and leave room for a prompt beside them
        max_rows: defaults.max_rows.max(max_batch.saturating_mul(2)),
        prefix_cache: !options.no_prefix_cache,
        ..defaults
    }
}

/// A token that the model has no row for could be asked of it by any text.
pub(crate) fn check_vocabulary(
    tokenizer: &dyn Tokenizer,
    rows: usize,
    store: &dyn TensorStore,
) -> Result<()> {
    let tokens = tokenizer.vocab_size();
    if tokens > rows {
        let fault = format!("has {tokens} tokens, and the model's embedding {rows} rows");
        return Err(Error::format(store.label(), "the tokenizer", fault));
    }
    Ok(())
}

/// A guess is a number: it must mean the same to both models.
fn check_same_tokens(tokenizer: &dyn Tokenizer, draft: &dyn Tokenizer) -> Result<()> {
    let (len, draft_len) = (tokenizer.vocab_size(), draft.vocab_size());
    if len != draft_len {
        let fault = format!("has {draft_len} tokens, the model has {len}: guesses need the same ones");
        return Err(Error::invalid("draft", fault));
    }
    match (0..len as u32).find(|&id| tokenizer.token_bytes(id) != draft.token_bytes(id)) {
        Some(id) => {
            let fault =
                format!("means another text by token {id} than the model: guesses need the same tokens");
            Err(Error::invalid("draft", fault))
        }
        None => Ok(()),
    }
}

/// The texts of special tokens that chat templates name.
fn special_texts(tokenizer: &dyn Tokenizer) -> Map<String, Value> {
    let text = |id: Option<u32>| {
        let bytes = id.and_then(|id| tokenizer.token_bytes(id));
        bytes.map_or_else(String::new, |b| String::from_utf8_lossy(&b).into_owned())
    };
    let mut texts = Map::new();
    texts.insert("bos_token".into(), Value::String(text(tokenizer.bos().0)));
    texts.insert("eos_token".into(), Value::String(text(tokenizer.eos().first().copied())));
    texts
}

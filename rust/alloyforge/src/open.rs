//! From a path to a session that serves requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloyforge_engine::{Draft, EngineOptions, Session, SessionParts};
use alloyforge_interfaces::{LoadOptions, Progress, Tokenizer};
use alloyforge_types::{DType, Error, KvType, QuantType, Result};
use serde_json::{Map, Value};

use crate::backend::{BackendChoice, choose_device, load};
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
    pub quantize: Option<QuantType>,
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

/// Opens the model at `path`.
///
/// # Errors
/// `Io` where there is none; `Format` and `Unsupported` for its files; `InvalidRequest` naming the
/// option at fault; `Device`, `OutOfMemory`.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Session> {
    let device = if options.device.is_empty() { "auto" } else { &options.device };
    let device = choose_device(device, options.backend)?;
    if options.threads == Some(0) {
        return Err(Error::invalid("threads", "must be at least 1"));
    }
    let source = Source::open(path)?;
    let resolved = source.resolve()?;
    let tokenizer = source.tokenizer()?;
    check_vocabulary(&tokenizer, resolved.spec.vocab_size, path)?;

    let engine = engine_options(options);
    let load_options = LoadOptions {
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
            let load_options = LoadOptions { progress: None, ..load_options.clone() };
            Draft::Model(load(source.resolve()?, &device, options.backend, &load_options)?)
        }
    };
    let model = load(resolved, &device, options.backend, &load_options)?;
    Session::new(SessionParts {
        model,
        template_variables: special_texts(&tokenizer),
        tokenizer: Arc::new(tokenizer),
        chat_template: source.chat_template(),
        generation_config: source.generation_config(),
        parameters,
        file_type,
        options: engine,
        draft,
    })
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
fn check_vocabulary(tokenizer: &dyn Tokenizer, rows: usize, path: &Path) -> Result<()> {
    let tokens = tokenizer.vocab_size();
    if tokens > rows {
        let fault = format!("has {tokens} tokens, and the model's embedding {rows} rows");
        return Err(Error::format(path.display().to_string(), "the tokenizer", fault));
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

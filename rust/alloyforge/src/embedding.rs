//! Opens models without a decoder.

use std::path::Path;
use std::sync::Arc;

use alloyforge_engine::{Comparison, EmbeddingParts, EmbeddingSession, Info, Ranking};
use alloyforge_formats::gguf::GgufFile;
use alloyforge_formats::hf::HfFolder;
use alloyforge_interfaces::{Encoder, LoadOptions, MemoryUse, TensorStore, TextEncoder};
use alloyforge_models::{
    DecoderEmbedder, Embedder, EmbedderLimits, SentenceSettings, VisionTask, last_norm, resolve_embedder,
};
use alloyforge_types::{Error, KvType, MetaValue, Pooling, Result};
use serde_json::{Value, json};

use crate::backend::{choose_device, load};
use crate::encoder::EncoderPlace;
use crate::open::{OpenOptions, check_vocabulary};
use crate::source::{Source, json_tokenizer};

/// A model that writes nothing.
pub struct EmbeddingModel {
    /// What it does.
    pub session: EmbeddingSession,
    /// What there is to know of it.
    pub info: Info,
    /// The family of processors that prepares its pictures, with its settings.
    pub processor: Value,
}

/// Opens the model in `source` where it has no decoder.
///
/// # Errors
/// As [`open`](crate::open).
pub(crate) fn open_embedder(source: &Source, options: &OpenOptions) -> Result<Option<EmbeddingModel>> {
    let folder = match source {
        Source::Folder(folder, _) => folder,
        Source::Gguf(file) => {
            let Some(pooling) = gguf_pooling(file)? else { return Ok(None) };
            let settings = SentenceSettings { pooling, is_normalised: false };
            return open_decoder(source, Sentence { settings, max_len: None }, options).map(Some);
        }
    };
    let store = source.store();
    let sentence = Sentence::read(folder)?;
    let settings = sentence.as_ref().map(|s| s.settings);
    let Some(found) = resolve_embedder(&folder.config, &store, settings)? else {
        return sentence.map(|sentence| open_decoder(source, sentence, options)).transpose();
    };
    let device = if options.device.is_empty() { "auto" } else { &options.device };
    let device = choose_device(device, options.backend)?;
    let place = EncoderPlace { device: &device, backend: options.backend, threads: options.threads };
    let Embedder { text, vision, comparison, ranking, frame, is_normalised, .. } = found;
    let (mut max_len, mut vocab_size) = (0, 0);
    let mut weights = 0;
    let mut encoder: Option<Box<dyn TextEncoder>> = None;
    let mut tokenizer = None;
    if let Some((spec, store)) = &text {
        let made = place.text(spec, &**store)?;
        weights += made.bytes();
        let own = sentence.as_ref().and_then(|s| s.max_len).unwrap_or(spec.max_len);
        let asked = options.context_len.unwrap_or(own);
        (max_len, vocab_size) = (asked.min(own).min(spec.max_len), spec.vocab_size);
        encoder = Some(Box::new(made));
        let Some(path) = &folder.tokenizer_json else {
            let fault = "is missing, and the model needs it";
            return Err(Error::format(folder.path.display().to_string(), "tokenizer.json", fault));
        };
        tokenizer = Some(Arc::new(json_tokenizer(path, Some(folder))?));
    }
    let mut labels = Vec::new();
    let mut eye: Option<Arc<dyn Encoder>> = None;
    if let Some((spec, store, task)) = vision {
        let made = place.vision(&spec, &*store)?;
        weights += made.bytes();
        eye = Some(Arc::new(made));
        if let VisionTask::Labels(names) = task {
            labels = names;
        }
    }
    let info = Info {
        architecture: found.architecture,
        parameters: count(&*store),
        file_type: alloyforge_models::file_type(&folder.config, &*store),
        vocab_size,
        context_len: max_len,
        device,
        threads: options.threads.unwrap_or_else(alloyforge_kernels::topology::physical_cores),
        chat_template: None,
        kv_type: KvType::F32,
        kv_bytes_per_token: 0,
        memory: MemoryUse { weights, ..MemoryUse::default() },
    };
    let comparison =
        comparison.map(|c| Comparison { scale: c.scale, bias: c.bias, is_sigmoid: c.is_sigmoid });
    let processor = with_files(found.processor, folder)?;
    let session = EmbeddingSession::new(EmbeddingParts {
        text: encoder,
        tokenizer,
        frame,
        max_len,
        vision: eye,
        labels,
        comparison,
        ranking: ranking.map(|r| Ranking { num_ends: r.num_ends, is_sigmoid: r.is_sigmoid }),
        is_normalised,
    });
    Ok(Some(EmbeddingModel { session, info, processor }))
}

/// Rows of one step of a decoder that embeds.
const MAX_ROWS: usize = 1024;

/// Opens the decoder in `source`, whose rows are pooled as `sentence` says.
fn open_decoder(source: &Source, sentence: Sentence, options: &OpenOptions) -> Result<EmbeddingModel> {
    let device = if options.device.is_empty() { "auto" } else { &options.device };
    let device = choose_device(device, options.backend)?;
    let resolved = source.resolve()?;
    let tokenizer = source.tokenizer()?;
    check_vocabulary(&tokenizer, resolved.spec.vocab_size, &*source.store())?;
    let spec = resolved.spec.clone();
    let norm = last_norm(&*resolved.weights, spec.norm)?;
    let (parameters, file_type) = (resolved.parameters, resolved.file_type.clone());
    let kv_type = options.kv_type.unwrap_or(KvType::F16);
    let token_bytes: u64 = (0..spec.kv_groups.len()).map(|g| spec.kv_token_bytes(g, kv_type) as u64).sum();
    let own = sentence.max_len.unwrap_or(spec.context_len).min(spec.context_len);
    let wanted = options.context_len.unwrap_or(own).min(own).max(1);
    // what is left decides how long texts may be, unless it was said what they may take
    let least = options.kv_memory.map_or(0, |bytes| bytes.min(token_bytes.saturating_mul(wanted as u64)));
    let load_options = LoadOptions {
        kv_bytes: Some(Arc::new(move |_| Ok(least))),
        dtype: options.dtype,
        quantize: options.quantize,
        kv_type: Some(kv_type),
        threads: options.threads,
        max_rows: MAX_ROWS,
        max_logit_rows: MAX_ROWS,
        progress: options.progress.clone(),
    };
    let model = load(resolved, &device, options.backend, &load_options)?;
    // a text's keys and values must fit beside the weights
    let free = model.free_memory().or_else(alloyforge_kernels::memory::available).unwrap_or(u64::MAX);
    let budget = options.kv_memory.unwrap_or(free / 2) / token_bytes.max(1);
    let max_len = wanted.min(usize::try_from(budget).unwrap_or(wanted));
    let limits = EmbedderLimits { max_rows: MAX_ROWS, max_len: max_len.max(1) };
    let threads = model.threads();
    let encoder = DecoderEmbedder::new(model, norm, sentence.settings.pooling, limits)?;
    let info = Info {
        architecture: spec.architecture.clone(),
        parameters,
        file_type,
        vocab_size: spec.vocab_size,
        context_len: limits.max_len,
        device,
        threads,
        chat_template: None,
        kv_type,
        kv_bytes_per_token: token_bytes,
        memory: encoder.memory(),
    };
    let session = EmbeddingSession::new(EmbeddingParts {
        text: Some(Box::new(encoder)),
        tokenizer: Some(Arc::new(tokenizer)),
        frame: [None; 2],
        max_len: limits.max_len,
        vision: None,
        labels: Vec::new(),
        comparison: None,
        ranking: None,
        is_normalised: sentence.settings.is_normalised,
    });
    Ok(EmbeddingModel { session, info, processor: Value::Null })
}

/// How a decoder in a GGUF file pools its rows, where the file says so: llama.cpp's `pooling_type`.
fn gguf_pooling(file: &GgufFile) -> Result<Option<Pooling>> {
    let metadata = file.metadata();
    let Some(arch) = metadata.str("general.architecture") else { return Ok(None) };
    let key = format!("{arch}.pooling_type");
    match metadata.get(&key) {
        None | Some(MetaValue::U64(0) | MetaValue::I64(0)) => Ok(None),
        Some(MetaValue::U64(1) | MetaValue::I64(1)) => Ok(Some(Pooling::Mean)),
        Some(MetaValue::U64(2) | MetaValue::I64(2)) => Ok(Some(Pooling::First)),
        Some(MetaValue::U64(3) | MetaValue::I64(3)) => Ok(Some(Pooling::Last)),
        Some(other) => Err(Error::unsupported(file.label(), format!("key `{key}` = {other:?}"))),
    }
}

/// A processor's settings with the files that describe it.
pub(crate) fn with_files(mut processor: Value, folder: &HfFolder) -> Result<Value> {
    if let Some(map) = processor.as_object_mut() {
        map.insert("files".into(), Value::Object(folder.processor_files()?));
    }
    Ok(processor)
}

fn count(store: &dyn TensorStore) -> u64 {
    let numbers = |name: &str| store.tensor(name).map_or(0, |t| t.shape.iter().product::<usize>() as u64);
    store.names().into_iter().map(numbers).sum()
}

/// What sentence-transformers' files say.
struct Sentence {
    settings: SentenceSettings,
    max_len: Option<usize>,
}

impl Sentence {
    /// Reads `modules.json`, the pooling that it lists, and `sentence_bert_config.json`.
    fn read(folder: &HfFolder) -> Result<Option<Self>> {
        let label = folder.path.display().to_string();
        let Some(modules) = folder.json("modules.json")? else { return Ok(None) };
        let mut settings = SentenceSettings { pooling: Pooling::Mean, is_normalised: false };
        for module in modules.as_array().into_iter().flatten() {
            let kind = module["type"].as_str().unwrap_or_default().rsplit('.').next().unwrap_or_default();
            match kind {
                "Transformer" => {}
                "Normalize" => settings.is_normalised = true,
                "Pooling" => {
                    let path = module["path"].as_str().unwrap_or("1_Pooling");
                    let is_inside = Path::new(path)
                        .components()
                        .all(|part| matches!(part, std::path::Component::Normal(_)));
                    if !is_inside {
                        return Err(Error::format(label, "modules.json", "names a path outside the folder"));
                    }
                    let config = folder.json(&format!("{path}/config.json"))?.unwrap_or(json!({}));
                    settings.pooling = pooling(&config)
                        .ok_or_else(|| Error::unsupported(&label, format!("pooling {config}")))?;
                }
                other => return Err(Error::unsupported(label, format!("modules.json: a module `{other}`"))),
            }
        }
        let own = folder.json("sentence_bert_config.json")?;
        let max_len = own.and_then(|c| c["max_seq_length"].as_u64()).and_then(|n| usize::try_from(n).ok());
        Ok(Some(Self { settings, max_len: max_len.filter(|&n| n > 0) }))
    }
}

/// The one way of pooling that `config` switches on.
fn pooling(config: &Value) -> Option<Pooling> {
    let ways = [
        ("pooling_mode_cls_token", Pooling::First),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    let on = |key: &str| config[key].as_bool().unwrap_or(false);
    if on("pooling_mode_mean_sqrt_len_tokens") || on("pooling_mode_weightedmean_tokens") {
        return None;
    }
    let chosen: Vec<Pooling> = ways.iter().filter(|(key, _)| on(key)).map(|(_, way)| *way).collect();
    match chosen.as_slice() {
        [] if ways.iter().all(|(key, _)| config.get(key).is_none()) => Some(Pooling::Mean),
        [one] => Some(*one),
        _ => None,
    }
}

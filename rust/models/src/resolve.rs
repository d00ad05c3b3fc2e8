//! From a configuration and its tensors to a checked spec and its weights.

use std::sync::Arc;

use alloyforge_interfaces::{TensorStore, WeightSource};
use alloyforge_types::{Error, MetaArray, Metadata, ModelSpec, Result, RopeTable};
use serde_json::{Map, Value};

use crate::config::{Config, Reader};
use crate::describe;
use crate::families::{self, Draft, Family};
use crate::media;
use crate::weights::NamedWeights;

/// A model, understood: what a backend needs to load it.
pub struct Resolved {
    /// The decoder.
    pub spec: ModelSpec,
    /// Its weights by role.
    pub weights: Box<dyn WeightSource>,
    /// Numbers in all weights; a head that is the embedding matrix counts once.
    pub parameters: u64,
    /// The format of most weights: what a GGUF file says of itself, as `q4_k_m`, else a type's name.
    pub file_type: String,
}

impl std::fmt::Debug for Resolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolved")
            .field("spec", &self.spec)
            .field("parameters", &self.parameters)
            .field("file_type", &self.file_type)
            .finish_non_exhaustive()
    }
}

/// Finds the family of `config`, builds its spec, and checks every weight in `store` against it.
///
/// # Errors
/// `Format` for a configuration or a tensor that is missing, damaged or contradicts another, naming
/// file and key or tensor; `Unsupported` for a family, a key, a value or a tensor that is not known.
pub fn resolve(config: Config<'_>, store: Arc<dyn TensorStore>) -> Result<Resolved> {
    let (Draft { mut spec, names }, is_gguf) = match config {
        Config::Gguf(metadata) => (from_gguf(metadata, &*store)?, true),
        Config::HuggingFace(value) => (from_hf(value, &*store)?, false),
    };
    spec.assign_kv_groups();
    let file_type = describe::file_type(config, &*store);
    let weights = NamedWeights::new(store.clone(), spec.clone(), names, is_gguf);
    let parameters = weights.check()?;
    check_numbers(&spec, &*store)?;
    Ok(Resolved { spec, weights: Box::new(weights), parameters, file_type })
}

fn from_gguf(metadata: &Metadata, store: &dyn TensorStore) -> Result<Draft> {
    const KEY: &str = "general.architecture";
    let missing = || Error::format(store.label(), format!("key `{KEY}`"), "is missing or no string");
    let arch = metadata.str(KEY).ok_or_else(missing)?;
    let family = families::by_gguf(arch)
        .ok_or_else(|| Error::unsupported(store.label(), format!("architecture `{arch}`")))?;
    let reader = Reader::gguf(metadata, arch, store);
    let draft = (family.build)(&reader)?;
    reader.finish()?;
    check_vocabulary(metadata, draft.spec.vocab_size, store)?;
    Ok(draft)
}

/// A token without a row of the embedding could not be computed.
fn check_vocabulary(metadata: &Metadata, rows: usize, store: &dyn TensorStore) -> Result<()> {
    const KEY: &str = "tokenizer.ggml.tokens";
    match metadata.array(KEY).map(MetaArray::len) {
        Some(tokens) if tokens > rows => {
            let fault = format!("has {tokens} tokens, the embedding has {rows} rows");
            Err(Error::format(store.label(), format!("key `{KEY}`"), fault))
        }
        _ => Ok(()),
    }
}

fn from_hf(config: &Value, store: &dyn TensorStore) -> Result<Draft> {
    let fault = |item: &str, fault: &str| Error::format(store.label(), format!("config.json {item}"), fault);
    let config = config.as_object().ok_or_else(|| fault("", "is no object"))?;
    if let Some(error) = media::lacks_text(config, store) {
        return Err(error);
    }
    let seen = text_of(config, "model_type").filter(|name| media::is_family(name));
    let merged = seen.and_then(|_| media::text_defaults(config));
    let flat;
    let (object, outer) = match (config.get("text_config"), &merged) {
        (_, Some(text)) => (text, Some(config)),
        (Some(Value::Object(text)), _)
            if text_of(config, "model_type").and_then(families::by_model_type).is_some() =>
        {
            (text, Some(config))
        }
        _ if seen.is_some() => {
            // the two halves' keys side by side, as Qwen2-VL was published
            let text = config.iter().filter(|(key, _)| *key != "vision_config");
            flat = text.map(|(k, v)| (k.clone(), v.clone())).collect::<Map<String, Value>>();
            (&flat, None)
        }
        _ => (config, None),
    };
    let (family, name) = hf_family(object, outer, store)?;
    let reader = Reader::hf(object, outer, name, store);
    let draft = (family.build)(&reader)?;
    reader.finish()?;
    Ok(draft)
}

fn text_of<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// The family by `model_type`, else by the first of `architectures`.
fn hf_family<'a>(
    object: &'a Map<String, Value>,
    outer: Option<&'a Map<String, Value>>,
    store: &dyn TensorStore,
) -> Result<(&'static Family, &'a str)> {
    let model_type = text_of(object, "model_type").or_else(|| text_of(outer?, "model_type"));
    if let Some(name) = model_type {
        let unknown = || Error::unsupported(store.label(), format!("model_type `{name}`"));
        return Ok((families::by_model_type(name).ok_or_else(unknown)?, name));
    }
    let classes = object.get("architectures").and_then(Value::as_array);
    let Some(class) = classes.and_then(|a| a.first()).and_then(Value::as_str) else {
        return Err(Error::format(store.label(), "config.json `model_type`", "is missing"));
    };
    let family = families::by_class(class)
        .ok_or_else(|| Error::unsupported(store.label(), format!("architecture `{class}`")))?;
    Ok((family, family.model_types.first().copied().unwrap_or(class)))
}

/// Checks what the settings come to: a combination that is harmless key by key can still overflow.
fn check_numbers(spec: &ModelSpec, store: &dyn TensorStore) -> Result<()> {
    let sound =
        |table: RopeTable| table.magnitude.is_finite() && table.inv_freq.iter().all(|f| f.is_finite());
    let fault = |what: &str| Err(Error::format(store.label(), what, "comes to a number that is not finite"));
    for rope in &spec.ropes {
        if !sound(rope.table(1)) || !sound(rope.table(spec.context_len)) {
            return fault("rotary embedding");
        }
    }
    let scales = [spec.embedding_scale, spec.residual_scale, spec.logit_scale, spec.norm_eps];
    let attention = spec.layers.iter().map(|l| l.attention.scale);
    if scales.into_iter().chain(attention).any(|s| !s.is_finite()) {
        return fault("scale");
    }
    Ok(())
}

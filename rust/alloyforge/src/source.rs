//! What a path leads to.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloyforge_formats::gguf::GgufFile;
use alloyforge_formats::hf::HfFolder;
use alloyforge_formats::safetensors::SafetensorsStore;
use alloyforge_interfaces::TensorStore;
use alloyforge_models::{Config, Resolved, resolve};
use alloyforge_tokenize::{TextTokenizer, from_gguf, from_json};
use alloyforge_types::{Error, MetaValue, Metadata, Result};
use serde_json::{Map, Number, Value};

/// Most bytes of a `tokenizer.json`; the largest published ones have about 35 million.
const MAX_TOKENIZER_LEN: u64 = 128 << 20;

/// A model on disk, its headers read and checked.
pub enum Source {
    /// A GGUF file, or the shards of one.
    Gguf(Arc<GgufFile>),
    /// A folder as Hugging Face publishes it.
    Folder(Box<HfFolder>, Arc<SafetensorsStore>),
}

impl Source {
    /// Opens the GGUF file or the folder at `path`.
    ///
    /// # Errors
    /// `Io` where there is nothing, `Format` for a damaged file, `Unsupported` for a file of another
    /// kind.
    pub fn open(path: &Path) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
        if alloyforge_formats::ct2::is_ct2(path) {
            let what = "a Whisper of CTranslate2's where text is written: it transcribes, so it";
            return Err(Error::unsupported(path.display().to_string(), what));
        }
        if found.is_dir() {
            let folder = HfFolder::open(path)?;
            let weights = folder.weights()?;
            return Ok(Self::Folder(Box::new(folder), Arc::new(weights)));
        }
        if let Some(kind) = foreign_kind(path) {
            return Err(Error::unsupported(path.display().to_string(), kind));
        }
        Ok(Self::Gguf(Arc::new(GgufFile::open(path)?)))
    }

    /// The name of the format.
    pub fn format(&self) -> &'static str {
        match self {
            Self::Gguf(_) => "gguf",
            Self::Folder(..) => "safetensors",
        }
    }

    /// The tensors.
    pub fn store(&self) -> Arc<dyn TensorStore> {
        match self {
            Self::Gguf(file) => Arc::clone(file) as Arc<dyn TensorStore>,
            Self::Folder(_, weights) => Arc::clone(weights) as Arc<dyn TensorStore>,
        }
    }

    /// The decoder that it describes.
    ///
    /// # Errors
    /// `Format` for a configuration or tensor that contradicts another, `Unsupported` for what is not
    /// known.
    pub fn resolve(&self) -> Result<Resolved> {
        let config = match self {
            Self::Gguf(file) => Config::Gguf(file.metadata()),
            Self::Folder(folder, _) => Config::HuggingFace(&folder.config),
        };
        resolve(config, self.store())
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// `Format` where it is damaged or missing, `Unsupported` for a kind that is not known.
    pub fn tokenizer(&self) -> Result<TextTokenizer> {
        match self {
            Self::Gguf(file) => from_gguf(file.metadata(), file.label()),
            Self::Folder(folder, _) => {
                let Some(path) = &folder.tokenizer_json else {
                    let label = folder.path.display().to_string();
                    return Err(Error::format(label, "tokenizer.json", "is missing, and the model needs it"));
                };
                json_tokenizer(path, Some(folder))
            }
        }
    }

    /// The source of its chat template.
    pub fn chat_template(&self) -> Option<String> {
        match self {
            Self::Gguf(file) => file.metadata().str("tokenizer.chat_template").map(str::to_owned),
            Self::Folder(folder, _) => folder.chat_template.clone(),
        }
    }

    /// Its generation settings, in the form of `generation_config.json`.
    pub fn generation_config(&self) -> Option<Value> {
        match self {
            Self::Gguf(file) => gguf_generation_config(file.metadata()),
            Self::Folder(folder, _) => folder.generation_config.clone(),
        }
    }

    /// Its metadata, for people: every key with its value, long values shortened.
    pub fn describe(&self) -> Vec<(String, String)> {
        match self {
            Self::Gguf(file) => describe_metadata(file.metadata()),
            Self::Folder(folder, _) => {
                let entries = folder.config.as_object().into_iter().flatten();
                entries.map(|(k, v)| (k.clone(), shorten(&v.to_string()))).collect()
            }
        }
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Gguf(file) => file.files().map(Path::to_owned).collect(),
            Self::Folder(_, weights) => weights.files().map(Path::to_owned).collect(),
        }
    }
}

/// Opens the tokenizer of a GGUF file (one without tensors too), of a folder, or a `tokenizer.json`.
///
/// # Errors
/// As [`Source::tokenizer`].
pub fn open_tokenizer(path: &Path) -> Result<TextTokenizer> {
    let found = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    if found.is_dir() {
        let json = path.join("tokenizer.json");
        if path.join("config.json").exists() {
            let folder = HfFolder::open(path)?;
            return json_tokenizer(folder.tokenizer_json.as_deref().unwrap_or(&json), Some(&folder));
        }
        return json_tokenizer(&json, None);
    }
    if starts_with(path, b"GGUF") {
        let file = GgufFile::open(path)?;
        return from_gguf(file.metadata(), file.label());
    }
    json_tokenizer(path, None)
}

/// The tokenizer in the `tokenizer.json` at `path`, which the other files of its folder say more of.
pub(crate) fn json_tokenizer(path: &Path, folder: Option<&HfFolder>) -> Result<TextTokenizer> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
    let label = path.display().to_string();
    if size > MAX_TOKENIZER_LEN {
        let fault = format!("has {size} bytes, at most {MAX_TOKENIZER_LEN} are read");
        return Err(Error::format(label, "tokenizer.json", fault));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
    from_json(
        &bytes,
        &label,
        folder.and_then(|f| f.tokenizer_config.as_ref()),
        folder.map(|f| &f.config),
        folder.and_then(|f| f.generation_config.as_ref()),
    )
}

fn starts_with(path: &Path, magic: &[u8; 4]) -> bool {
    let mut head = [0; 4];
    File::open(path).and_then(|mut f| f.read_exact(&mut head)).is_ok() && head == *magic
}

/// What a file is that is no GGUF and is often passed for one.
fn foreign_kind(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?;
    let kind = match extension {
        "safetensors" => "a lone safetensors file, without its folder's config.json,",
        "bin" | "pt" | "pth" => "a pickled checkpoint",
        "onnx" => "ONNX",
        _ => return None,
    };
    (!starts_with(path, b"GGUF")).then_some(kind)
}

/// The settings that a GGUF file keeps under llama.cpp's `general.sampling.*`.
fn gguf_generation_config(metadata: &Metadata) -> Option<Value> {
    const KEYS: [(&str, &str); 5] = [
        ("temperature", "temp"),
        ("top_k", "top_k"),
        ("top_p", "top_p"),
        ("min_p", "min_p"),
        ("repetition_penalty", "penalty_repeat"),
    ];
    let found = KEYS.iter().filter_map(|(name, key)| {
        let number = match metadata.get(&format!("general.sampling.{key}"))? {
            MetaValue::F64(x) => Number::from_f64(*x)?,
            MetaValue::U64(n) => (*n).into(),
            MetaValue::I64(n) => (*n).into(),
            _ => return None,
        };
        Some(((*name).to_owned(), Value::Number(number)))
    });
    let settings: Map<String, Value> = found.collect();
    (!settings.is_empty()).then_some(Value::Object(settings))
}

fn describe_metadata(metadata: &Metadata) -> Vec<(String, String)> {
    let value = |v: &MetaValue| match v {
        MetaValue::U64(n) => n.to_string(),
        MetaValue::I64(n) => n.to_string(),
        MetaValue::F64(x) => (*x as f32).to_string(),
        MetaValue::Bool(b) => b.to_string(),
        MetaValue::Str(s) => shorten(s),
        MetaValue::Array(a) => format!("[{} values]", a.len()),
        _ => "?".to_owned(),
    };
    metadata.iter().map(|(k, v)| (k.to_owned(), value(v))).collect()
}

/// At most 200 characters of `text`.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

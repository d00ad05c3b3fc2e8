//! A model folder as Hugging Face publishes it.

use std::path::{Path, PathBuf};

use alloyforge_types::{Error, Result};
use serde_json::{Map, Value};

use crate::json::{self, existing};
use crate::safetensors::SafetensorsStore;

/// Most bytes of one configuration file. The largest in use, tokenizer configurations that list
/// thousands of added tokens and classifiers with 21,000 labels, have little over one megabyte.
const MAX_CONFIG_LEN: u64 = 8 << 20;

/// Most bytes of a chat template.
const MAX_TEMPLATE_LEN: u64 = 4 << 20;

/// The folder's configuration, read when it is opened; the weights are opened when they are asked for.
#[derive(Debug, Clone)]
pub struct HfFolder {
    /// The folder as the caller named it.
    pub path: PathBuf,
    /// `config.json`, an object.
    pub config: Value,
    /// `generation_config.json`, an object.
    pub generation_config: Option<Value>,
    /// `tokenizer_config.json`, an object.
    pub tokenizer_config: Option<Value>,
    /// The default chat template's source: `chat_template.jinja`, else that of
    /// `tokenizer_config.json`, else that of `chat_template.json`.
    pub chat_template: Option<String>,
    /// Where `tokenizer.json` is.
    pub tokenizer_json: Option<PathBuf>,
}

impl HfFolder {
    /// Reads the configuration in the folder at `path`.
    ///
    /// # Errors
    /// `Io` where `config.json` is missing or a file cannot be read; `Format` where one is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let config = read_object(&path.join("config.json"))?;
        let optional = |name: &str| existing(path, name).map(|p| read_object(&p)).transpose();
        let generation_config = optional("generation_config.json")?;
        let tokenizer_config = optional("tokenizer_config.json")?;
        let chat_template = match existing(path, "chat_template.jinja") {
            Some(file) => Some(json::read_text(&file, MAX_TEMPLATE_LEN)?),
            None => match template_in(tokenizer_config.as_ref(), &path.join("tokenizer_config.json"))? {
                Some(source) => Some(source),
                None => {
                    let config = optional("chat_template.json")?;
                    template_in(config.as_ref(), &path.join("chat_template.json"))?
                }
            },
        };
        Ok(Self {
            path: path.to_owned(),
            config,
            generation_config,
            tokenizer_config,
            chat_template,
            tokenizer_json: existing(path, "tokenizer.json"),
        })
    }

    /// The path of `config.json`, for errors about it.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// The files that say how media are prepared, each an object under its name.
    ///
    /// # Errors
    /// `Format` where one is damaged.
    pub fn processor_files(&self) -> Result<Map<String, Value>> {
        const FILES: [&str; 3] =
            ["preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"];
        let mut all = Map::new();
        for name in FILES {
            if let Some(path) = existing(&self.path, name) {
                all.insert(name.to_owned(), read_object(&path)?);
            }
        }
        Ok(all)
    }

    /// The JSON in the file `name` of the folder, where there is one.
    ///
    /// # Errors
    /// `Format` where it is damaged.
    pub fn json(&self, name: &str) -> Result<Option<Value>> {
        existing(&self.path, name).map(|path| json::read_value(&path, MAX_CONFIG_LEN)).transpose()
    }

    /// Opens the weights.
    ///
    /// # Errors
    /// As [`SafetensorsStore::open`].
    pub fn weights(&self) -> Result<SafetensorsStore> {
        SafetensorsStore::open(&self.path)
    }
}

/// The JSON object in the file at `path`.
fn read_object(path: &Path) -> Result<Value> {
    let value = json::read_value(path, MAX_CONFIG_LEN)?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Error::format(path.display().to_string(), "JSON", "is not an object"))
    }
}

/// The `chat_template` of `config`, which is the file at `path`: one source, or a list of named ones of
/// which the default is taken.
fn template_in(config: Option<&Value>, path: &Path) -> Result<Option<String>> {
    let fault = |text: &str| Err(Error::format(path.display().to_string(), "chat_template", text));
    match config.and_then(|c| c.get("chat_template")) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source.clone())),
        Some(Value::Array(named)) => {
            let mut default = None;
            for item in named {
                match (item.get("name").and_then(Value::as_str), item.get("template").and_then(Value::as_str))
                {
                    (Some("default"), Some(source)) => default = Some(source.to_owned()),
                    (Some(_), Some(_)) => {}
                    _ => return fault("an item lacks its name or its template"),
                }
            }
            Ok(default)
        }
        Some(_) => fault("is neither a string nor a list of named templates"),
    }
}

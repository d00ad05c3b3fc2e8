//! What is in a model, and what it would take to run it.

use std::path::Path;

use alloyforge_models::{Description, describe};
use alloyforge_types::{Error, QuantType, Result};

use crate::source::Source;

/// One tensor, described.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSummary {
    /// Its name in the file.
    pub name: String,
    /// Its stored format.
    pub ty: QuantType,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Bytes of its data.
    pub bytes: u64,
}

/// A model file, described.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// `gguf` or `safetensors`.
    pub format: String,
    /// The files.
    pub files: Vec<String>,
    /// Every metadata key (of a GGUF file) or configuration key (of a folder), values shortened.
    pub metadata: Vec<(String, String)>,
    /// Every tensor.
    pub tensors: Vec<TensorSummary>,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// The source of the chat template.
    pub chat_template: Option<String>,
    /// The decoder, or why AlloyForge cannot run it.
    pub model: std::result::Result<Description, Error>,
}

/// Describes the model at `path`. A sound file that AlloyForge cannot run is described too.
///
/// # Errors
/// `Io`, `Format`: what [`Source::open`] cannot read.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let source = Source::open(path)?;
    let store = source.store();
    let summary = |name: &str| {
        store.tensor(name).map(|t| TensorSummary {
            name: name.to_owned(),
            ty: t.ty,
            bytes: t.data.len() as u64,
            shape: t.shape,
        })
    };
    let tensors: Vec<TensorSummary> = store.names().into_iter().filter_map(summary).collect();
    Ok(Inspection {
        format: source.format().to_owned(),
        files: source.files().iter().map(|f| f.display().to_string()).collect(),
        metadata: source.describe(),
        tensor_bytes: tensors.iter().map(|t| t.bytes).sum(),
        tensors,
        chat_template: source.chat_template(),
        model: source.resolve().map(|r| describe(&r, &*store)),
    })
}

//! `inspect`: what is in a model file.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::results::class;
use crate::wait::elsewhere;

/// Describes a model file or folder.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyAny>> {
    let found = elsewhere(py, move || alloyforge::inspect(&path), |_| Ok(()))?;
    let tensor = class(py, "TensorInfo")?;
    let mut tensors = Vec::with_capacity(found.tensors.len());
    for t in found.tensors {
        tensors.push(tensor.call1((t.name, t.ty.name(), PyTuple::new(py, t.shape)?, t.bytes))?);
    }
    let metadata = PyDict::new(py);
    for (key, value) in found.metadata {
        metadata.set_item(key, value)?;
    }
    let (model, fault) = match found.model {
        Ok(m) => {
            let fields = PyDict::new(py);
            fields.set_item("architecture", m.architecture)?;
            fields.set_item("parameters", m.parameters)?;
            fields.set_item("file_type", m.file_type)?;
            fields.set_item("num_layers", m.layers)?;
            fields.set_item("hidden_dim", m.hidden_dim)?;
            fields.set_item("num_heads", m.heads)?;
            fields.set_item("num_kv_heads", m.kv_heads)?;
            fields.set_item("head_dim", m.head_dim)?;
            fields.set_item("ff_dim", m.ff_dim)?;
            fields.set_item("num_experts", m.experts)?;
            fields.set_item("num_experts_per_token", m.experts_per_token)?;
            fields.set_item("vocab_size", m.vocab_size)?;
            fields.set_item("context_len", m.context_len)?;
            fields.set_item("window", m.window)?;
            fields.set_item("num_windowed_layers", m.windowed_layers)?;
            fields.set_item("has_tied_head", m.has_tied_head)?;
            fields.set_item("kv_bytes_per_token", m.kv_bytes_per_token)?;
            let model = class(py, "ModelSummary")?.call((), Some(&fields))?;
            (Some(model), None)
        }
        Err(error) => (None, Some(error.to_string())),
    };
    class(py, "Inspection")?.call1((
        found.format,
        found.files,
        metadata,
        tensors,
        found.tensor_bytes,
        found.chat_template,
        model,
        fault,
    ))
}

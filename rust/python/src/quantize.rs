//! `quantize_model`: a model's file written anew.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use alloyforge::QuantizeOptions;
use alloyforge_types::{Error, QuantMix};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::Raise;
use crate::results::class;
use crate::wait::elsewhere;

/// Ends the work on another thread when the call that waits for it is over.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes the model at `source` to a GGUF file at `target`, its matrices in the types of a mix.
#[pyfunction]
#[pyo3(signature = (source, target, *, r#type, threads=None, progress=None))]
pub(crate) fn quantize_model<'py>(
    py: Python<'py>,
    source: PathBuf,
    target: PathBuf,
    r#type: &str,
    threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let mix = QuantMix::from_name(r#type).ok_or_else(|| {
        let known: Vec<&str> = QuantMix::names().collect();
        Error::invalid("type", format!("`{}` is none of {}", r#type, known.join(", ")))
    });
    let (told, cancel) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let teller = Arc::clone(&told);
    let options = QuantizeOptions {
        mix: mix.raise()?,
        threads,
        progress: Some(Arc::new(move |done: f32| teller.store(done.to_bits(), Ordering::Relaxed))),
        cancel: Arc::clone(&cancel),
    };
    let guard = CancelOnDrop(cancel);
    let written = elsewhere(
        py,
        move || alloyforge::quantize(&source, &target, &options),
        |_| match progress {
            Some(progress) => progress.call1((f32::from_bits(told.load(Ordering::Relaxed)),)).map(drop),
            None => Ok(()),
        },
    )?;
    drop(guard);
    let fields = PyDict::new(py);
    fields.set_item("file_type", written.file_type)?;
    fields.set_item("tensors", written.tensors)?;
    fields.set_item("converted", written.converted)?;
    fields.set_item("requantized", written.requantized)?;
    fields.set_item("fallbacks", written.fallbacks)?;
    fields.set_item("bytes_before", written.bytes_before)?;
    fields.set_item("bytes", written.bytes)?;
    class(py, "Quantized")?.call((), Some(&fields))
}

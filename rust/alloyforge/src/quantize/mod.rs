//! A model's file written anew in other types.
//!
//! The file is made tensor by tensor, each in batches that all threads share, so that beside the mapped
//! source and the header no more than some megabytes are in memory. It stands under another name until it
//! is whole.

mod convert;
mod plan;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alloyforge_formats::gguf::GgufWriter;
use alloyforge_interfaces::Progress;
use alloyforge_kernels::topology::physical_cores;
use alloyforge_types::{Error, MetaValue, QuantMix, QuantType, Result};

use crate::source::Source;
use convert::{Converter, Turn};
use plan::Plan;

/// The version of ggml's block layouts, `GGML_QNT_VERSION`.
const LAYOUT_VERSION: u64 = 2;

/// How a file is written anew.
#[derive(Clone)]
pub struct QuantizeOptions {
    /// What its matrices are turned into.
    pub mix: QuantMix,
    /// Threads that convert; `None`: the physical cores that the process may use.
    pub threads: Option<usize>,
    /// Told how far it is, from any thread.
    pub progress: Option<Progress>,
    /// Set by the caller to end it before its end.
    pub cancel: Arc<AtomicBool>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantized {
    /// The mix, by its name.
    pub file_type: String,
    /// Tensors in the file.
    pub tensors: usize,
    /// Those whose type is another than before.
    pub converted: usize,
    /// Those of them that had lost numbers to a block type before.
    pub requantized: usize,
    /// Those whose rows are no whole blocks of the type that the mix has for them.
    pub fallbacks: usize,
    /// Bytes of all tensors before.
    pub bytes_before: u64,
    /// Bytes of all tensors in the file.
    pub bytes: u64,
}

/// Writes the model at `source`, a GGUF file or the first shard of one, to one GGUF file at `target`.
///
/// # Errors
/// `Io` where there is no source or the target cannot be written, and where it was cancelled;
/// `InvalidRequest` where the target is one of the source's own files or nothing can make the types
/// asked for; `Format` for a damaged source and for numbers that are not finite; `Unsupported` for a
/// source of another kind.
pub fn quantize(source: &Path, target: &Path, options: &QuantizeOptions) -> Result<Quantized> {
    if options.threads == Some(0) {
        return Err(Error::invalid("threads", "must be at least 1"));
    }
    let opened = Source::open(source)?;
    refuse_own_files(&opened.files(), target)?;
    let plan = Plan::new(&opened, options.mix)?;

    let mut writer = GgufWriter::new();
    plan.metadata(&mut writer);
    if let Some(number) = options.mix.file_type() {
        writer.set("general.file_type", &MetaValue::U64(number.into()))?;
    }
    writer.set("general.quantization_version", &MetaValue::U64(LAYOUT_VERSION))?;
    let mut report = Quantized {
        file_type: options.mix.name().to_owned(),
        tensors: plan.tensors.len(),
        converted: 0,
        requantized: 0,
        fallbacks: 0,
        bytes_before: 0,
        bytes: 0,
    };
    for tensor in &plan.tensors {
        writer.tensor(&tensor.name, tensor.to, &tensor.shape)?;
        let bytes = |ty: QuantType| ty.row_bytes(tensor.numbers()).unwrap_or(0) as u64;
        let is_converted = tensor.from != tensor.to;
        report.converted += usize::from(is_converted);
        report.requantized += usize::from(is_converted && !tensor.from.is_plain());
        report.fallbacks += usize::from(tensor.is_fallback);
        report.bytes_before += bytes(tensor.from);
        report.bytes += bytes(tensor.to);
    }

    let mut body = writer.create(target)?;
    let total = plan.tensors.iter().map(|tensor| tensor.numbers() as u64).sum::<u64>().max(1);
    let mut converter = Converter::new(options.threads.unwrap_or_else(physical_cores));
    let (label, mut done) = (opened.store().label().to_owned(), 0u64);
    for tensor in &plan.tensors {
        body.begin()?;
        let turn = Turn { name: &tensor.name, from: tensor.from, to: tensor.to };
        converter.run(&turn, &label, plan.data(tensor)?, |bytes, numbers| {
            if options.cancel.load(Ordering::Relaxed) {
                return Err(Error::io(target, &std::io::ErrorKind::Interrupted.into()));
            }
            done += numbers as u64;
            if let Some(progress) = &options.progress {
                progress((done as f64 / total as f64) as f32);
            }
            body.piece(bytes)
        })?;
    }
    body.finish()?;
    Ok(report)
}

/// Refuses a target that is a file of the source, by whatever name: its data are read until the end.
fn refuse_own_files(files: &[PathBuf], target: &Path) -> Result<()> {
    // A target that is not there yet, or not to be read, is none of them.
    let Ok(own) = Identity::of(target) else { return Ok(()) };
    for file in files {
        if Identity::of(file).map_err(|e| Error::io(file, &e))? == own {
            let fault = format!("{} is the source itself", target.display());
            return Err(Error::invalid("target", fault));
        }
    }
    Ok(())
}

/// What makes two paths one file: the same place on the disk, else the same path without links.
#[derive(PartialEq)]
struct Identity {
    #[cfg(unix)]
    place: (u64, u64),
    #[cfg(not(unix))]
    place: PathBuf,
}

impl Identity {
    #[cfg(unix)]
    fn of(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).map(|found| Self { place: (found.dev(), found.ino()) })
    }

    #[cfg(not(unix))]
    fn of(path: &Path) -> std::io::Result<Self> {
        path.canonicalize().map(|place| Self { place })
    }
}

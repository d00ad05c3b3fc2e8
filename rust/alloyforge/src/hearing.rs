//! Opens what a text model hears with.

use std::sync::Arc;

use alloyforge_engine::MediaModel;
use alloyforge_interfaces::{LoadOptions, TensorStore};
use alloyforge_kernels::topology;
use alloyforge_models::{AudioTower, Hearing, resolve_hearing};
use alloyforge_speech::{AudioEncoder, EncoderParts, SoundEncoder};
use alloyforge_types::Result;

use crate::backend::load;
use crate::open::OpenOptions;
use crate::source::Source;

/// Loads the encoder layers of `tower`, whose other tensors are in `store`.
///
/// # Errors
/// As [`open`](crate::open()).
pub(crate) fn load_tower(
    tower: AudioTower,
    store: Arc<dyn TensorStore>,
    device: &str,
    options: &OpenOptions,
) -> Result<AudioEncoder> {
    let load_options = LoadOptions {
        dtype: options.dtype,
        quantize: options.quantize,
        kv_type: options.kv_type,
        threads: options.threads,
        max_rows: tower.source_len,
        max_logit_rows: tower.source_len,
        kv_bytes: None,
        progress: options.progress.clone(),
    };
    let layers = load(tower.layers, device, options.backend, &load_options)?;
    AudioEncoder::new(EncoderParts {
        layers,
        store,
        prefix: tower.prefix,
        num_mels: tower.num_mels,
        source_len: tower.source_len,
        threads: options.threads.unwrap_or_else(topology::physical_cores),
    })
}

/// What the model in `source`, whose decoder has rows of `hidden_dim`, hears with, where it does.
///
/// # Errors
/// As [`open`](crate::open()).
pub(crate) fn open_hearing(
    source: &Source,
    hidden_dim: usize,
    device: &str,
    options: &OpenOptions,
) -> Result<Option<MediaModel>> {
    let Source::Folder(folder, _) = source else { return Ok(None) };
    let found = resolve_hearing(&folder.config, &folder.processor_files()?, &source.store(), hidden_dim)?;
    found.map(|hearing| load_hearing(hearing, device, options)).transpose()
}

/// Loads `hearing`.
///
/// # Errors
/// As [`open`](crate::open()).
pub(crate) fn load_hearing(hearing: Hearing, device: &str, options: &OpenOptions) -> Result<MediaModel> {
    let Hearing { tower, spec, store, prompts, processor } = hearing;
    // a tower is small beside its decoder, and what it hears is lost where its weights are rough
    let options = OpenOptions { quantize: None, progress: None, ..options.clone() };
    let encoder = load_tower(tower, Arc::clone(&store), device, &options)?;
    let encoder = Arc::new(SoundEncoder::new(encoder, spec, &store)?);
    Ok(MediaModel { prompts, encoder, processor })
}

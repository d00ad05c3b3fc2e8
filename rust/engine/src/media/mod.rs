//! Pictures, videos and sounds in requests.
//!
//! An item goes three ways. Its placeholder in the prompt becomes tokens and rows ([`MediaPrompt`]),
//! made by the caller's thread. Its numbers become rows on a thread of their own (`desk`), so that
//! text keeps streaming meanwhile, and are kept by the item's hash. Then the sequence carries both
//! ([`SequenceMedia`]): each step splices the rows that it covers, and the hash takes part in the
//! prefix cache's keys, so that two pictures behind the same placeholder are never mistaken.

pub(crate) mod desk;
mod prompt;
mod sequence;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, OnceLock};

use alloyforge_interfaces::{Encoder, MediaPrompts};
use alloyforge_types::{MediaItem, MediaKind, MediaTensor};

pub use prompt::MediaPrompt;
pub(crate) use prompt::{Assembly, Source};
pub use sequence::SequenceMedia;

/// What a model sees with.
#[derive(Clone)]
pub struct MediaModel {
    /// How its prompts hold media.
    pub prompts: Arc<dyn MediaPrompts>,
    /// What makes rows of items.
    pub encoder: Arc<dyn Encoder>,
    /// Which processor prepares items, and how.
    pub processor: serde_json::Value,
}

/// An item with its hash: keyed with numbers that this process drew, so that nobody can prepare two
/// items with one hash.
pub fn media_item(kind: MediaKind, tensors: Vec<MediaTensor>, facts: Vec<(String, Vec<f64>)>) -> MediaItem {
    static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| [RandomState::new(), RandomState::new()]);
    let half = |key: &RandomState| {
        let mut hasher = key.build_hasher();
        hasher.write_u8(kind as u8);
        for tensor in &tensors {
            hasher.write(tensor.name.as_bytes());
            hasher.write_u8(0xff);
            for &size in &tensor.shape {
                hasher.write_usize(size);
            }
            hasher.write_usize(usize::MAX);
            for value in tensor.values.chunks(2) {
                let bits = |i: usize| value.get(i).map_or(0, |v| u64::from(v.to_bits()));
                hasher.write_u64(bits(0) << 32 | bits(1));
            }
        }
        for (name, values) in &facts {
            hasher.write(name.as_bytes());
            hasher.write_u8(0xff);
            values.iter().for_each(|v| hasher.write_u64(v.to_bits()));
            hasher.write_usize(values.len());
        }
        hasher.finish()
    };
    let hash = u128::from(half(&keys[0])) << 64 | u128::from(half(&keys[1]));
    MediaItem { kind, hash, tensors, facts }
}

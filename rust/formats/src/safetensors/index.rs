//! The index of a checkpoint in several files: `model.safetensors.index.json`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path};

use alloyforge_types::{Error, Result};
use serde::de::{Error as _, MapAccess, Visitor};

use crate::json;

/// Most bytes of an index; that of a model with 91,000 tensors has 9 MB.
const MAX_LEN: u64 = 64 << 20;

/// Most tensors in an index and in all the files of a checkpoint.
pub(super) const MAX_TENSORS: usize = 1 << 20;

/// Most files in an index; the largest checkpoints have a few hundred.
const MAX_SHARDS: usize = 1 << 14;

/// Which file holds which tensor.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// File names, in the order of their first mention; none leads out of the index's folder.
    pub(super) shards: Vec<String>,
    /// Tensor names, each with the number of its shard.
    pub(super) tensors: Vec<(Box<str>, u32)>,
}

/// Reads the index at `path`.
pub(super) fn read(path: &Path) -> Result<Index> {
    let bytes = json::read(path, MAX_LEN)?;
    let label = path.display().to_string();
    let file: IndexFile =
        serde_json::from_slice(&bytes).map_err(|e| json::fault(&label, "index", &bytes, 0, &e))?;
    let index = file.weight_map;
    if index.tensors.is_empty() {
        return Err(Error::format(label, "weight_map", "lists no tensor"));
    }
    if let Some(bad) = index.shards.iter().find(|name| !is_file_name(name)) {
        let fault = format!("shard {bad:?} is not the name of a file in this folder");
        return Err(Error::format(label, "weight_map", fault));
    }
    Ok(index)
}

/// Whether `name` is a plain file name, on every system.
fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let single =
        matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    single && !name.contains(['/', '\\', ':', '\0'])
}

#[derive(serde::Deserialize)]
struct IndexFile {
    weight_map: Index,
}

impl<'de> serde::Deserialize<'de> for Index {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct WeightMap;

        impl<'de> Visitor<'de> for WeightMap {
            type Value = Index;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of file names by tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Index, A::Error> {
                let mut index = Index::default();
                let mut numbers: HashMap<String, u32> = HashMap::new();
                while let Some(name) = map.next_key::<Box<str>>()? {
                    if index.tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    let shard: Cow<'de, str> = map.next_value()?;
                    let number = match numbers.get(&*shard) {
                        Some(&n) => n,
                        None if index.shards.len() == MAX_SHARDS => {
                            return Err(A::Error::custom(format!("more than {MAX_SHARDS} files")));
                        }
                        None => {
                            let n = index.shards.len() as u32;
                            index.shards.push(shard.clone().into_owned());
                            numbers.insert(shard.into_owned(), n);
                            n
                        }
                    };
                    index.tensors.push((name, number));
                }
                Ok(index)
            }
        }

        deserializer.deserialize_map(WeightMap)
    }
}

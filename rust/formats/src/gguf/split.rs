//! Models split over several files.
//!
//! llama.cpp names the shards `PREFIX-00001-of-00003.gguf` and puts into each its number from 0
//! (`split.no`), how many there are (`split.count`), and how many tensors all hold together
//! (`split.tensors.count`). The first one has the model's metadata.

use std::path::{Path, PathBuf};

use alloyforge_types::{Error, Metadata, Result};

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Most shards: the number is five digits in the name and 16 bits in the file.
const MAX_SHARDS: u64 = u16::MAX as u64;

/// Whether `key` is one of those that number the shards.
pub(super) fn is_split_key(key: &str) -> bool {
    [NO, COUNT, TENSORS].contains(&key)
}

/// What a shard says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    /// Its number, from 0.
    pub(super) no: u64,
    /// How many there are.
    pub(super) count: u64,
    /// Tensors in all of them, where it says so.
    pub(super) num_tensors: Option<u64>,
}

impl Split {
    /// What the metadata of `file` say; `None` where the file stands alone.
    pub(super) fn read(metadata: &Metadata, file: &str) -> Result<Option<Self>> {
        let number = |key: &str| match (metadata.get(key), metadata.u64(key)) {
            (None, _) => Ok(None),
            (Some(_), Some(n)) => Ok(Some(n)),
            (Some(_), None) => Err(fault(file, key, "is no whole number")),
        };
        let (no, count, num_tensors) = (number(NO)?, number(COUNT)?, number(TENSORS)?);
        let Some(count) = count.filter(|&n| n > 0) else {
            return Ok(None);
        };
        if count > MAX_SHARDS {
            return Err(fault(
                file,
                COUNT,
                format!("counts {count} shards, at most {MAX_SHARDS} are allowed"),
            ));
        }
        let no = no.ok_or_else(|| fault(file, NO, "is missing from a shard"))?;
        if no >= count {
            return Err(fault(file, NO, format!("shard number {no} is not below the count of {count}")));
        }
        Ok(Some(Self { no, count, num_tensors }).filter(|s| s.count > 1))
    }

    /// The paths of shards 1 and up, `first` being the first one's.
    pub(super) fn others(self, first: &Path) -> Result<Vec<PathBuf>> {
        let label = first.display().to_string();
        let name = first.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let ending = |no: u64| format!("-{:05}-of-{:05}.gguf", no + 1, self.count);
        let mine = ending(self.no);
        let Some(prefix) = name.strip_suffix(&mine) else {
            let text = format!(
                "this is shard {} of {}, and the others are missing: they would be found if its name ended in `{mine}`",
                self.no + 1,
                self.count
            );
            return Err(fault(&label, COUNT, text));
        };
        if self.no != 0 {
            let text = format!(
                "this is shard {} of {}: open the first one, `{prefix}{}`",
                self.no + 1,
                self.count,
                ending(0)
            );
            return Err(fault(&label, NO, text));
        }
        let paths = (1..self.count).map(|no| first.with_file_name(format!("{prefix}{}", ending(no))));
        let mut found = Vec::new();
        for path in paths {
            if !path.exists() {
                let text = format!("shard `{}` is missing", path.display());
                return Err(fault(&label, COUNT, text));
            }
            found.push(path);
        }
        Ok(found)
    }

    /// Checks that `other`, said by `file`, is the shard numbered `no` of the same model.
    pub(super) fn check_other(self, other: Option<Self>, no: u64, file: &str) -> Result<()> {
        let Some(other) = other else {
            return Err(fault(file, COUNT, "is missing from a shard"));
        };
        if other.count != self.count {
            let text = format!("says {} shards, the first shard says {}", other.count, self.count);
            return Err(fault(file, COUNT, text));
        }
        if other.no != no {
            let text = format!("says shard {}, its name says {}", other.no + 1, no + 1);
            return Err(fault(file, NO, text));
        }
        Ok(())
    }

    /// Checks that the shards together hold `found` tensors.
    pub(super) fn check_total(self, found: usize, file: &str) -> Result<()> {
        match self.num_tensors {
            Some(n) if n != found as u64 => {
                Err(fault(file, TENSORS, format!("says {n} tensors, the shards hold {found}")))
            }
            _ => Ok(()),
        }
    }
}

fn fault(file: &str, key: &str, text: impl Into<String>) -> Error {
    Error::format(file, format!("metadata `{key}`"), text)
}

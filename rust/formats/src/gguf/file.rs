//! A GGUF model, opened.

use std::ops::Range;
use std::path::Path;

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{Error, Metadata, QuantType, Result, TensorView};

use super::header;
use super::split::Split;
use super::tensors::Entry;
use crate::mapped::MappedFile;
use crate::names::NameIndex;

/// A GGUF file, or all the files of a split one, mapped and checked.
#[derive(Debug)]
pub struct GgufFile {
    shards: Vec<MappedFile>,
    version: u32,
    metadata: Metadata,
    /// For each pair, where its value stands in the first file.
    values: Vec<Range<usize>>,
    /// In the order of the files and of each file's table.
    entries: Vec<Entry>,
    by_name: NameIndex,
}

/// Where a tensor is and what it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its stored format.
    pub ty: QuantType,
    /// Its shape, outermost dimension first.
    pub shape: &'a [usize],
    /// The file that holds it.
    pub file: &'a Path,
    /// Where its data begins, in bytes from the file's start.
    pub offset: u64,
    /// Bytes of its data.
    pub len: u64,
}

impl GgufFile {
    /// Maps the file at `path`, a single one or the first shard of several, and checks every header.
    ///
    /// A file without tensors (a vocabulary) opens too.
    ///
    /// # Errors
    /// `Io` where `path` cannot be read; `Format` where a file is damaged or a shard is missing or
    /// from another model; `Unsupported` for another version, byte order or tensor type.
    pub fn open(path: &Path) -> Result<Self> {
        let first = MappedFile::open(path)?;
        let mut header = header::read(&first, 0)?;
        let split = Split::read(&header.metadata, first.label())?;
        let (mut shards, mut entries) = (vec![first], std::mem::take(&mut header.entries));
        if let Some(split) = split {
            for (path, no) in split.others(path)?.iter().zip(1u32..) {
                let shard = MappedFile::open(path)?;
                let header = header::read(&shard, no)?;
                let other = Split::read(&header.metadata, shard.label())?;
                split.check_other(other, no.into(), shard.label())?;
                shards.push(shard);
                entries.extend(header.entries);
            }
            split.check_total(entries.len(), shards[0].label())?;
        }
        let by_name = index(&shards, &entries)?;
        let header::Header { version, metadata, values, .. } = header;
        Ok(Self { shards, version, metadata, values, entries, by_name })
    }

    /// The version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata; of a split model, the first shard's.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The metadata pairs with the bytes of their values, the number of the type first.
    pub(super) fn raw_pairs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let bytes = self.shards[0].bytes();
        self.metadata.iter().zip(&self.values).map(|((key, _), range)| (key, &bytes[range.clone()]))
    }

    /// The files, first shard first.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.shards.iter().map(MappedFile::path)
    }

    /// Every tensor, in the order of the files.
    pub fn tensor_infos(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        self.entries.iter().map(|e| TensorInfo {
            name: &e.name,
            ty: e.ty,
            shape: e.shape(),
            file: self.shards[e.shard as usize].path(),
            offset: e.start as u64,
            len: e.len as u64,
        })
    }
}

impl TensorStore for GgufFile {
    fn label(&self) -> &str {
        self.shards[0].label()
    }

    fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|e| &*e.name).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let entry = self.by_name.find(&self.entries, |e| &e.name, name)?;
        let bytes = self.shards[entry.shard as usize].bytes();
        let data = bytes.get(entry.start..entry.start + entry.len)?;
        Some(TensorView { ty: entry.ty, shape: entry.shape().to_vec(), data })
    }

    fn release(&self, name: &str) {
        if let Some(e) = self.by_name.find(&self.entries, |e| &e.name, name) {
            self.shards[e.shard as usize].release(e.start..e.start + e.len);
        }
    }
}

/// The index of `entries`; refuses a name that occurs twice.
fn index(shards: &[MappedFile], entries: &[Entry]) -> Result<NameIndex> {
    if u32::try_from(entries.len()).is_err() {
        return Err(Error::format(shards[0].label(), "tensor count", "is over 2^32"));
    }
    NameIndex::new(entries, |e| &e.name).map_err(|later| {
        let file = shards[later.shard as usize].label();
        Error::format(file, format!("tensor `{}`", later.name), "the name occurs twice")
    })
}

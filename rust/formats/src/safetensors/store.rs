//! A safetensors checkpoint, opened.

use std::path::{Path, PathBuf};

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{ByteView, Error, Result, TensorView};

use super::dtype::Dtype;
use super::header::{self, Entry};
use super::index::{self, Index};
use crate::json::existing;
use crate::mapped::MappedFile;
use crate::names::NameIndex;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A safetensors file, or all the files of a sharded checkpoint, mapped and checked.
#[derive(Debug)]
pub struct SafetensorsStore {
    label: String,
    shards: Vec<MappedFile>,
    /// In the order of the files and of each file's header.
    entries: Vec<Entry>,
    by_name: NameIndex,
}

/// A tensor of any element type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape, outermost dimension first, at most 8 dimensions.
    pub shape: &'a [usize],
    /// The elements in row-major order.
    pub data: &'a [u8],
    /// The file that holds it.
    pub file: &'a Path,
    /// Where its data begins, in bytes from the file's start.
    pub offset: u64,
}

impl SafetensorsStore {
    /// Maps the checkpoint at `path` and checks every header.
    ///
    /// `path` is a safetensors file, an index (`*.index.json`), or a folder: then its
    /// `model.safetensors`, else what `model.safetensors.index.json` lists, else the one safetensors
    /// file that it holds.
    ///
    /// # Errors
    /// `Io` where nothing is there or it cannot be read; `Format` where a file is damaged, a shard is
    /// missing, or files and index contradict each other.
    pub fn open(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        if !path.is_dir() {
            return match path.to_str() {
                Some(name) if name.ends_with(".index.json") => Self::open_index(path, label),
                _ => Self::open_files(&[path.to_owned()], label),
            };
        }
        if let Some(file) = existing(path, SINGLE) {
            return Self::open_files(&[file], label);
        }
        if let Some(file) = existing(path, INDEX) {
            return Self::open_index(&file, label);
        }
        let mut files = safetensors_files(path)?;
        match files.len() {
            0 => {
                let fault = format!("the folder has neither {SINGLE} nor {INDEX}");
                Err(Error::io(path.join(SINGLE), &std::io::Error::new(std::io::ErrorKind::NotFound, fault)))
            }
            1 => Self::open_files(&files, label),
            n => {
                files.sort();
                let fault = format!("the folder has {n} safetensors files and no {INDEX} that says which");
                Err(Error::format(label, "folder", fault))
            }
        }
    }

    /// Every tensor, of whatever type, in the order of the files.
    pub fn raw_tensors(&self) -> impl ExactSizeIterator<Item = RawTensor<'_>> {
        self.entries.iter().map(|e| self.raw(e))
    }

    /// The tensor called `name`, of whatever type.
    pub fn raw_tensor(&self, name: &str) -> Option<RawTensor<'_>> {
        self.find(name).map(|e| self.raw(e))
    }

    /// The files, in the order of the index.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.shards.iter().map(MappedFile::path)
    }

    fn open_files(files: &[PathBuf], label: String) -> Result<Self> {
        let (mut shards, mut entries) = (Vec::new(), Vec::new());
        for (path, no) in files.iter().zip(0u32..) {
            let shard = MappedFile::open(path)?;
            entries.extend(header::read(&shard, no)?);
            if entries.len() > index::MAX_TENSORS {
                let fault = format!("the files have more than {} tensors", index::MAX_TENSORS);
                return Err(Error::format(shard.label(), "header", fault));
            }
            shards.push(shard);
        }
        let by_name = NameIndex::new(&entries, |e| &e.name).map_err(|later: &Entry| {
            let file = shards[later.shard as usize].label();
            Error::format(file, header::tensor_item(&later.name), "the name occurs twice")
        })?;
        Ok(Self { label, shards, entries, by_name })
    }

    fn open_index(path: &Path, label: String) -> Result<Self> {
        let index = index::read(path)?;
        let mut files = Vec::new();
        for name in &index.shards {
            let file = path.with_file_name(name);
            if !file.is_file() {
                let fault = format!("shard `{name}` is missing");
                return Err(Error::format(path.display().to_string(), "weight_map", fault));
            }
            files.push(file);
        }
        let store = Self::open_files(&files, label)?;
        store.check_index(&index, path)?;
        Ok(store)
    }

    /// Checks that every tensor of the index is in the file that the index says.
    fn check_index(&self, index: &Index, path: &Path) -> Result<()> {
        let mut names: Vec<&str> = index.tensors.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let fault = |name: &str, text: String| {
            Error::format(path.display().to_string(), header::tensor_item(name), text)
        };
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(fault(pair[0], "the name occurs twice".to_owned()));
        }
        for (name, shard) in &index.tensors {
            if self.find(name).is_none_or(|e| e.shard != *shard) {
                let file = &index.shards[*shard as usize];
                return Err(fault(name, format!("is not in shard `{file}`")));
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        self.by_name.find(&self.entries, |e| &e.name, name)
    }

    fn raw<'a>(&'a self, entry: &'a Entry) -> RawTensor<'a> {
        let shard = &self.shards[entry.shard as usize];
        RawTensor {
            name: &entry.name,
            dtype: entry.dtype,
            shape: entry.shape.dims(),
            data: &shard.bytes()[entry.start..entry.start + entry.len],
            file: shard.path(),
            offset: entry.start as u64,
        }
    }
}

impl TensorStore for SafetensorsStore {
    fn label(&self) -> &str {
        &self.label
    }

    fn names(&self) -> Vec<&str> {
        self.entries.iter().filter(|e| e.dtype.quant_type().is_some()).map(|e| &*e.name).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let raw = self.raw_tensor(name)?;
        Some(TensorView { ty: raw.dtype.quant_type()?, shape: raw.shape.to_vec(), data: raw.data })
    }

    fn bytes(&self, name: &str) -> Option<ByteView<'_>> {
        let raw = self.raw_tensor(name)?;
        (raw.dtype == Dtype::U8).then(|| ByteView { shape: raw.shape.to_vec(), data: raw.data })
    }

    fn foreign_type(&self, name: &str) -> Option<&str> {
        let dtype = self.find(name)?.dtype;
        dtype.quant_type().is_none().then(|| dtype.name())
    }

    fn release(&self, name: &str) {
        if let Some(e) = self.find(name) {
            self.shards[e.shard as usize].release(e.start..e.start + e.len);
        }
    }
}

/// The safetensors files in `folder`.
fn safetensors_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e: std::io::Error| Error::io(folder, &e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "safetensors") && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

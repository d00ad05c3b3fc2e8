//! Builds files byte by byte, without the crate's own writer, so that a fault can be put anywhere.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

use alloyforge_types::Error;

/// A GGUF file's parts.
#[derive(Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    pub num_tensors: Option<u64>,
    pub num_pairs: Option<u64>,
    /// Each pair whole: key, type, value.
    pub pairs: Vec<Vec<u8>>,
    /// Each row of the table whole.
    pub infos: Vec<Vec<u8>>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

impl Default for Gguf {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            num_tensors: None,
            num_pairs: None,
            pairs: Vec::new(),
            infos: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        }
    }
}

impl Gguf {
    /// Two tensors, `a` f32 of 2 rows of 3 and `b` q4_0 of 1 row of 32, and a string.
    pub fn sound() -> Self {
        Self {
            pairs: vec![pair("general.architecture", 8, &text("llama"))],
            infos: vec![info("a", &[3, 2], 0, 0), info("b", &[32], 2, 32)],
            data: (0..50u8).collect(),
            ..Self::default()
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.num_tensors.unwrap_or(self.infos.len() as u64).to_le_bytes());
        out.extend(self.num_pairs.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        out.extend(self.pairs.concat());
        out.extend(self.infos.concat());
        if !self.data.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
        }
        out.extend(&self.data);
        out
    }
}

/// A string with its length before it.
pub fn text(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

/// A metadata pair whose value is `value` of the type numbered `ty`.
pub fn pair(key: &str, ty: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &ty.to_le_bytes(), value].concat()
}

/// An array value.
pub fn array(ty: u32, count: u64, items: &[u8]) -> Vec<u8> {
    [&ty.to_le_bytes()[..], &count.to_le_bytes(), items].concat()
}

/// A row of the tensor table; `dims` innermost first, as the file has them.
pub fn info(name: &str, dims: &[u64], ty: u32, offset: u64) -> Vec<u8> {
    let mut out = text(name);
    out.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    out.extend(ty.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

/// A safetensors file of `header` and `data`.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Writes `bytes` as `name` in `folder`.
pub fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The parts of a `Format` error; panics on any other.
pub fn format_error(error: &Error) -> (&str, &str, &str, Option<u64>) {
    match error {
        Error::Format { file, item, fault, offset } => (file, item, fault, *offset),
        other => panic!("not a format error: {other:?}"),
    }
}

//! Writing a GGUF file.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use alloyforge_types::{Error, MetaValue, QuantType, Result};

use super::encode;
use super::{
    ALIGNMENT_KEY, DEFAULT_ALIGNMENT, GgufFile, MAGIC, MAX_ALIGNMENT, MAX_DIMS, MAX_KEY_LEN, MAX_NAME_LEN,
    split,
};

/// The version that is written.
const VERSION: u32 = 3;

/// What a file shall hold: metadata, and tensors by name, type and shape.
///
/// Everything before the data depends on all tensors, so they are announced first; then
/// [`create`](Self::create) writes the header, and the data follow one tensor after another, so that no
/// more than one need be in memory.
#[derive(Debug, Clone, Default)]
pub struct GgufWriter {
    /// Keys, each with the bytes of its value's type and value.
    pairs: Vec<(String, Vec<u8>)>,
    tensors: Vec<Planned>,
    alignment: Option<u64>,
}

#[derive(Debug, Clone)]
struct Planned {
    name: String,
    ty: QuantType,
    shape: Vec<usize>,
    len: u64,
}

impl GgufWriter {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over every metadata pair of `file` byte for byte, apart from those that number its shards.
    pub fn copy_metadata(&mut self, file: &GgufFile) {
        for (key, value) in file.raw_pairs().filter(|(key, _)| !split::is_split_key(key)) {
            self.put(key, value.to_vec());
        }
        if let Some(alignment) = file.metadata().u64(ALIGNMENT_KEY) {
            self.alignment = Some(alignment);
        }
    }

    /// Sets `key` to `value`, in the place of an earlier value.
    ///
    /// The file has several widths of number, a [`MetaValue`] only the largest: written is the 32-bit
    /// form where it holds the value, which is what llama.cpp reads almost all of its keys as.
    ///
    /// # Errors
    /// `InvalidRequest` where the key is empty or too long, arrays nest too deep, or `general.alignment`
    /// is not a power of two.
    pub fn set(&mut self, key: &str, value: &MetaValue) -> Result<()> {
        if key.is_empty() || key.len() > MAX_KEY_LEN {
            return Err(Error::invalid(
                "key",
                format!("has {} bytes, 1 to {MAX_KEY_LEN} are allowed", key.len()),
            ));
        }
        if key == ALIGNMENT_KEY {
            match *value {
                MetaValue::U64(n) if n.is_power_of_two() && n <= MAX_ALIGNMENT => self.alignment = Some(n),
                _ => {
                    let fault = format!("{value:?} is not a power of two up to {MAX_ALIGNMENT}");
                    return Err(Error::invalid(key, fault));
                }
            }
        }
        let mut bytes = Vec::new();
        encode::value(value, &mut bytes).map_err(|fault| Error::invalid(key, fault))?;
        self.put(key, bytes);
        Ok(())
    }

    /// Drops `key`, where it is there.
    pub fn remove(&mut self, key: &str) {
        self.pairs.retain(|(k, _)| k != key);
        if key == ALIGNMENT_KEY {
            self.alignment = None;
        }
    }

    /// Announces the next tensor; `shape` has the outermost dimension first.
    ///
    /// # Errors
    /// `InvalidRequest` where the format cannot hold it: a name that is taken, empty or over 63 bytes,
    /// over 4 dimensions, a dimension of 0, rows that are not whole blocks.
    pub fn tensor(&mut self, name: &str, ty: QuantType, shape: &[usize]) -> Result<()> {
        let fault = |text: String| Err(Error::invalid(format!("tensor `{name}`"), text));
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            return fault(format!("the name has {} bytes, 1 to {MAX_NAME_LEN} are allowed", name.len()));
        }
        if self.tensors.iter().any(|t| t.name == name) {
            return fault("the name occurs twice".to_owned());
        }
        if shape.len() > MAX_DIMS || shape.contains(&0) {
            return fault(format!("shape {shape:?} has over {MAX_DIMS} dimensions or one of 0"));
        }
        let (cols, rows) = match shape.split_last() {
            Some((&cols, rest)) => (cols, rest.iter().try_fold(1usize, |n, &d| n.checked_mul(d))),
            None => (1, Some(1)),
        };
        let len = ty.row_bytes(cols).and_then(|row| row.checked_mul(rows?));
        let Some(len) = len.filter(|&n| n <= isize::MAX as usize) else {
            return fault(format!("shape {shape:?} is not whole blocks of {}, or too large", ty.name()));
        };
        self.tensors.push(Planned { name: name.to_owned(), ty, shape: shape.to_vec(), len: len as u64 });
        Ok(())
    }

    /// Writes the header of a new file at `path`. Until [`GgufBody::finish`] it stands under another
    /// name beside it, one that no file has, so that a file at `path` is always whole.
    ///
    /// # Errors
    /// `Io` where the file cannot be written.
    pub fn create(self, path: &Path) -> Result<GgufBody> {
        let alignment = self.alignment.unwrap_or(DEFAULT_ALIGNMENT);
        let header = self.header(alignment);
        let (part, file) = create_beside(path)?;
        let pending = self.tensors.into_iter().map(|t| (t.name, t.len)).collect::<Vec<_>>().into_iter();
        let mut body = GgufBody {
            out: Some(BufWriter::new(file)),
            path: path.to_owned(),
            part,
            alignment,
            written: 0,
            left: 0,
            pending,
        };
        body.write(&header)?;
        Ok(body)
    }

    /// Puts a pair in the place of an earlier one of the same key, or at the end.
    fn put(&mut self, key: &str, value: Vec<u8>) {
        match self.pairs.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key.to_owned(), value)),
        }
    }

    fn header(&self, alignment: u64) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            encode::str(key, &mut out);
            out.extend(value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            encode::str(&tensor.name, &mut out);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for &dim in tensor.shape.iter().rev() {
                out.extend((dim as u64).to_le_bytes());
            }
            out.extend(tensor.ty.ggml_id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.len.next_multiple_of(alignment);
        }
        out
    }
}

/// A file whose header is written and whose tensors' data follow.
///
/// Dropped before [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct GgufBody {
    /// `None` once finished.
    out: Option<BufWriter<File>>,
    path: PathBuf,
    part: PathBuf,
    alignment: u64,
    written: u64,
    /// Bytes that the tensor which was begun last still lacks.
    left: u64,
    pending: std::vec::IntoIter<(String, u64)>,
}

impl GgufBody {
    /// Writes the data of the next tensor, in the order in which they were announced.
    ///
    /// # Errors
    /// `Io` where it cannot be written; `InvalidRequest` where the length is not that of the type and
    /// shape, or no tensor is left.
    pub fn tensor(&mut self, data: &[u8]) -> Result<()> {
        let (name, len) = self.next()?;
        if data.len() as u64 != len {
            let fault = format!("has {len} bytes, {} were given", data.len());
            return Err(Error::invalid(format!("tensor `{name}`"), fault));
        }
        self.pad()?;
        self.write(data)
    }

    /// Begins the next tensor, whose data [`piece`](Self::piece) takes as they come.
    ///
    /// # Errors
    /// `Io`; `InvalidRequest` where the one before lacks data, or no tensor is left.
    pub fn begin(&mut self) -> Result<()> {
        let (_, len) = self.next()?;
        self.pad()?;
        self.left = len;
        Ok(())
    }

    /// Writes more data of the tensor that was begun.
    ///
    /// # Errors
    /// `Io`; `InvalidRequest` where it has no room for them.
    pub fn piece(&mut self, data: &[u8]) -> Result<()> {
        let Some(left) = self.left.checked_sub(data.len() as u64) else {
            let fault = format!("{} bytes are more than the {} that its tensor lacks", data.len(), self.left);
            return Err(Error::invalid("data", fault));
        };
        self.left = left;
        self.write(data)
    }

    /// The next tensor's name and length.
    fn next(&mut self) -> Result<(String, u64)> {
        if self.left > 0 {
            return Err(Error::invalid("data", format!("the tensor before lacks {} bytes", self.left)));
        }
        self.pending.next().ok_or_else(|| Error::invalid("data", "all announced tensors are written"))
    }

    /// Completes the file and puts it in its place.
    ///
    /// # Errors
    /// `Io` where it cannot be written; `InvalidRequest` where a tensor's data are missing.
    pub fn finish(mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::invalid("data", format!("the last tensor lacks {} bytes", self.left)));
        }
        if let Some((name, _)) = self.pending.next() {
            return Err(Error::invalid(format!("tensor `{name}`"), "its data are missing"));
        }
        self.pad()?;
        let Some(mut out) = self.out.take() else {
            return Ok(());
        };
        // What is renamed must be on the disk, or a crash could leave an empty file under the name.
        let done = out.flush().and_then(|()| out.get_ref().sync_all());
        let done = done.and_then(|()| std::fs::rename(&self.part, &self.path));
        done.map_err(|e| {
            let _ = std::fs::remove_file(&self.part);
            Error::io(&self.path, &e)
        })
    }

    /// Zeros up to the alignment, of the header too.
    fn pad(&mut self) -> Result<()> {
        let missing = self.written.next_multiple_of(self.alignment) - self.written;
        // Padding is below the alignment, which is at most 16 MiB.
        self.write(&vec![0; missing as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(out) = &mut self.out {
            out.write_all(bytes).map_err(|e| Error::io(&self.part, &e))?;
        }
        self.written += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for GgufBody {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// A new file beside `path`, under a name that no file had.
fn create_beside(path: &Path) -> Result<(PathBuf, File)> {
    let mut number = 0u32;
    loop {
        let mut part = path.as_os_str().to_owned();
        part.push(format!(".{}-{number}.part", std::process::id()));
        let part = PathBuf::from(part);
        match OpenOptions::new().write(true).create_new(true).open(&part) {
            Ok(file) => return Ok((part, file)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(e) => return Err(Error::io(path, &e)),
        }
    }
}

//! A place in a file's bytes that never leaves them.

use alloyforge_types::{Error, Result};

/// Reads little-endian values one after another; every read is checked against the file's end.
///
/// `item` in each call is what is being read, for the error.
pub(super) struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`, which are the file called `file`.
    pub(super) fn new(file: &'a str, bytes: &'a [u8]) -> Self {
        Self { file, bytes, pos: 0 }
    }

    /// The file's name.
    pub(super) fn file(&self) -> &'a str {
        self.file
    }

    /// Bytes read so far.
    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes left.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// An error about `item`, read at `at`.
    pub(super) fn fault(&self, item: &str, at: usize, fault: impl Into<String>) -> Error {
        Error::Format {
            file: self.file.to_owned(),
            item: item.to_owned(),
            fault: fault.into(),
            offset: Some(at as u64),
        }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, item: &str) -> Result<&'a [u8]> {
        let left = self.remaining();
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                let (start, end) = (self.pos, self.pos + len);
                self.pos = end;
                Ok(&self.bytes[start..end])
            }
            _ => Err(self.fault(item, self.pos, format!("needs {len} bytes, the file has {left} more"))),
        }
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self, item: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, item)?);
        Ok(out)
    }

    /// The next four bytes as an integer.
    pub(super) fn u32(&mut self, item: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(item)?))
    }

    /// The next eight bytes as an integer.
    pub(super) fn u64(&mut self, item: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(item)?))
    }

    /// A length and that many bytes of UTF-8.
    pub(super) fn str(&mut self, item: &str) -> Result<&'a str> {
        let len = self.u64(item)?;
        let at = self.pos;
        let bytes = self.take(len, item)?;
        std::str::from_utf8(bytes)
            .map_err(|e| self.fault(item, at + e.valid_up_to(), "the string is not UTF-8"))
    }

    /// A count of things that take at least `least` bytes each, refused where the file is too short
    /// to hold them, so that the count may size an allocation.
    pub(super) fn count(&mut self, least: usize, item: &str) -> Result<usize> {
        let at = self.pos;
        let count = self.u64(item)?;
        let most = self.remaining() / least;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(self.fault(
                item,
                at,
                format!("counts {count}, the rest of the file holds {most} at the most"),
            )),
        }
    }
}

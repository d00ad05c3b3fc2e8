//! A file mapped into memory, read-only.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use alloyforge_types::{Error, Result};
use memmap2::Mmap;

/// A regular file's bytes, paged in as they are read.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    label: String,
    /// `None` for an empty file, which some systems refuse to map.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// `Io` where it is missing, unreadable or no regular file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |e: &std::io::Error| Error::io(path, e);
        // Asked before opening: opening a named pipe would wait for its writer.
        let kind = std::fs::metadata(path).map_err(|e| io(&e))?;
        if !kind.is_file() {
            let fault = if kind.is_dir() { "is a folder, not a file" } else { "is not a regular file" };
            return Err(io(&std::io::Error::new(std::io::ErrorKind::InvalidInput, fault)));
        }
        let file = File::open(path).map_err(|e| io(&e))?;
        let len = file.metadata().map_err(|e| io(&e))?.len();
        let map = match len {
            0 => None,
            _ => Some(map(&file).map_err(|e| io(&e))?),
        };
        Ok(Self { path: path.to_owned(), label: path.display().to_string(), map })
    }

    /// The path as the caller named it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path as text, for errors.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Gives back the pages that hold `range`; they are read from the file again where they are needed.
    #[cfg_attr(unix, allow(unsafe_code, reason = "dropping pages has no safe form"))]
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(all(unix, not(miri)))]
        if let Some(map) = &self.map {
            // a wish: without it the pages stay until the system wants them
            // SAFETY: the map is private, read-only and a file's, so a dropped page comes back as it was.
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
        }
        #[cfg(not(all(unix, not(miri))))]
        let _ = range;
    }
}

#[allow(unsafe_code, reason = "mapping a file has no safe form")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private and read-only, and only ever read as bytes, for which every value is
    // valid. Another process that writes to the file while it is mapped can change the numbers that
    // are read, and one that cuts it off can end this process with a signal; neither is worse than
    // what such a process can do to a program by other means, and every engine that maps weights
    // accepts it.
    unsafe { Mmap::map(file) }
}

//! JSON and text files of bounded size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use alloyforge_types::{Error, Result};
use serde_json::Value;

/// Reads the file at `path` where it has at most `most` bytes.
///
/// # Errors
/// `Io` where it cannot be read, `Format` where it is larger.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let kind = std::fs::metadata(path).map_err(io)?;
    if !kind.is_file() {
        return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "is not a regular file")));
    }
    let too_large = || Error::format(path.display().to_string(), "file", format!("has over {most} bytes"));
    if kind.len() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(most + 1).read_to_end(&mut bytes)).map_err(io)?;
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

/// Reads the file at `path` as text.
///
/// # Errors
/// As [`read`], and `Format` where it is not UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String> {
    String::from_utf8(read(path, most)?).map_err(|e| Error::Format {
        file: path.display().to_string(),
        item: "text".to_owned(),
        fault: "is not UTF-8".to_owned(),
        offset: Some(e.utf8_error().valid_up_to() as u64),
    })
}

/// Reads the file at `path` as a JSON value. Nesting is bounded by the parser.
///
/// # Errors
/// As [`read`], and `Format` where it is not JSON or would take too much memory.
pub(crate) fn read_value(path: &Path, most: u64) -> Result<Value> {
    let bytes = read(path, most)?;
    let label = || path.display().to_string();
    if parsed_size(&bytes) > MAX_PARSED {
        let text = format!("takes more than {} MiB of memory", MAX_PARSED >> 20);
        return Err(Error::format(label(), "JSON", text));
    }
    serde_json::from_slice(&bytes).map_err(|e| fault(&label(), "JSON", &bytes, 0, &e))
}

/// Most bytes of memory that a parsed file may take.
const MAX_PARSED: usize = 48 << 20;

/// About the bytes that a parsed value takes beside its strings. A small array or object has room for
/// four from the start, so that a few bytes of text can become hundreds.
fn parsed_size(text: &[u8]) -> usize {
    const ITEM: usize = size_of::<Value>() + size_of::<String>() + 32;
    let (mut size, mut is_text, mut is_escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => size += 4 * ITEM,
            b',' if !is_text => size += ITEM,
            _ => {}
        }
    }
    size
}

/// The error for what a JSON parser found in `bytes`, which begin at `start` of `file`.
pub(crate) fn fault(file: &str, item: &str, bytes: &[u8], start: usize, error: &serde_json::Error) -> Error {
    let full = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = full.strip_suffix(&place).unwrap_or(&full);
    let line_start = match error.line() {
        0 => None,
        1 => Some(0),
        n => bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(n - 2).map(|(i, _)| i + 1),
    };
    Error::Format {
        file: file.to_owned(),
        item: item.to_owned(),
        fault: text.to_owned(),
        offset: line_start.map(|i| (start + i + error.column()) as u64),
    }
}

/// The path as the caller sees it, where a file is there.
pub(crate) fn existing(folder: &Path, name: &str) -> Option<std::path::PathBuf> {
    Some(folder.join(name)).filter(|p| p.is_file())
}

//! A conversation in a file.
//!
//! ```text
//! magic        8 bytes  "AFCONVER"
//! version      u32      1
//! header_len   u32      bytes of the header
//! data_len     u64      bytes of the blocks
//! header       JSON     signature, regime, tokens, marks of media, blocks, text
//! data                  the blocks, one after the other
//! checksum     u64      XXH64 of everything before it
//! ```
//!
//! All numbers are little-endian. A reader believes no length before the file's own size and the
//! checksum have confirmed it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use alloyforge_types::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{Contents, checksum};
use crate::kv::free_memory;

const MAGIC: &[u8; 8] = b"AFCONVER";
const VERSION: u32 = 1;
/// Bytes before the header.
const START_LEN: usize = 24;
/// Bytes of the checksum.
const END_LEN: usize = 8;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    signature: u64,
    regime: u64,
    tokens: Vec<u32>,
    /// Digests of the media rows in the first blocks, each as its upper and its lower half.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<(u64, u64)>,
    blocks: Vec<(usize, usize, usize)>,
    /// The caller's own: its messages.
    text: String,
}

/// Writes a conversation to `path`, whole or not at all.
///
/// # Errors
/// `Io`; `InvalidRequest` for a text beyond what a file can hold.
pub(crate) fn write(path: &Path, contents: &Contents, text: String) -> Result<()> {
    let header = Header {
        signature: contents.signature,
        regime: contents.regime,
        tokens: contents.tokens.clone(),
        marks: contents.marks.iter().map(|&mark| ((mark >> 64) as u64, mark as u64)).collect(),
        blocks: contents.blocks.clone(),
        text,
    };
    let header = serde_json::to_vec(&header).map_err(|e| Error::internal(e.to_string()))?;
    let header_len = u32::try_from(header.len())
        .map_err(|_| Error::invalid("path", "the conversation's text is longer than a file can hold"))?;
    let mut bytes = Vec::new();
    reserve(&mut bytes, START_LEN + header.len() + contents.data.len() + END_LEN)?;
    bytes.extend_from_slice(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(header_len.to_le_bytes());
    bytes.extend((contents.data.len() as u64).to_le_bytes());
    bytes.extend(header);
    bytes.extend_from_slice(&contents.data);
    bytes.extend(checksum(&bytes).to_le_bytes());

    // beside the file, so that a rename puts it in place at once
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|e| {
        // what is left of it is of no use
        let _ = fs::remove_file(&beside);
        Error::io(path, &e)
    })
}

/// Reads a conversation: what its blocks hold, and the caller's text.
///
/// # Errors
/// `Io`; `Format` for anything but a sound file of this version; `OutOfMemory`.
pub(crate) fn read(path: &Path) -> Result<(Contents, String)> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let mut bytes = Vec::new();
    reserve(&mut bytes, usize::try_from(len).unwrap_or(usize::MAX))?;
    // no more than it was said to have, should it grow
    (&file).take(len).read_to_end(&mut bytes).map_err(io)?;
    parse(&bytes).map_err(|(item, fault)| Error::format(path.display().to_string(), item, fault))
}

type Fault = (&'static str, String);

fn parse(bytes: &[u8]) -> std::result::Result<(Contents, String), Fault> {
    let short = || ("the file", format!("has {} bytes, too few for a conversation", bytes.len()));
    if bytes.len() < START_LEN + END_LEN {
        return Err(short());
    }
    if !bytes.starts_with(MAGIC) {
        return Err(("the file", "is no conversation".into()));
    }
    let word = |at: usize| bytes[at..].first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
    let long = |at: usize| bytes[at..].first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    if word(8) != VERSION {
        return Err(("version", format!("is {}, this build reads {VERSION}", word(8))));
    }
    let body_len = bytes.len() - START_LEN - END_LEN;
    let header_len = word(12) as usize;
    let is_whole = header_len <= body_len && long(16) == (body_len - header_len) as u64;
    if !is_whole {
        let fault = format!("has {} bytes, its lengths say otherwise", bytes.len());
        return Err(("the file", fault));
    }
    let (body, end) = bytes.split_at(bytes.len() - END_LEN);
    if end != checksum(body).to_le_bytes() {
        return Err(("checksum", "does not match: the file is damaged".into()));
    }
    let (header, data) = body[START_LEN..].split_at(header_len);
    let header: Header = serde_json::from_slice(header).map_err(|e| ("the header", e.to_string()))?;
    let total = header.blocks.iter().try_fold(0usize, |sum, &(_, _, len)| sum.checked_add(len));
    if total != Some(data.len()) {
        return Err(("blocks", "do not add up to the data".into()));
    }
    let mut copied = Vec::new();
    let full = |_| ("the file", "does not fit into memory".to_owned());
    copied.try_reserve_exact(data.len()).map_err(full)?;
    copied.extend_from_slice(data);
    let Header { signature, regime, tokens, marks, blocks, text } = header;
    let marks = marks.into_iter().map(|(upper, lower)| u128::from(upper) << 64 | u128::from(lower)).collect();
    Ok((Contents { signature, regime, tokens, marks, blocks, data: copied }, text))
}

fn reserve(bytes: &mut Vec<u8>, len: usize) -> Result<()> {
    let available = free_memory().unwrap_or(u64::MAX);
    // what is read is copied once
    if (len as u64).saturating_mul(2) > available || bytes.try_reserve_exact(len).is_err() {
        return Err(Error::OutOfMemory { what: "a conversation".into(), needed: len as u64, available });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Contents {
        Contents {
            signature: 7,
            regime: 1,
            tokens: (0..70).collect(),
            marks: vec![0, u128::MAX - 5],
            blocks: vec![(0, 0, 3), (0, 1, 3), (1, 1, 2)],
            data: (0..8).collect(),
        }
    }

    fn saved() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        write(&path, &sample(), "the text".into()).unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(parse(&saved()), Ok((sample(), "the text".into())));
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no/such/folder");
        assert!(matches!(write(&missing, &sample(), String::new()), Err(Error::Io { .. })));
        let path = folder.path().join("c");
        write(&path, &sample(), "first".into()).unwrap();
        write(&path, &sample(), "second".into()).unwrap();
        assert_eq!(read(&path).unwrap().1, "second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = saved();
        bytes[8] = 9;
        assert_eq!(parse(&bytes), Err(("version", "is 9, this build reads 1".into())));
    }

    /// As [`saved`], with the header changed and the checksum right.
    fn with_header(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
        let bytes = saved();
        let header_len = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[START_LEN..][..header_len]).unwrap();
        change(&mut header);
        let header = serde_json::to_vec(&header).unwrap();
        let mut new = bytes[..12].to_vec();
        new.extend((header.len() as u32).to_le_bytes());
        new.extend_from_slice(&bytes[16..24]);
        new.extend(&header);
        new.extend_from_slice(&bytes[START_LEN + header_len..bytes.len() - END_LEN]);
        new.extend(checksum(&new).to_le_bytes());
        new
    }

    #[test]
    fn a_sound_checksum_over_nonsense_is_refused() {
        assert!(parse(&with_header(|_| {})).is_ok());
        for change in [
            |h: &mut serde_json::Value| h["blocks"][0][2] = (1u64 << 60).into(),
            |h: &mut serde_json::Value| h["blocks"][0][2] = u64::MAX.into(),
            |h: &mut serde_json::Value| h["tokens"] = serde_json::json!([-1]),
            |h: &mut serde_json::Value| h["more"] = 1.into(),
            |h: &mut serde_json::Value| h["text"] = serde_json::Value::Null,
        ] {
            assert!(parse(&with_header(change)).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0usize..400, with in 1u8..) {
            let mut bytes = saved();
            let at = at % bytes.len();
            bytes[at] ^= with;
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn no_cut_goes_unnoticed(len in 0usize..400) {
            let bytes = saved();
            prop_assert!(parse(&bytes[..len % bytes.len()]).is_err());
        }

        #[test]
        fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut begun = MAGIC.to_vec();
            begun.extend(&bytes);
            prop_assert!(parse(&bytes).is_err() && parse(&begun).is_err());
        }
    }
}

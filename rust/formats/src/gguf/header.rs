//! One file's header: magic, version, counts, metadata, table of tensors.

use std::ops::Range;

use alloyforge_types::{Error, MetaValue, Metadata, Result};

use super::cursor::Cursor;
use super::tensors::{self, Entry, MIN_ENTRY_LEN};
use super::value::{self, Budget};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_ALIGNMENT, MAX_KEY_LEN};
use crate::mapped::MappedFile;

/// What one file says, checked.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    /// For each pair, where its value stands in the file, the number of its type first.
    pub(super) values: Vec<Range<usize>>,
    /// In the file's order, placed inside the file.
    pub(super) entries: Vec<Entry>,
}

/// Bytes of the smallest pair: key length, one byte of key, type, one byte of value.
const MIN_PAIR_LEN: usize = 8 + 1 + 4 + 1;

/// Reads and checks the header of `file`, the shard numbered `shard`.
pub(super) fn read(file: &MappedFile, shard: u32) -> Result<Header> {
    let bytes = file.bytes();
    let mut cursor = Cursor::new(file.label(), bytes);
    let version = read_version(&mut cursor)?;
    let num_tensors = cursor.count(MIN_ENTRY_LEN, "tensor count")?;
    let num_pairs = cursor.count(MIN_PAIR_LEN, "metadata count")?;

    let mut budget = Budget::new();
    let mut metadata = Metadata::default();
    let mut values = Vec::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    for i in 0..num_pairs {
        let at = cursor.pos();
        let nameless = format!("metadata key {i}");
        let key = cursor.str(&nameless)?;
        if key.is_empty() || key.len() > MAX_KEY_LEN {
            let fault = format!("the key has {} bytes, 1 to {MAX_KEY_LEN} are allowed", key.len());
            return Err(cursor.fault(&nameless, at, fault));
        }
        // The key is held twice, in order and hashed.
        let cost = 2 * (key.len() + size_of::<String>()) + size_of::<MetaValue>() + size_of::<Range<usize>>();
        budget.spend(1, cost, &cursor, key)?;
        let item = format!("metadata `{key}`");
        let type_at = cursor.pos();
        let id = cursor.u32(&item)?;
        let value_at = cursor.pos();
        let value = value::read(&mut cursor, id, &item, &mut budget)?;
        if key == ALIGNMENT_KEY {
            alignment = read_alignment(&value).map_err(|fault| cursor.fault(&item, value_at, fault))?;
        }
        if !metadata.insert(key.to_owned(), value) {
            return Err(cursor.fault(&item, at, "the key occurs twice"));
        }
        values.push(type_at..cursor.pos());
    }

    let mut entries = Vec::new();
    for i in 0..num_tensors {
        let at = cursor.pos();
        entries.try_reserve(1).map_err(|_| cursor.fault("tensor table", at, "does not fit into memory"))?;
        entries.push(tensors::read_entry(&mut cursor, i, shard, alignment)?);
    }
    // No overflow: the position is at most the file's length, the alignment at most 2^24.
    let data_start = cursor.pos().next_multiple_of(alignment as usize);
    tensors::place(&mut entries, file.label(), bytes.len(), data_start)?;
    Ok(Header { version, metadata, values, entries })
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    let magic: [u8; 4] = cursor.array("magic")?;
    if &magic != MAGIC {
        let fault = format!("begins with \"{}\", not with \"GGUF\"", magic.escape_ascii());
        return Err(cursor.fault("magic", 0, fault));
    }
    let version = cursor.u32("version")?;
    match version {
        2 | 3 => Ok(version),
        1 => Err(Error::unsupported(cursor.file(), "GGUF version 1")),
        // A big-endian file's version, read in little-endian order, has only high bytes.
        0x0100_0000 | 0x0200_0000 | 0x0300_0000 => {
            Err(Error::unsupported(cursor.file(), "GGUF in big-endian byte order"))
        }
        4..=0xff => Err(Error::unsupported(cursor.file(), format!("GGUF version {version}"))),
        _ => Err(cursor.fault("version", 4, format!("{version} is no version"))),
    }
}

fn read_alignment(value: &MetaValue) -> std::result::Result<u64, String> {
    let MetaValue::U64(n) = *value else {
        return Err("the alignment is not an unsigned integer".to_owned());
    };
    if !n.is_power_of_two() || n > MAX_ALIGNMENT {
        return Err(format!("alignment {n} is not a power of two up to {MAX_ALIGNMENT}"));
    }
    Ok(n)
}

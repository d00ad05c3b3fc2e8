//! The table of tensors, checked against the data section.

use alloyforge_types::{Error, QuantType, Result};

use super::cursor::Cursor;
use super::{MAX_DIMS, MAX_NAME_LEN};

/// One row of the table.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Box<str>,
    pub(super) ty: QuantType,
    /// Outermost dimension first, `rank` of them.
    dims: [usize; MAX_DIMS],
    rank: u8,
    /// Which file holds it.
    pub(super) shard: u32,
    /// Where its data begins: from the data section while the table is read, from the file's start
    /// once it is placed.
    pub(super) start: usize,
    /// Bytes of its data.
    pub(super) len: usize,
    /// Where its row of the table stands in the file, for errors.
    at: usize,
}

impl Entry {
    /// The shape, outermost dimension first.
    pub(super) fn shape(&self) -> &[usize] {
        &self.dims[..self.rank.into()]
    }
}

/// Bytes of the smallest row: name length, dimension count, type, offset.
pub(super) const MIN_ENTRY_LEN: usize = 8 + 4 + 4 + 8;

/// Reads one row.
pub(super) fn read_entry(cursor: &mut Cursor<'_>, index: usize, shard: u32, alignment: u64) -> Result<Entry> {
    let at = cursor.pos();
    let nameless = format!("tensor {index}");
    let name = cursor.str(&nameless)?;
    if name.is_empty() || name.len() > MAX_NAME_LEN {
        let fault = format!("the name has {} bytes, 1 to {MAX_NAME_LEN} are allowed", name.len());
        return Err(cursor.fault(&nameless, at, fault));
    }
    let item = format!("tensor `{name}`");
    let fault = |cursor: &Cursor<'_>, text: String| Err(cursor.fault(&item, at, text));

    let rank = cursor.u32(&item)?;
    if rank as usize > MAX_DIMS {
        return fault(cursor, format!("has {rank} dimensions, at most {MAX_DIMS} are allowed"));
    }
    let rank = rank as usize;
    // The file has the innermost dimension first.
    let mut dims = [1; MAX_DIMS];
    let mut elements = 1usize;
    for dim in dims[..rank].iter_mut().rev() {
        let size = cursor.u64(&item)?;
        let Some(size) = usize::try_from(size).ok().filter(|&n| n > 0) else {
            return fault(cursor, format!("has a dimension of {size}"));
        };
        let Some(product) = elements.checked_mul(size).filter(|&n| n <= isize::MAX as usize) else {
            return fault(cursor, "has more elements than can be counted".to_owned());
        };
        (*dim, elements) = (size, product);
    }

    let id = cursor.u32(&item)?;
    let Some(ty) = QuantType::from_ggml_id(id) else {
        return match known_type(id) {
            Some(known) => Err(Error::unsupported(cursor.file(), format!("{item} of type {known}"))),
            None => fault(cursor, format!("type {id} is unknown")),
        };
    };
    let cols = if rank == 0 { 1 } else { dims[rank - 1] };
    if cols % ty.block_len() != 0 {
        let text = format!("rows of {cols} are not whole blocks of {} ({})", ty.block_len(), ty.name());
        return fault(cursor, text);
    }
    let Some(len) = ty.row_bytes(cols).and_then(|row| row.checked_mul(elements / cols)) else {
        return fault(cursor, "has more bytes than can be counted".to_owned());
    };

    let start = cursor.u64(&item)?;
    if start % alignment != 0 {
        return fault(cursor, format!("offset {start} is no multiple of the alignment {alignment}"));
    }
    let Ok(start) = usize::try_from(start) else {
        return fault(cursor, format!("offset {start} is past the end of any file"));
    };
    Ok(Entry { name: name.into(), ty, dims, rank: rank as u8, shard, start, len, at })
}

/// Turns offsets from the data section into offsets from the file's start, and checks that every
/// tensor lies inside the file and none overlaps another. `entries` are those of one file.
pub(super) fn place(entries: &mut [Entry], file: &str, file_len: usize, data_start: usize) -> Result<()> {
    let fault = |entry: &Entry, text: String| Error::Format {
        file: file.to_owned(),
        item: format!("tensor `{}`", entry.name),
        fault: text,
        offset: Some(entry.at as u64),
    };
    for entry in entries.iter_mut() {
        let start = data_start.checked_add(entry.start);
        match start.and_then(|s| s.checked_add(entry.len)) {
            Some(end) if end <= file_len => entry.start = end - entry.len,
            _ => {
                let text = format!(
                    "needs {} bytes at {} of the data, which begins at {data_start} of the file's {file_len} bytes",
                    entry.len, entry.start
                );
                return Err(fault(entry, text));
            }
        }
    }
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_unstable_by_key(|e| e.start);
    match order.windows(2).find(|pair| pair[0].start + pair[0].len > pair[1].start) {
        Some(pair) => Err(fault(pair[1], format!("overlaps tensor `{}`", pair[0].name))),
        None => Ok(()),
    }
}

/// The name of a type that ggml has and no model needs, or that is not known here yet.
fn known_type(id: u32) -> Option<&'static str> {
    Some(match id {
        9 => "Q8_1",
        15 => "Q8_K",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => return None,
    })
}

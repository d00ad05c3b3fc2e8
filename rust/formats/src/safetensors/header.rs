//! One file's header.
//!
//! The JSON is read by a visitor that keeps a tensor's name, type, shape and range and nothing else:
//! a general JSON value would cost a hostile header of 100 MB several times its size.

use std::borrow::Cow;
use std::fmt;

use alloyforge_types::{Error, Result};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::dtype::Dtype;
use crate::json;
use crate::mapped::MappedFile;

/// Most bytes of a header: the reference implementation's bound.
const MAX_HEADER_LEN: u64 = 100_000_000;

/// Most tensors in one file; checkpoints in use stay below a hundred thousand over all their files.
const MAX_TENSORS: usize = 1 << 18;

/// Most dimensions of a tensor; three-dimensional convolutions have 5.
const MAX_DIMS: usize = 8;

/// A tensor, placed in its file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Box<str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    /// Which file holds it.
    pub(super) shard: u32,
    /// Where its data begins, from the file's start.
    pub(super) start: usize,
    /// Bytes of its data.
    pub(super) len: usize,
}

/// A shape of at most [`MAX_DIMS`] dimensions.
#[derive(Debug, Default)]
pub(super) struct Shape {
    dims: [usize; MAX_DIMS],
    rank: usize,
}

impl Shape {
    /// The dimensions, outermost first.
    pub(super) fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

/// Reads and checks the header of `file`, the shard numbered `shard`.
pub(super) fn read(file: &MappedFile, shard: u32) -> Result<Vec<Entry>> {
    let (label, bytes) = (file.label(), file.bytes());
    let fault = |item: &str, text: String, at: usize| Error::Format {
        file: label.to_owned(),
        item: item.to_owned(),
        fault: text,
        offset: Some(at as u64),
    };
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(fault("header", format!("the file has {} bytes, at least 8 are needed", bytes.len()), 0));
    };
    let len = u64::from_le_bytes(*len);
    if len > MAX_HEADER_LEN {
        return Err(fault("header", format!("has {len} bytes, at most {MAX_HEADER_LEN} are allowed"), 0));
    }
    if len > rest.len() as u64 {
        return Err(fault("header", format!("has {len} bytes, the file has {} more", rest.len()), 0));
    }
    let (header, data) = rest.split_at(len as usize);
    let text = std::str::from_utf8(header)
        .map_err(|e| fault("header", "is not UTF-8".to_owned(), 8 + e.valid_up_to()))?;

    let mut reader = HeaderReader { shard, current: None, entries: Vec::new() };
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = (&mut reader).deserialize(&mut json).and_then(|()| json.end());
    if let Err(e) = outcome {
        let item = reader.current.map_or("header".to_owned(), |name| tensor_item(&name));
        return Err(json::fault(label, &item, header, 8, &e));
    }
    let mut entries = reader.entries;
    check_ranges(&mut entries, data.len(), 8 + header.len())
        .map_err(|(item, text, at)| fault(&item, text, at))?;
    Ok(entries)
}

/// Checks that the tensors cover the data without hole or overlap and that each has the bytes of its
/// shape, and makes their starts count from the file's start.
fn check_ranges(
    entries: &mut [Entry],
    data_len: usize,
    data_start: usize,
) -> std::result::Result<(), (String, String, usize)> {
    let mut order: Vec<&mut Entry> = entries.iter_mut().collect();
    order.sort_unstable_by_key(|e| (e.start, e.len));
    let mut end = 0;
    for entry in order {
        let fault = |text: String| Err((tensor_item(&entry.name), text, data_start + end));
        if entry.start != end {
            let what = if entry.start < end { "overlaps another tensor" } else { "leaves a hole before it" };
            return fault(format!("begins at {} of the data, which {what}: {end} was expected", entry.start));
        }
        if entry.len > data_len - end {
            return fault(format!("needs {} bytes, the file has {} more", entry.len, data_len - end));
        }
        let bits = entry.shape.dims().iter().try_fold(entry.dtype.bits(), |n, &d| n.checked_mul(d));
        match bits {
            None => return fault("has more elements than can be counted".to_owned()),
            Some(bits) if bits % 8 != 0 || bits / 8 != entry.len => {
                let name = entry.dtype.name();
                let shape = entry.shape.dims();
                return fault(format!(
                    "has {} bytes, {bits} bits are needed for {shape:?} of {name}",
                    entry.len
                ));
            }
            Some(_) => {}
        }
        end += entry.len;
        entry.start += data_start;
    }
    if end != data_len {
        let text = format!("{} bytes after the last tensor belong to none", data_len - end);
        return Err(("data".to_owned(), text, data_start + end));
    }
    Ok(())
}

/// Collects the entries of the header's object.
struct HeaderReader {
    shard: u32,
    /// The tensor that is being read, for errors.
    current: Option<String>,
    entries: Vec<Entry>,
}

impl<'de> DeserializeSeed<'de> for &mut HeaderReader {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut HeaderReader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            if name == "__metadata__" {
                map.next_value::<Strings>()?;
                continue;
            }
            if self.entries.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            self.current = Some(name.clone().into_owned());
            let tensor: Tensor = map.next_value()?;
            self.current = None;
            self.entries.push(Entry {
                name: name.into(),
                dtype: tensor.dtype.0,
                shape: tensor.shape,
                shard: self.shard,
                start: tensor.data_offsets.start,
                len: tensor.data_offsets.len,
            });
        }
        Ok(())
    }
}

/// A string, borrowed from the header where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An entry of the header.
#[derive(serde::Deserialize)]
struct Tensor {
    dtype: Named,
    shape: Shape,
    data_offsets: Range,
}

/// A type by its name.
struct Named(Dtype);

impl<'de> serde::Deserialize<'de> for Named {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let Text(name) = Text::deserialize(deserializer)?;
        match Dtype::from_name(&name) {
            Some(dtype) => Ok(Self(dtype)),
            None => Err(D::Error::custom(format!("dtype `{}` is unknown", shortened(&name)))),
        }
    }
}

/// The start of a name that may be of any length.
fn shortened(name: &str) -> &str {
    name.char_indices().nth(200).map_or(name, |(end, _)| &name[..end])
}

/// A tensor, for errors.
pub(super) fn tensor_item(name: &str) -> String {
    format!("tensor `{}`", shortened(name))
}

impl<'de> serde::Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Dims;

        impl<'de> Visitor<'de> for Dims {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Shape, A::Error> {
                let mut shape = Shape::default();
                while let Some(dim) = seq.next_element()? {
                    let Some(place) = shape.dims.get_mut(shape.rank) else {
                        return Err(A::Error::custom(format!("more than {MAX_DIMS} dimensions")));
                    };
                    *place = dim;
                    shape.rank += 1;
                }
                Ok(shape)
            }
        }

        deserializer.deserialize_seq(Dims)
    }
}

/// Bytes of the data section.
struct Range {
    start: usize,
    len: usize,
}

impl<'de> serde::Deserialize<'de> for Range {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (start, end): (usize, usize) = serde::Deserialize::deserialize(deserializer)?;
        match end.checked_sub(start) {
            Some(len) => Ok(Self { start, len }),
            None => Err(D::Error::custom(format!("ends at {end}, before its start at {start}"))),
        }
    }
}

/// The free-form metadata: checked to be strings, and dropped.
struct Strings;

impl<'de> serde::Deserialize<'de> for Strings {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Strings {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, Text<'de>>()?.is_some() {}
        Ok(self)
    }
}

//! Typed access to a GGUF file's metadata: a value of the wrong type is a damaged file.

use std::sync::Arc;

use alloyforge_types::{Error, MetaArray, MetaValue, Metadata, Result};

/// The prefix of every key of a tokenizer.
const PREFIX: &str = "tokenizer.ggml.";

/// The tokenizer's metadata, and the file for errors. Keys are given without their prefix.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    metadata: &'a Metadata,
    /// The file, as the caller named it.
    pub(crate) label: &'a str,
}

impl<'a> Keys<'a> {
    /// The keys of `metadata`, for the file called `label`.
    pub(crate) fn new(metadata: &'a Metadata, label: &'a str) -> Self {
        Self { metadata, label }
    }

    /// A key with its prefix.
    pub(crate) fn full(key: &str) -> String {
        format!("{PREFIX}{key}")
    }

    /// A fault of `key`.
    pub(crate) fn fault(&self, key: &str, fault: impl Into<String>) -> Error {
        Error::format(self.label, Self::full(key), fault)
    }

    fn get(&self, key: &str) -> Option<&'a MetaValue> {
        self.metadata.get(&Self::full(key))
    }

    /// A key outside the tokenizer's.
    pub(crate) fn general(&self, key: &str) -> &'a str {
        self.metadata.str(key).unwrap_or("")
    }

    /// A string.
    pub(crate) fn str(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(MetaValue::Str(text)) => Ok(Some(text)),
            Some(_) => Err(self.fault(key, "must be a string")),
        }
    }

    /// A boolean.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(MetaValue::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.fault(key, "must be a boolean")),
        }
    }

    /// An integer.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            None => Ok(None),
            Some(MetaValue::I64(value)) => Ok(Some(*value)),
            Some(MetaValue::U64(value)) => Ok(Some(i64::try_from(*value).unwrap_or(i64::MAX))),
            Some(_) => Err(self.fault(key, "must be an integer")),
        }
    }

    fn array(&self, key: &str) -> Result<Option<&'a MetaArray>> {
        match self.get(key) {
            None => Ok(None),
            Some(MetaValue::Array(array)) => Ok(Some(array)),
            Some(_) => Err(self.fault(key, "must be an array")),
        }
    }

    /// An array of strings.
    pub(crate) fn strings(&self, key: &str) -> Result<Option<Arc<[Box<str>]>>> {
        match self.array(key)? {
            None => Ok(None),
            Some(MetaArray::Str(strings)) => Ok(Some(Arc::clone(strings))),
            // An array without elements may have lost their type.
            Some(array) if array.is_empty() => Ok(Some(Arc::new([]))),
            Some(_) => Err(self.fault(key, "must be an array of strings")),
        }
    }

    /// An array of integers.
    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        match self.array(key)? {
            None => Ok(None),
            Some(MetaArray::I64(values)) => Ok(Some(values.to_vec())),
            Some(MetaArray::U64(values)) => {
                Ok(Some(values.iter().map(|&value| i64::try_from(value).unwrap_or(i64::MAX)).collect()))
            }
            Some(_) => Err(self.fault(key, "must be an array of integers")),
        }
    }

    /// An array of numbers, as floats.
    pub(crate) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        match self.array(key)? {
            None => Ok(None),
            Some(MetaArray::F32(values)) => Ok(Some(values.to_vec())),
            Some(MetaArray::F64(values)) => Ok(Some(values.iter().map(|&value| value as f32).collect())),
            Some(MetaArray::I64(values)) => Ok(Some(values.iter().map(|&value| value as f32).collect())),
            Some(_) => Err(self.fault(key, "must be an array of floats")),
        }
    }

    /// An array of bytes, of either sign.
    pub(crate) fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let Some(values) = self.integers(key)? else { return Ok(None) };
        let byte = |value: i64| match value {
            -128..=255 => Ok(value as u8),
            _ => Err(self.fault(key, "must be an array of bytes")),
        };
        values.into_iter().map(byte).collect::<Result<_>>().map(Some)
    }
}

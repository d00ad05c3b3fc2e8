//! A GGUF file's metadata as plain data.

use std::collections::HashMap;
use std::sync::Arc;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MetaValue {
    /// Any unsigned integer type.
    U64(u64),
    /// Any signed integer type.
    I64(i64),
    /// Either float type.
    F64(f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Str(Arc<str>),
    /// An array of one element type.
    Array(MetaArray),
}

/// An array value, by element type, each width widened to the largest of its kind.
///
/// Strings share the file's memory through their `Arc`, so that a vocabulary is held once.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MetaArray {
    /// Unsigned integers.
    U64(Arc<[u64]>),
    /// Signed integers.
    I64(Arc<[i64]>),
    /// Floats.
    F32(Arc<[f32]>),
    /// Doubles.
    F64(Arc<[f64]>),
    /// Booleans.
    Bool(Arc<[bool]>),
    /// Strings.
    Str(Arc<[Box<str>]>),
    /// Arrays.
    Array(Arc<[MetaArray]>),
}

impl MetaArray {
    /// Elements in it.
    pub fn len(&self) -> usize {
        match self {
            Self::U64(a) => a.len(),
            Self::I64(a) => a.len(),
            Self::F32(a) => a.len(),
            Self::F64(a) => a.len(),
            Self::Bool(a) => a.len(),
            Self::Str(a) => a.len(),
            Self::Array(a) => a.len(),
        }
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file's metadata: the keys in their order, each with its value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    keys: Vec<String>,
    values: HashMap<String, MetaValue>,
}

impl Metadata {
    /// Adds a pair; false where the key is there already, which leaves the first value.
    pub fn insert(&mut self, key: String, value: MetaValue) -> bool {
        if self.values.contains_key(&key) {
            return false;
        }
        self.keys.push(key.clone());
        self.values.insert(key, value);
        true
    }

    /// The pairs in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetaValue)> {
        self.keys.iter().map(|k| (k.as_str(), &self.values[k]))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&MetaValue> {
        self.values.get(key)
    }

    /// The string at `key`; `None` where it is missing or no string.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            MetaValue::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The integer at `key`; `None` where it is missing, negative or no integer.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match *self.get(key)? {
            MetaValue::U64(n) => Some(n),
            MetaValue::I64(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }

    /// The number at `key`, integers widened; `None` where it is missing or no number.
    pub fn f64(&self, key: &str) -> Option<f64> {
        match *self.get(key)? {
            MetaValue::F64(x) => Some(x),
            MetaValue::U64(n) => Some(n as f64),
            MetaValue::I64(n) => Some(n as f64),
            _ => None,
        }
    }

    /// The boolean at `key`; `None` where it is missing or no boolean.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match *self.get(key)? {
            MetaValue::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// The array at `key`; `None` where it is missing or no array.
    pub fn array(&self, key: &str) -> Option<&MetaArray> {
        match self.get(key)? {
            MetaValue::Array(a) => Some(a),
            _ => None,
        }
    }
}

//! Reads configuration values, checked, by meaning.

use std::cell::RefCell;
use std::collections::HashSet;

use alloyforge_interfaces::TensorStore;
use alloyforge_types::{Error, Metadata, Result};
use serde_json::{Map, Value};

use super::item::Item;
use super::keys::{self, Key};
use super::neutral;

/// Most that a count or a width may be, so that products of two stay far inside 64 bits.
const MAX_SIZE: i128 = u32::MAX as i128;

/// Where the values are.
#[derive(Clone, Copy)]
enum Values<'a> {
    /// `config.json`: the object of the text model, and the one around it where it is nested.
    Hf { object: &'a Map<String, Value>, outer: Option<&'a Map<String, Value>> },
    /// GGUF metadata, whose keys begin with the architecture's name.
    Gguf { metadata: &'a Metadata, arch: &'a str },
}

/// A model's configuration while its spec is built.
pub(crate) struct Reader<'a> {
    store: &'a dyn TensorStore,
    values: Values<'a>,
    family: &'a str,
    read: RefCell<HashSet<String>>,
}

impl<'a> Reader<'a> {
    /// Reads `object` of a `config.json` for the family called `family`; `outer` is the object that it
    /// is nested in.
    pub(crate) fn hf(
        object: &'a Map<String, Value>,
        outer: Option<&'a Map<String, Value>>,
        family: &'a str,
        store: &'a dyn TensorStore,
    ) -> Self {
        Self { store, values: Values::Hf { object, outer }, family, read: RefCell::default() }
    }

    /// Reads the `metadata` of a GGUF file whose architecture is `arch`.
    pub(crate) fn gguf(metadata: &'a Metadata, arch: &'a str, store: &'a dyn TensorStore) -> Self {
        Self { store, values: Values::Gguf { metadata, arch }, family: arch, read: RefCell::default() }
    }

    /// The family by the name that the file gives it.
    pub(crate) fn family(&self) -> &'a str {
        self.family
    }

    /// The weights beside the configuration.
    pub(crate) fn store(&self) -> &'a dyn TensorStore {
        self.store
    }

    /// Whether the file is a GGUF file.
    pub(crate) fn is_gguf(&self) -> bool {
        matches!(self.values, Values::Gguf { .. })
    }

    /// Whether the weights hold a tensor called `name`.
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        self.store.tensor(name).is_some()
    }

    /// The key as the file spells it; `None` where this kind of file has no such key.
    fn spelled(&self, key: Key) -> Option<String> {
        match self.values {
            Values::Hf { .. } if key.hf.is_empty() => None,
            Values::Hf { .. } => Some(key.hf.to_owned()),
            Values::Gguf { .. } if key.gguf.is_empty() => None,
            Values::Gguf { arch, .. } => Some(format!("{arch}.{}", key.gguf)),
        }
    }

    /// The key as an error names it.
    fn named(&self, key: Key) -> String {
        match self.values {
            Values::Hf { .. } => {
                format!("config.json `{}`", if key.hf.is_empty() { key.gguf } else { key.hf })
            }
            Values::Gguf { arch, .. } => {
                format!("key `{arch}.{}`", if key.gguf.is_empty() { key.hf } else { key.gguf })
            }
        }
    }

    /// The value of `key`; `None` where it is missing or null.
    pub(super) fn item(&self, key: Key) -> Option<Item<'a>> {
        let spelled = self.spelled(key)?;
        let item = match self.values {
            Values::Hf { object, .. } => object.get(&spelled).filter(|v| !v.is_null()).map(Item::Json),
            Values::Gguf { metadata, .. } => metadata.get(&spelled).map(Item::Meta),
        };
        self.read.borrow_mut().insert(spelled);
        item
    }

    /// The JSON object at `key`.
    pub(super) fn object(&self, key: Key) -> Result<Option<&'a Map<String, Value>>> {
        match self.item(key) {
            None => Ok(None),
            Some(Item::Json(Value::Object(object))) => Ok(Some(object)),
            Some(item) => Err(self.wrong(key, item, "an object")),
        }
    }

    /// Whether the file has a value at `key`.
    pub(crate) fn has(&self, key: Key) -> bool {
        self.item(key).is_some()
    }

    /// Whether the file does not have `key` at all, not even as null.
    pub(crate) fn is_absent(&self, key: Key) -> bool {
        match (self.spelled(key), self.values) {
            (None, _) => true,
            (Some(name), Values::Hf { object, .. }) => !object.contains_key(&name),
            (Some(name), Values::Gguf { metadata, .. }) => metadata.get(&name).is_none(),
        }
    }

    /// A fault of `key`.
    pub(crate) fn fault(&self, key: Key, fault: impl Into<String>) -> Error {
        Error::format(self.store.label(), self.named(key), fault)
    }

    fn wrong(&self, key: Key, item: Item<'_>, expected: &str) -> Error {
        self.fault(key, format!("is {}, expected {expected}", item.shown()))
    }

    fn missing(&self, key: Key) -> Error {
        self.fault(key, "is missing")
    }

    /// A value of `key` that is sound but not known.
    pub(crate) fn unsupported(&self, key: Key, value: impl std::fmt::Display) -> Error {
        Error::unsupported(self.store.label(), format!("{} = {value}", self.named(key)))
    }

    fn size_of(&self, key: Key, item: Item<'_>) -> Result<usize> {
        match item.integer() {
            Some(n) if (0..=MAX_SIZE).contains(&n) => Ok(n as usize),
            _ => Err(self.wrong(key, item, "an integer from 0 to 4294967295")),
        }
    }

    fn positive(&self, key: Key, size: usize) -> Result<usize> {
        if size == 0 { Err(self.fault(key, "is 0, expected at least 1")) } else { Ok(size) }
    }

    /// The count at `key`, which may be zero.
    pub(crate) fn count(&self, key: Key) -> Result<Option<usize>> {
        self.item(key).map(|item| self.size_of(key, item)).transpose()
    }

    /// The size at `key`, at least 1.
    pub(crate) fn size(&self, key: Key) -> Result<usize> {
        let size = self.count(key)?.ok_or_else(|| self.missing(key))?;
        self.positive(key, size)
    }

    /// The size at `key`, at least 1, or `default` where it is missing.
    pub(crate) fn size_or(&self, key: Key, default: usize) -> Result<usize> {
        let size = self.count(key)?.unwrap_or(default);
        self.positive(key, size)
    }

    /// The size of each of `layers` layers: one value for all, or a list; `default` where the key is
    /// missing, which without a default is a fault.
    pub(crate) fn layer_sizes(&self, key: Key, layers: usize, default: Option<usize>) -> Result<Vec<usize>> {
        let Some(item) = self.item(key) else {
            let size = default.ok_or_else(|| self.missing(key))?;
            return Ok(vec![self.positive(key, size)?; layers]);
        };
        match item.len() {
            None => Ok(vec![self.positive(key, self.size_of(key, item)?)?; layers]),
            Some(len) if len < layers => {
                Err(self.fault(key, format!("has {len} elements, the model has {layers} layers")))
            }
            Some(_) => (0..layers)
                .map(|i| {
                    let element = item.at(i).ok_or_else(|| self.missing(key))?;
                    self.positive(key, self.size_of(key, element)?)
                })
                .collect(),
        }
    }

    /// The list of integers at `key`.
    pub(crate) fn integers(&self, key: Key) -> Result<Option<Vec<usize>>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        let len = item.len().ok_or_else(|| self.wrong(key, item, "a list of integers"))?;
        let elements = (0..len).filter_map(|i| item.at(i));
        elements.map(|element| self.size_of(key, element)).collect::<Result<_>>().map(Some)
    }

    /// The list of strings at `key`.
    pub(crate) fn texts(&self, key: Key) -> Result<Option<Vec<&'a str>>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        let len = item.len().ok_or_else(|| self.wrong(key, item, "a list of strings"))?;
        let elements = (0..len).filter_map(|i| item.at(i));
        let text = |e: Item<'a>| e.text().ok_or_else(|| self.wrong(key, e, "a string"));
        elements.map(text).collect::<Result<_>>().map(Some)
    }

    /// The finite number at `key`.
    pub(crate) fn number(&self, key: Key) -> Result<Option<f64>> {
        let Some(item) = self.item(key) else { return Ok(None) };
        match item.number() {
            Some(x) if x.is_finite() && (x as f32).is_finite() => Ok(Some(x)),
            _ => Err(self.wrong(key, item, "a finite number")),
        }
    }

    /// The number above zero at `key`.
    pub(crate) fn positive_number(&self, key: Key) -> Result<Option<f64>> {
        match self.number(key)? {
            Some(x) if x <= 0.0 || x as f32 == 0.0 => {
                Err(self.fault(key, format!("is {x}, expected a number above 0")))
            }
            number => Ok(number),
        }
    }

    /// The number above zero at `key`, `None` where it is null, `default` where it is absent.
    pub(crate) fn nullable_number(&self, key: Key, default: f64) -> Result<Option<f64>> {
        Ok(self.positive_number(key)?.or(self.is_absent(key).then_some(default)))
    }

    /// Refuses any number at `key` but `only`, where something is switched off by that.
    pub(crate) fn require(&self, key: Key, only: f64) -> Result<()> {
        match self.number(key)? {
            Some(x) if x != only => Err(self.unsupported(key, x)),
            _ => Ok(()),
        }
    }

    /// The boolean at `key`, or `default` where it is missing.
    pub(crate) fn flag(&self, key: Key, default: bool) -> Result<bool> {
        match self.item(key) {
            None => Ok(default),
            Some(item) => item.bool().ok_or_else(|| self.wrong(key, item, "true or false")),
        }
    }

    /// The string at `key`.
    pub(crate) fn text(&self, key: Key) -> Result<Option<&'a str>> {
        match self.item(key) {
            None => Ok(None),
            Some(item) => item.text().map(Some).ok_or_else(|| self.wrong(key, item, "a string")),
        }
    }

    /// Marks keys whose values make no difference to this family.
    pub(crate) fn ignore(&self, names: &[Key]) {
        for &key in names {
            self.item(key);
        }
    }

    /// Refuses `key` unless it is missing or its value switches nothing on.
    pub(crate) fn refuse(&self, key: Key) -> Result<()> {
        match self.item(key) {
            Some(item) if !item.is_off() => Err(self.unsupported(key, item.shown())),
            _ => Ok(()),
        }
    }

    /// Accepts a quantised checkpoint of `method`, the one that the family can read.
    pub(crate) fn accept_quantization(&self, method: &str) -> Result<()> {
        let Values::Hf { object, .. } = self.values else { return Ok(()) };
        let found =
            object.get(keys::QUANTIZATION.hf).and_then(|q| q.get("quant_method")).and_then(Value::as_str);
        match found {
            Some(found) if found != method => {
                Err(self.unsupported(keys::QUANTIZATION, format!("\"{found}\"")))
            }
            Some(_) => {
                self.ignore(&[keys::QUANTIZATION]);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether the head is the embedding matrix: in a GGUF file, whether it has no matrix of its own.
    pub(crate) fn has_tied_head(&self, default: bool) -> Result<bool> {
        match self.values {
            Values::Gguf { .. } => Ok(!self.has_tensor("output.weight")),
            Values::Hf { object, outer } => {
                let around = outer.filter(|_| !object.contains_key(keys::TIED.hf));
                let default =
                    around.and_then(|o| o.get(keys::TIED.hf)).and_then(Value::as_bool).unwrap_or(default);
                self.flag(keys::TIED, default)
            }
        }
    }

    /// Ends the reading: a key that nobody asked for, that switches something on and that is not known
    /// to be harmless is an error, because what it means is not computed.
    ///
    /// # Errors
    /// `Unsupported` naming the key.
    pub(crate) fn finish(&self) -> Result<()> {
        let read = self.read.borrow();
        let refuse = |key: &str, value: Item<'_>| {
            let place = if self.is_gguf() { "key" } else { "config.json" };
            Err(Error::unsupported(self.store.label(), format!("{place} `{key}` = {}", value.shown())))
        };
        match self.values {
            Values::Hf { object, outer } => {
                let nested = outer.and_then(|o| o.get_key_value(keys::QUANTIZATION.hf));
                let pairs = object.iter().chain(nested).filter(|(_, v)| !v.is_null());
                for (key, value) in pairs.map(|(k, v)| (k, Item::Json(v))) {
                    if !read.contains(key) && !value.is_off() && !neutral::in_config_json(key) {
                        return refuse(key, value);
                    }
                }
            }
            Values::Gguf { metadata, arch } => {
                for (key, value) in metadata.iter() {
                    let Some(name) = key.strip_prefix(arch).and_then(|k| k.strip_prefix('.')) else {
                        continue;
                    };
                    let value = Item::Meta(value);
                    if !read.contains(key) && !value.is_off() && !neutral::in_gguf(name) {
                        return refuse(key, value);
                    }
                }
            }
        }
        Ok(())
    }
}

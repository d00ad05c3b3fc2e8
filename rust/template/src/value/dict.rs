//! Dictionaries: in insertion order, with keys that are equal where Python's are.

use std::hash::{Hash, Hasher};
use std::rc::Rc;

use indexmap::{Equivalent, IndexMap};

use super::{Value, check_depth};
use crate::budget::Budget;
use crate::fault::{Outcome, fail};
use crate::ops::equal;

/// A value that can be a key.
#[derive(Clone)]
pub(crate) struct Key(Value);

impl Key {
    /// # Errors
    /// Lists and dictionaries have no hash.
    pub(crate) fn new(budget: &Budget, value: Value) -> Outcome<Self> {
        budget.work(value.weight())?;
        check_hashable(&value)?;
        Ok(Self(value))
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }
}

fn check_hashable(value: &Value) -> Outcome<()> {
    match value {
        Value::List(_) | Value::Dict(_) => fail!("unhashable type: '{}'", value.type_name()),
        Value::Tuple(seq) => seq.items().iter().try_for_each(check_hashable),
        _ => Ok(()),
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_value(&self.0, state);
    }
}

fn hash_value<H: Hasher>(value: &Value, state: &mut H) {
    match value {
        Value::Undefined(_) => state.write_u8(0),
        Value::None => state.write_u8(1),
        // Equal numbers have equal hashes, whatever their type.
        Value::Bool(value) => i128::from(*value).hash(state),
        Value::Int(value) => value.hash(state),
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e38 => (*value as i128).hash(state),
        Value::Float(value) => value.to_bits().hash(state),
        Value::Str(text) => StrKey(text).hash(state),
        Value::Tuple(seq) => {
            state.write_usize(seq.items().len());
            seq.items().iter().for_each(|item| hash_value(item, state));
        }
        // Equal ranges may be written differently: their length is all that they share.
        Value::Range(range) => state.write_usize(range.len),
        Value::List(_) | Value::Dict(_) => state.write_u8(2),
        Value::Object(object) => Rc::as_ptr(object).hash(state),
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.same(&other.0) || equal(&self.0, &other.0)
    }
}

impl Eq for Key {}

/// A string to look up without making a value of it.
pub(crate) struct StrKey<'a>(pub(crate) &'a str);

impl Hash for StrKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(3);
        self.0.hash(state);
    }
}

impl Equivalent<Key> for StrKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(&key.0, Value::Str(text) if text.as_str() == self.0)
    }
}

/// A dictionary.
pub(crate) struct Dict {
    entries: IndexMap<Key, Value>,
    depth: usize,
    weight: usize,
    /// What was counted for it.
    bytes: usize,
    budget: Rc<Budget>,
}

impl Dict {
    /// What one entry is counted as, in bytes.
    const ENTRY: usize = 2 * size_of::<Value>() + 24;
    /// What a dictionary is counted as beside its entries.
    const SELF: usize = 128;

    pub(crate) fn new(budget: &Rc<Budget>, entries: IndexMap<Key, Value>) -> Outcome<Rc<Self>> {
        let bytes = entries.iter().fold(Self::SELF, |sum, (key, value)| {
            sum + Self::ENTRY + key.0.uncounted_bytes() + value.uncounted_bytes()
        });
        budget.take(bytes)?;
        let inner = entries.iter().map(|(key, value)| key.0.depth().max(value.depth()));
        let depth = 1 + inner.max().unwrap_or(0);
        let weigh = |sum: usize, (key, value): (&Key, &Value)| {
            sum.saturating_add(key.0.weight()).saturating_add(value.weight())
        };
        let weight = entries.iter().fold(1, weigh);
        let dict = Rc::new(Self { entries, depth, weight, bytes, budget: budget.clone() });
        check_depth(depth)?;
        Ok(dict)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    pub(crate) fn entries(&self) -> &IndexMap<Key, Value> {
        &self.entries
    }

    pub(crate) fn get_str(&self, key: &str) -> Option<&Value> {
        self.entries.get(&StrKey(key))
    }

    pub(crate) fn get(&self, key: &Value) -> Outcome<Option<&Value>> {
        match key {
            Value::Str(text) => Ok(self.get_str(text)),
            other => Ok(self.entries.get(&Key::new(&self.budget, other.clone())?)),
        }
    }

    pub(crate) fn at(&self, index: usize) -> Option<(&Value, &Value)> {
        self.entries.get_index(index).map(|(key, value)| (&key.0, value))
    }
}

impl Drop for Dict {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

//! Values of a `config.json`, with the defaults of transformers' configuration classes.

use alloyforge_types::{EncoderActivation, Error, Result};
use serde_json::{Map, Value};

/// Most that a count or a width may be.
const MAX_SIZE: u64 = 1 << 24;

/// One object of a configuration.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    label: &'a str,
    place: &'a str,
    object: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(label: &'a str, place: &'a str, object: Option<&'a Map<String, Value>>) -> Self {
        Self { label, place, object }
    }

    /// The object at `key`; one without values where there is none.
    pub(super) fn inner(&self, key: &'a str) -> Self {
        Self { place: key, object: self.value(key).and_then(Value::as_object), ..*self }
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object?.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn fault(&self, key: &str, fault: impl Into<String>) -> Error {
        let dot = if self.place.is_empty() { "" } else { "." };
        Error::format(self.label, format!("config.json `{}{dot}{key}`", self.place), fault)
    }

    pub(super) fn unsupported(&self, key: &str) -> Error {
        let shown = self.value(key).map_or_else(String::new, |v| v.to_string().chars().take(60).collect());
        Error::unsupported(self.label, format!("config.json `{}.{key}` = {shown}", self.place))
    }

    /// The size at `key`, at least 1.
    pub(super) fn size(&self, key: &str, default: usize) -> Result<usize> {
        let Some(value) = self.value(key) else { return Ok(default) };
        let whole = value.as_u64().or_else(|| {
            value.as_f64().filter(|x| x.fract() == 0.0 && *x > 0.0 && *x < 1e9).map(|x| x as u64)
        });
        match whole {
            Some(n) if (1..=MAX_SIZE).contains(&n) => Ok(n as usize),
            _ => Err(self.fault(key, format!("is {value}, expected an integer from 1 to {MAX_SIZE}"))),
        }
    }

    /// The size at the first of `keys` that is there.
    pub(super) fn size_of(&self, keys: &[&str], default: usize) -> Result<usize> {
        match keys.iter().find(|key| self.value(key).is_some()) {
            Some(key) => self.size(key, default),
            None => Ok(default),
        }
    }

    /// The finite number above zero at `key`.
    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.value(key) else { return Ok(default) };
        match value.as_f64() {
            Some(x) if x > 0.0 && (x as f32).is_finite() => Ok(x),
            _ => Err(self.fault(key, format!("is {value}, expected a number above 0"))),
        }
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| self.fault(key, format!("is {value}, expected an integer")))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.fault(key, format!("is {value}, expected true or false")))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.fault(key, format!("is {value}, expected a text")))
    }

    /// The list of indices below `limit` at `key`.
    pub(super) fn indices(&self, key: &str, default: &[usize], limit: usize) -> Result<Vec<usize>> {
        let Some(value) = self.value(key) else { return Ok(default.to_vec()) };
        let list = value.as_array().and_then(|list| {
            list.iter().map(|v| v.as_u64().and_then(|n| usize::try_from(n).ok())).collect::<Option<Vec<_>>>()
        });
        match list {
            Some(list) if list.iter().all(|&i| i < limit) => Ok(list),
            _ => Err(self.fault(key, format!("is no list of numbers below {limit}"))),
        }
    }

    pub(super) fn activation(&self, key: &str, default: &str) -> Result<EncoderActivation> {
        match self.text(key)?.unwrap_or(default) {
            "gelu" => Ok(EncoderActivation::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Ok(EncoderActivation::GeluTanh),
            "quick_gelu" => Ok(EncoderActivation::QuickGelu),
            "silu" | "swish" => Ok(EncoderActivation::Silu),
            "relu" => Ok(EncoderActivation::Relu),
            _ => Err(self.unsupported(key)),
        }
    }

    /// Refuses any value at `key` but `only`.
    pub(super) fn require(&self, key: &str, only: u64) -> Result<()> {
        match self.value(key) {
            Some(value) if value.as_u64() != Some(only) => Err(self.unsupported(key)),
            _ => Ok(()),
        }
    }

    /// The rotary base: in `rope_parameters`, beside it, or `default`.
    pub(super) fn rope_theta(&self, default: f64) -> Result<f32> {
        let inner = self.inner("rope_parameters");
        for dictionary in [inner, self.inner("rope_scaling")] {
            if let Some(kind) = dictionary.text("rope_type")?
                && !matches!(kind, "axial" | "default")
            {
                return Err(dictionary.unsupported("rope_type"));
            }
        }
        let outer = self.number("rope_theta", default)?;
        Ok(inner.number("rope_theta", outer)? as f32)
    }
}

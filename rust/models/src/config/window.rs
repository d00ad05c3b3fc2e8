//! Which layers see a window only.

use alloyforge_types::Result;

use super::keys::{self, Key};
use super::{Reader, item::Item};

impl Reader<'_> {
    /// Tokens that a layer with a window sees; `default` where the file says nothing. `config.json`
    /// writes null for none, a GGUF file 0.
    pub(crate) fn window(&self, default: Option<usize>) -> Result<Option<usize>> {
        match self.count(keys::WINDOW)? {
            None => Ok(default.filter(|_| self.is_absent(keys::WINDOW))),
            Some(0) if self.is_gguf() => Ok(None),
            Some(0) => Err(self.fault(keys::WINDOW, "is 0, expected at least 1 or null")),
            window => Ok(window),
        }
    }

    /// As [`window`](Self::window), where `use_sliding_window` switches it on.
    pub(crate) fn switched_window(&self, default: Option<usize>) -> Result<Option<usize>> {
        if self.flag(keys::USE_WINDOW, false)? {
            return self.window(default);
        }
        if !self.is_gguf() {
            self.ignore(&[keys::WINDOW]);
        }
        Ok(None)
    }

    /// For each layer whether it has a window: what `layer_types` lists, else what the pattern says,
    /// else what `default` says. A pattern is a period whose last layer sees everything, or, in a GGUF
    /// file, also a list.
    pub(crate) fn windowed_layers(
        &self,
        layers: usize,
        default: impl Fn(usize) -> bool,
    ) -> Result<Vec<bool>> {
        if let Some(types) = self.layer_types(layers)? {
            self.ignore(&[keys::WINDOW_PATTERN, keys::OLD_WINDOW_PATTERN]);
            return Ok(types);
        }
        for key in [keys::WINDOW_PATTERN, keys::OLD_WINDOW_PATTERN] {
            if let Some(item) = self.item(key) {
                return self.pattern(key, item, layers);
            }
        }
        Ok((0..layers).map(default).collect())
    }

    fn pattern(&self, key: Key, item: Item<'_>, layers: usize) -> Result<Vec<bool>> {
        match item.len() {
            Some(len) if len < layers => {
                Err(self.fault(key, format!("has {len} elements, the model has {layers} layers")))
            }
            Some(_) => (0..layers)
                .map(|i| {
                    let element = item.at(i);
                    let flag = element.and_then(|e| e.bool().or_else(|| e.integer().map(|n| n != 0)));
                    flag.ok_or_else(|| self.fault(key, "expected a list of booleans"))
                })
                .collect(),
            None => match self.count(key)?.unwrap_or(0) {
                0 if self.is_gguf() => Ok(vec![true; layers]),
                0 => Err(self.fault(key, "is 0, expected at least 1")),
                period => Ok((0..layers).map(|i| (i + 1) % period != 0).collect()),
            },
        }
    }

    /// Whether each layer is a sliding one by `layer_types`.
    pub(crate) fn layer_types(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        let Some(types) = self.texts(keys::LAYER_TYPES)? else { return Ok(None) };
        if types.len() != layers {
            let fault = format!("has {} elements, the model has {layers} layers", types.len());
            return Err(self.fault(keys::LAYER_TYPES, fault));
        }
        types
            .into_iter()
            .map(|name| match name {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                other => Err(self.unsupported(keys::LAYER_TYPES, other)),
            })
            .collect::<Result<_>>()
            .map(Some)
    }
}

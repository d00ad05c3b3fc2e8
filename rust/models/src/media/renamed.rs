//! A tower's tensors under the names that encoders ask for.
//!
//! The names are stems: `blk.3.attn_q` stands for `blk.3.attn_q.weight` and `blk.3.attn_q.bias`.

use std::collections::HashMap;
use std::sync::Arc;

use alloyforge_interfaces::TensorStore;
use alloyforge_types::TensorView;

/// Where a stem's tensors are.
#[derive(Debug, Clone)]
struct Place {
    /// What the file calls them.
    stem: String,
    /// Which of how many equal parts of their rows is meant.
    part: Option<(usize, usize)>,
}

/// A store whose tensors have other names.
pub(crate) struct Renamed {
    inner: Arc<dyn TensorStore>,
    places: HashMap<String, Place>,
}

impl Renamed {
    pub(super) fn new(inner: Arc<dyn TensorStore>) -> Self {
        Self { inner, places: HashMap::new() }
    }

    /// Calls `stem` what is `name` in the file.
    pub(super) fn put(&mut self, stem: impl Into<String>, name: impl Into<String>) {
        self.places.insert(stem.into(), Place { stem: name.into(), part: None });
    }

    /// Calls `stem` part `part` of `parts` of what is `name` in the file.
    pub(super) fn put_part(
        &mut self,
        stem: impl Into<String>,
        name: impl Into<String>,
        part: usize,
        parts: usize,
    ) {
        self.places.insert(stem.into(), Place { stem: name.into(), part: Some((part, parts)) });
    }

    /// As [`put`](Self::put) for every pair of `table`, with `prefix` before the file's names, and
    /// `{l}` in both standing for each of `layers` layers.
    pub(super) fn put_all(&mut self, prefix: &str, layers: usize, table: &[(&str, &str)]) {
        for (stem, name) in table {
            if !stem.contains("{l}") {
                self.put(*stem, format!("{prefix}{name}"));
                continue;
            }
            for layer in 0..layers {
                let number = layer.to_string();
                let name = name.replace("{l}", &number);
                self.put(stem.replace("{l}", &number), format!("{prefix}{name}"));
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensor(name).is_some()
    }

    fn place(&self, name: &str) -> Option<(&Place, String)> {
        if let Some(place) = self.places.get(name) {
            return Some((place, place.stem.clone()));
        }
        let (stem, suffix) = name.rsplit_once('.')?;
        let place = self.places.get(stem)?;
        Some((place, format!("{}.{suffix}", place.stem)))
    }
}

impl TensorStore for Renamed {
    fn label(&self) -> &str {
        self.inner.label()
    }

    fn names(&self) -> Vec<&str> {
        self.places.keys().map(String::as_str).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (place, stored) = self.place(name)?;
        let mut view = self.inner.tensor(&stored)?;
        let Some((part, parts)) = place.part else { return Some(view) };
        let rows = *view.shape.first()?;
        if parts == 0 || !rows.is_multiple_of(parts) || !view.data.len().is_multiple_of(parts) {
            return None;
        }
        let bytes = view.data.len() / parts;
        view.shape[0] = rows / parts;
        view.data = view.data.get(part * bytes..(part + 1) * bytes)?;
        Some(view)
    }
}

//! Media that Python's processors have prepared: dictionaries with `kind`, `tensors` and `facts`.

use alloyforge_engine::media_item;
use alloyforge_types::{Error, MediaItem, MediaKind, MediaTensor};
use numpy::{PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::Raise;

/// An item that has no hash yet.
struct Prepared {
    kind: MediaKind,
    tensors: Vec<MediaTensor>,
    facts: Vec<(String, Vec<f64>)>,
}

/// Items that have no hashes yet.
pub(crate) struct Items(Vec<Prepared>);

impl Items {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The items; hashing takes a while, so the interpreter's lock is better not held.
    pub(crate) fn hashed(self) -> Vec<MediaItem> {
        self.0.into_iter().map(|item| media_item(item.kind, item.tensors, item.facts)).collect()
    }
}

/// The items of `media`.
///
/// # Errors
/// `InvalidRequestError` for what is no prepared item.
pub(crate) fn items(media: &[Bound<'_, PyAny>]) -> PyResult<Items> {
    media.iter().map(prepared).collect::<PyResult<_>>().map(Items)
}

fn prepared(item: &Bound<'_, PyAny>) -> PyResult<Prepared> {
    let invalid = |fault: &str| Err::<Prepared, Error>(Error::invalid("media", fault)).raise();
    let Ok(item) = item.cast::<PyDict>() else { return invalid("an item must be a dictionary") };
    let (Some(kind), Some(tensors), Some(facts)) =
        (item.get_item("kind")?, item.get_item("tensors")?, item.get_item("facts")?)
    else {
        return invalid("an item must have a kind, tensors and facts");
    };
    let Some(kind) = MediaKind::from_name(&kind.extract::<String>()?) else {
        return invalid("an item is of no known kind");
    };
    let (Ok(tensors), Ok(facts)) = (tensors.cast::<PyDict>(), facts.cast::<PyDict>()) else {
        return invalid("tensors and facts must be dictionaries");
    };
    let mut prepared = Prepared { kind, tensors: Vec::new(), facts: Vec::new() };
    for (name, array) in tensors {
        let array: PyReadonlyArrayDyn<'_, f32> = array.extract()?;
        prepared.tensors.push(MediaTensor {
            name: name.extract()?,
            shape: array.shape().to_vec(),
            values: match array.as_slice() {
                Ok(values) => values.into(),
                // not in row-major order
                Err(_) => array.as_array().iter().copied().collect(),
            },
        });
    }
    for (name, values) in facts {
        prepared.facts.push((name.extract()?, values.extract()?));
    }
    Ok(prepared)
}

//! `devices`: where a session can run.

use pyo3::prelude::*;

use crate::results;

/// The devices that this build can use on this machine.
#[pyfunction]
pub(crate) fn devices(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let found = py.detach(alloyforge::devices);
    let class = results::class(py, "DeviceInfo")?;
    found.into_iter().map(|d| class.call1((d.name, d.kind, d.product, d.memory, d.capability))).collect()
}

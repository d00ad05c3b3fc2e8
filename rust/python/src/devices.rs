//! `devices`: where a session can run, and what keeps it from more.

use std::collections::HashMap;
use std::path::PathBuf;

use pyo3::prelude::*;

use crate::results;

/// The devices that this build can use on this machine.
#[pyfunction]
pub(crate) fn devices(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let found = py.detach(alloyforge::devices);
    let class = results::class(py, "DeviceInfo")?;
    found.into_iter().map(|d| class.call1((d.name, d.kind, d.product, d.memory, d.capability))).collect()
}

/// What keeps the accelerators that this build is for from being used, by their kind.
#[pyfunction]
pub(crate) fn device_faults(py: Python<'_>) -> HashMap<&'static str, String> {
    py.detach(alloyforge::device_faults).into_iter().collect()
}

/// Says in which folders to look first for the CUDA libraries.
#[pyfunction]
pub(crate) fn seek_cuda_libraries(folders: Vec<PathBuf>) {
    alloyforge::seek_cuda_in(folders);
}

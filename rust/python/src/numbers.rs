//! Pure functions on numbers.

use alloyforge_engine::Request;
use alloyforge_engine::sampling::{Sampler, TokenHistory};
use alloyforge_kernels::dequant;
use alloyforge_kernels::quantize::quantize as narrow;
use alloyforge_types::{Error, QuantType, Result};
use numpy::{AllowTypeChange, PyArray1, PyArrayLike1, PyArrayLikeDyn};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::error::{core, to_exception};
use crate::sampling;

/// The numbers that `data`, blocks of `type`, mean.
#[pyfunction]
#[pyo3(signature = (data, r#type))]
pub(crate) fn dequantize<'py>(
    py: Python<'py>,
    data: &[u8],
    r#type: &str,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let numbers = core(py, || {
        let ty = quant_type(r#type)?;
        let (bytes, len) = (ty.block_bytes(), ty.block_len());
        if !data.len().is_multiple_of(bytes) {
            let fault = format!("{} bytes are no whole blocks of {} bytes", data.len(), bytes);
            return Err(Error::invalid("data", fault));
        }
        let mut numbers = zeros(data.len() / bytes * len)?;
        dequant::dequantize(ty, data, &mut numbers)?;
        Ok(numbers)
    })?;
    Ok(PyArray1::from_vec(py, numbers))
}

/// `array` in blocks of `type`, each row, which is the last axis, in blocks of its own.
#[pyfunction]
#[pyo3(signature = (array, r#type))]
pub(crate) fn quantize<'py>(
    py: Python<'py>,
    array: PyArrayLikeDyn<'py, f32, AllowTypeChange>,
    r#type: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let array = array.as_array();
    let row_len = array.shape().last().copied().unwrap_or(1);
    let values: Vec<f32> = array.iter().copied().collect();
    let data = core(py, || {
        let ty = quant_type(r#type)?;
        if row_len % ty.block_len() != 0 {
            let fault =
                format!("rows of {row_len} numbers are no whole blocks of {} numbers", ty.block_len());
            return Err(Error::invalid("array", fault));
        }
        let mut data = zeros(values.len() / ty.block_len() * ty.block_bytes())?;
        narrow(ty, &values, &mut data)?;
        Ok(data)
    })?;
    Ok(PyBytes::new(py, &data))
}

/// The distribution that the token behind `tokens` would be drawn from.
#[pyfunction]
#[pyo3(
    signature = (logits, *, tokens=Vec::new(), **sampling),
    text_signature = "(logits, *, tokens=(), **sampling)"
)]
pub(crate) fn probabilities<'py>(
    py: Python<'py>,
    logits: PyArrayLike1<'py, f32, AllowTypeChange>,
    tokens: Vec<u32>,
    sampling: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let mut request = Request::default();
    if let Some(sampling) = sampling {
        sampling::apply(sampling, &mut request)?;
    }
    if let Some(constraint) = &request.constraint {
        return Err(to_exception(&Error::invalid(constraint.name(), "needs a session")));
    }
    let logits = logits.as_array().to_vec();
    let weights = core(py, || {
        let mut sampler = Sampler::new(&request.sampling, logits.len(), None, 0)?;
        let mut history = TokenHistory::default();
        tokens.iter().for_each(|&token| history.push(token));
        let distribution = sampler.distribution(&logits, &history, 0, None)?;
        let mut weights = vec![0.0; logits.len()];
        for (token, weight) in distribution.weights {
            if let Some(place) = weights.get_mut(token as usize) {
                *place = weight as f32;
            }
        }
        Ok(weights)
    })?;
    Ok(PyArray1::from_vec(py, weights))
}

fn quant_type(name: &str) -> Result<QuantType> {
    QuantType::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = QuantType::ALL.iter().map(|ty| ty.name()).collect();
        Error::invalid("type", format!("`{name}` is none of {}", known.join(", ")))
    })
}

/// `len` zeros, or an error where there is no memory for them.
fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    let mut zeros = Vec::new();
    if zeros.try_reserve_exact(len).is_err() {
        let needed = (len as u64).saturating_mul(size_of::<T>() as u64);
        return Err(Error::OutOfMemory { what: "the result".into(), needed, available: 0 });
    }
    zeros.resize(len, T::default());
    Ok(zeros)
}

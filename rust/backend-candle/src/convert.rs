//! From a stored weight to the form that was planned for it.

use std::borrow::Cow;
use std::sync::Arc;

use alloyforge_kernels::dequant::dequantize;
use alloyforge_types::{DType, Error, QuantType, Result, Weight};
use candle_core::Tensor;
use candle_core::quantized::{QMatMul, QStorage, QTensor};
use rayon::prelude::*;

use crate::fault::Place;
use crate::formats;
use crate::matrix::{Matrix, Packed};
use crate::plan::Form;
use crate::quantize::quantize;

/// Values that are converted at a time: 64 MiB of f32.
const CHUNK_VALUES: usize = 1 << 24;

/// `weight` turned into type `ty` and given `form`.
pub(crate) fn matrix(place: &Place, weight: Weight<'_>, ty: QuantType, form: Form) -> Result<Matrix> {
    let fault = |e| place.fault(e);
    let weight = if ty == weight.ty { weight } else { turn(place, &weight, ty)? };
    let (rows, cols) = (weight.rows, weight.cols);
    Ok(match form {
        Form::Dense(DType::F32) if weight.ty != QuantType::F32 || place.device.is_cpu() => {
            Matrix::Dense(dense_f32(place, &weight)?)
        }
        Form::Dense(dtype) => {
            let dtype = formats::plain(dtype);
            Matrix::Dense(
                Tensor::from_raw_buffer(&weight.data, dtype, &[rows, cols], &place.device).map_err(fault)?,
            )
        }
        Form::Packed(ty) => {
            Matrix::Packed(Arc::new(Packed { ty, rows, cols, data: owned(weight.data, &weight.name)? }))
        }
        Form::Blocks(ty) => {
            let Some(blocks) = formats::blocks(ty) else {
                return Err(Error::internal(format!("Candle has no blocks of {}", ty.name())));
            };
            let data = aligned(&weight.data);
            let storage = QStorage::from_data(data, &place.device, blocks).map_err(fault)?;
            let tensor = Arc::new(QTensor::new(storage, (rows, cols)).map_err(fault)?);
            let product = QMatMul::from_arc(tensor.clone()).map_err(fault)?;
            Matrix::Blocks(tensor, product)
        }
    })
}

/// `weight` in another type.
fn turn<'a>(place: &Place, weight: &Weight<'_>, ty: QuantType) -> Result<Weight<'a>> {
    let row_bytes = ty
        .row_bytes(weight.cols)
        .ok_or_else(|| Error::internal(format!("rows of {} values as {}", weight.cols, ty.name())))?;
    let mut data = reserved(weight.rows.saturating_mul(row_bytes), &weight.name)?;
    let step = (CHUNK_VALUES / weight.cols).max(1);
    for first in (0..weight.rows).step_by(step) {
        let mut values = Vec::new();
        widen(weight, first, step.min(weight.rows - first), &mut values)?;
        data.extend(quantize(values, weight.cols, ty).map_err(|e| place.fault(e))?);
    }
    Ok(Weight { name: weight.name.clone(), ty, rows: weight.rows, cols: weight.cols, data: Cow::Owned(data) })
}

/// `weight` as an f32 tensor of its shape on the device.
pub(crate) fn dense_f32(place: &Place, weight: &Weight<'_>) -> Result<Tensor> {
    let mut values = reserved(weight.rows * weight.cols, &weight.name)?;
    widen(weight, 0, weight.rows, &mut values)?;
    Tensor::from_vec(values, (weight.rows, weight.cols), &place.device).map_err(|e| place.fault(e))
}

/// `count` rows of `weight` from `first` on, widened into `out`.
fn widen(weight: &Weight<'_>, first: usize, count: usize, out: &mut Vec<f32>) -> Result<()> {
    let row_bytes = weight.data.len() / weight.rows;
    out.resize(count * weight.cols, 0.0);
    // rows are converted in parallel, many of them at a time where they are short
    let rows = (4096 / weight.cols).max(1);
    let data = &weight.data[first * row_bytes..(first + count) * row_bytes];
    out.par_chunks_mut(rows * weight.cols)
        .zip(data.par_chunks(rows * row_bytes))
        .try_for_each(|(out, data)| dequantize(weight.ty, data, out))
        .map_err(|e| Error::internal(format!("weight `{}`: {e}", weight.name)))
}

/// An empty vector with room for `len` elements.
fn reserved<T>(len: usize, name: &str) -> Result<Vec<T>> {
    let mut out = Vec::new();
    match out.try_reserve_exact(len) {
        Ok(()) => Ok(out),
        Err(_) => Err(Error::OutOfMemory {
            what: format!("weight `{name}`"),
            needed: len.saturating_mul(size_of::<T>()) as u64,
            available: alloyforge_kernels::memory::available().unwrap_or(0),
        }),
    }
}

fn owned(data: Cow<'_, [u8]>, name: &str) -> Result<Vec<u8>> {
    match data {
        Cow::Owned(data) => Ok(data),
        Cow::Borrowed(data) => {
            let mut out = reserved(data.len(), name)?;
            out.extend_from_slice(data);
            Ok(out)
        }
    }
}

/// `data` at an address that any block type may be read from: Candle panics on another. What the
/// allocator gives is aligned for every number.
fn aligned(data: &[u8]) -> Cow<'_, [u8]> {
    match data.as_ptr().align_offset(align_of::<u64>()) {
        0 => Cow::Borrowed(data),
        _ => Cow::Owned(data.to_vec()),
    }
}

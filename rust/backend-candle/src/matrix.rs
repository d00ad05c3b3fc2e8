//! A weight matrix in whichever form its device computes with.

use std::sync::Arc;

use alloyforge_kernels::dequant::dequantize;
use alloyforge_types::QuantType;
use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{DType, Module, Result, Tensor};
use rayon::prelude::*;

/// Values of a packed matrix that are widened at a time: 4 MiB of f32, which stay in the cache
/// between being written and being multiplied.
const CHUNK_VALUES: usize = 1 << 20;

/// A matrix of shape `[rows, cols]` that maps `cols` inputs to `rows` outputs.
#[derive(Debug, Clone)]
pub(crate) enum Matrix {
    /// Plain numbers on the device.
    Dense(Tensor),
    /// Bytes on the host, widened to f32 at each use: for the CPU, where f32 would not fit.
    Packed(Arc<Packed>),
    /// ggml blocks on a GPU, for Candle's quantised kernels.
    Blocks(Arc<QTensor>, QMatMul),
}

/// A matrix as its file has it.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The stored format.
    pub(crate) ty: QuantType,
    /// Outputs.
    pub(crate) rows: usize,
    /// Inputs.
    pub(crate) cols: usize,
    /// `rows` rows of equal length in bytes.
    pub(crate) data: Vec<u8>,
}

impl Matrix {
    /// `x` times the matrix transposed: from `[n, cols]` to `[n, rows]` of the same type.
    pub(crate) fn product(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(w) => x.to_dtype(w.dtype())?.matmul(&w.t()?)?.to_dtype(x.dtype()),
            Self::Packed(w) => w.product(x),
            Self::Blocks(_, w) => w.forward(&x.to_dtype(DType::F32)?.contiguous()?)?.to_dtype(x.dtype()),
        }
    }

    /// The rows numbered `ids`, as f32 `[ids.len(), cols]`. The ids have been checked.
    pub(crate) fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(w) => w.index_select(ids, 0)?.to_dtype(DType::F32),
            Self::Packed(w) => w.rows(&ids.to_vec1::<u32>()?),
            Self::Blocks(w, _) => w.embedding(ids)?.to_dtype(DType::F32),
        }
    }
}

impl Packed {
    /// `count` rows from `first` on, widened.
    fn widen(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        let row_bytes = self.data.len() / self.rows.max(1);
        let mut out = vec![0.0; count * self.cols];
        out.par_chunks_mut(self.cols).enumerate().try_for_each(|(i, out)| {
            let start = (first + i) * row_bytes;
            dequantize(self.ty, &self.data[start..start + row_bytes], out).map_err(candle_core::Error::wrap)
        })?;
        Ok(out)
    }

    fn product(&self, x: &Tensor) -> Result<Tensor> {
        let step = (CHUNK_VALUES / self.cols.max(1)).max(1);
        let parts = (0..self.rows)
            .step_by(step)
            .map(|first| {
                let count = step.min(self.rows - first);
                let chunk = Tensor::from_vec(self.widen(first, count)?, (count, self.cols), x.device())?;
                x.matmul(&chunk.t()?)
            })
            .collect::<Result<Vec<_>>>()?;
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            parts => Tensor::cat(parts, 1),
        }
    }

    fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let mut out = Vec::with_capacity(ids.len() * self.cols);
        for &id in ids {
            out.extend(self.widen(id as usize, 1)?);
        }
        Tensor::from_vec(out, (ids.len(), self.cols), &candle_core::Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// A matrix that is widened in two chunks, packed and dense.
    fn both(ty: QuantType) -> (Matrix, Matrix) {
        let (rows, cols) = (CHUNK_VALUES / 64 + 3, 64);
        let values: Vec<half::f16> =
            (0..rows * cols).map(|i| half::f16::from_f32((i % 97) as f32 / 16.0 - 3.0)).collect();
        let data = match ty {
            QuantType::F16 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_f32().to_le_bytes()).collect(),
        };
        let dense: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
        let dense = Tensor::from_vec(dense, (rows, cols), &Device::Cpu).expect("a shape");
        (Matrix::Packed(Arc::new(Packed { ty, rows, cols, data })), Matrix::Dense(dense))
    }

    #[test]
    fn packed_bytes_are_the_dense_matrix() {
        let x = Tensor::arange(0f32, 192.0, &Device::Cpu).and_then(|x| x.reshape((3, 64))).expect("a shape");
        let ids = Tensor::new(&[0u32, 16386, 5], &Device::Cpu).expect("ids");
        for ty in [QuantType::F16, QuantType::F32] {
            let (packed, dense) = both(ty);
            let rows = |m: &Matrix| m.rows(&ids).and_then(|t| t.to_vec2::<f32>()).expect("rows");
            assert_eq!(rows(&packed), rows(&dense));
            let product = |m: &Matrix| m.product(&x).and_then(|t| t.to_vec2::<f32>()).expect("a product");
            for (a, b) in product(&packed).concat().into_iter().zip(product(&dense).concat()) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
            }
        }
    }
}

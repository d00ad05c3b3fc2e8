//! Products outside an encoder's layers: its convolutions, and what makes a decoder's rows of its own.

use alloyforge_interfaces::TensorStore;
use alloyforge_kernels::activation::{Activation, activate_plain};
use alloyforge_kernels::dequant;
use alloyforge_kernels::disjoint::{Disjoint, PerWorker};
use alloyforge_kernels::grid::Grid;
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::matrix::Matrix;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::product::{self, Input, Output, Store};
use alloyforge_types::{Error, QuantType, Result};

/// The numbers of the tensor `name`.
pub(crate) fn numbers(store: &dyn TensorStore, name: &str) -> Result<(Vec<f32>, QuantType, Vec<usize>)> {
    let fault = |fault: &str| Error::format(store.label(), format!("tensor `{name}`"), fault);
    let view = store.tensor(name).ok_or_else(|| fault("is missing"))?;
    let len = view.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    let len = len.filter(|n| view.ty.is_plain() && view.ty.row_bytes(*n) == Some(view.data.len()));
    let mut out = vec![0.0; len.ok_or_else(|| fault("is not of plain numbers"))?];
    dequant::dequantize(view.ty, view.data, &mut out).map_err(|e| Error::internal(e.to_string()))?;
    Ok((out, view.ty, view.shape))
}

/// As [`numbers`], of `len` numbers.
pub(crate) fn vector(store: &dyn TensorStore, name: &str, len: usize) -> Result<Vec<f32>> {
    let (values, ..) = numbers(store, name)?;
    if values.len() != len {
        let fault = format!("has {} numbers, expected {len}", values.len());
        return Err(Error::format(store.label(), format!("tensor `{name}`"), fault));
    }
    Ok(values)
}

/// A matrix with what is added behind it.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Linear {
    /// The matrix `name.weight`, `[rows, cols]`, with `name.bias` where `has_bias`.
    pub(crate) fn load(
        store: &dyn TensorStore,
        name: &str,
        (rows, cols): (usize, usize),
        has_bias: bool,
        pool: &Pool,
        isa: Isa,
    ) -> Result<Self> {
        let weight = format!("{name}.weight");
        let fault = |fault: String| Error::format(store.label(), format!("tensor `{weight}`"), fault);
        let view = store.tensor(&weight).ok_or_else(|| fault("is missing".into()))?;
        if view.shape != [rows, cols] {
            return Err(fault(format!("has shape {:?}, expected [{rows}, {cols}]", view.shape)));
        }
        let matrix = Matrix::pack(pool, isa, name, (rows, cols), view.ty, view.data, view.ty)?;
        let bias = has_bias.then(|| vector(store, &format!("{name}.bias"), rows)).transpose()?;
        Ok(Self { matrix, bias })
    }

    /// The products of the rows of `input`, with `activation` behind them, into `out`, from its row
    /// `first_row` on.
    pub(crate) fn run(
        &self,
        pool: &Pool,
        isa: Isa,
        input: Input<'_>,
        activation: Option<Activation>,
        out: &mut [f32],
        first_row: usize,
    ) -> Result<()> {
        let (rows, count) = (self.matrix.rows(), input.count());
        let scratch = PerWorker::new(pool.threads(), || {
            Ok::<_, Error>(vec![0.0; product::scratch_len(self.matrix.cols())])
        })?;
        let values = Disjoint::new(out);
        let grid = Grid::new(&self.matrix, count, pool.threads());
        pool.run(grid.parts(), |index, worker| {
            let (batch, part) = grid.part(index);
            let (bias, input) = (self.bias.as_deref(), input.batch(batch.clone()));
            let (values, first_row) = (&values, first_row + batch.start);
            let output = Output { values, stride: rows, first_row, first_column: 0, bias, store: Store::Set };
            let mut scratch = scratch.get(worker);
            // SAFETY: each part has rows and columns of its own.
            unsafe { product::product(isa, &self.matrix, part.clone(), input, output, &mut scratch) }?;
            let Some(activation) = activation else { return Ok(()) };
            for row in first_row..first_row + batch.len() {
                // SAFETY: as above.
                let part = unsafe { values.part(row * rows + part.start..row * rows + part.end) };
                activate_plain(isa, activation, part);
            }
            Ok(())
        })
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.matrix.bytes() + 4 * self.bias.as_ref().map_or(0, Vec::len)
    }
}

//! A layer's experts side by side, so that a product takes for each row the matrices that its router chose,
//! and nothing is asked of the host in between.

use std::sync::Arc;

use alloyforge_types::{Error, ExpertRole, LayerRole, QuantType, Result, Role, Weight};
use candle_core::quantized::{QStorage, QTensor};
use candle_core::{DType, Tensor};

use crate::fault::Place;
use crate::fused::Fused;
use crate::matrix::Matrix;
use crate::plan::{Form, Wanted};
use crate::{convert, formats};

/// The matrices of one kind of all experts, `[experts, outputs, cols]`.
#[derive(Debug, Clone)]
pub(crate) enum Matrices {
    /// Plain numbers.
    Dense(Tensor),
    /// Blocks on a CUDA device, of a type that Candle has a product with stacks for.
    Blocks(Arc<QTensor>),
}

impl Matrices {
    /// From `[n, cols]`, or `[n * chosen, cols]` where each choice has a row of its own, by the choices
    /// `ids`, `[n, chosen]`, to `[n * chosen, outputs]` of the same type.
    pub(crate) fn product(
        &self,
        fused: Option<&Fused>,
        x: &Tensor,
        ids: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let (n, chosen) = ids.dims2()?;
        let (rows, cols) = x.dims2()?;
        match self {
            Self::Dense(w) => {
                let narrow = x.to_dtype(w.dtype())?;
                let ours = fused.map(|fused| fused.stack_product(&narrow, w, ids)).transpose()?.flatten();
                let product = match ours {
                    Some(product) => product,
                    // a copy of the chosen matrices, then one product for each
                    None => {
                        let x = narrow.reshape((n, rows / n, cols))?.broadcast_as((n, chosen, cols))?;
                        let x = x.contiguous()?.reshape((n * chosen, cols, 1))?;
                        w.index_select(&ids.flatten_all()?, 0)?.matmul(&x)?.squeeze(2)?
                    }
                };
                product.to_dtype(x.dtype())
            }
            Self::Blocks(w) => {
                // the kernel looks at where storage begins, not at where a view of it does
                let x32 = x.to_dtype(DType::F32)?.contiguous()?;
                let x32 = if x32.layout().start_offset() == 0 { x32 } else { x32.force_contiguous()? };
                let product = w.indexed_moe_forward(&x32.reshape((n, rows / n, cols))?, ids)?;
                product.flatten(0, 1)?.to_dtype(x.dtype())
            }
        }
    }

    /// Whether they are plain numbers of two bytes.
    pub(crate) fn are_two_byte(&self) -> bool {
        matches!(self, Self::Dense(w) if matches!(w.dtype(), DType::F16 | DType::BF16))
    }

    /// The matrix of one expert, where it can be had by itself.
    pub(crate) fn expert(&self, expert: usize) -> candle_core::Result<Option<Matrix>> {
        match self {
            Self::Dense(w) => w.get(expert).map(Matrix::Dense).map(Some),
            Self::Blocks(_) => Ok(None),
        }
    }
}

/// The kinds of an expert's matrices.
pub(crate) const KINDS: [ExpertRole; 3] = [ExpertRole::Gate, ExpertRole::Up, ExpertRole::Down];

/// The expert and the kind of its matrix, where `role` is one of `layer`'s.
pub(crate) fn expert_matrix(role: Role) -> Option<(usize, usize, ExpertRole)> {
    match role {
        Role::Layer(layer, LayerRole::Expert(expert, kind)) if KINDS.contains(&kind) => {
            Some((layer, expert, kind))
        }
        _ => None,
    }
}

/// Whether the experts whose weights and forms are given, those of one layer, can stand in stacks: all plain
/// numbers, or on a CUDA device all blocks with a product for stacks, each kind of one form.
pub(crate) fn can_stack<'a>(
    place: &Place,
    experts: impl Iterator<Item = (&'a Wanted, Form)> + Clone,
) -> bool {
    // a part of a stack begins where kernels can read several numbers at once
    let is_plain = |(w, form): (&Wanted, Form)| matches!(form, Form::Dense(_)) && w.cols.is_multiple_of(8);
    let is_indexed = |form: Form| match form {
        Form::Blocks(ty) => place.device.is_cuda() && formats::has_stacks(ty),
        _ => false,
    };
    let of =
        |kind| experts.clone().filter(move |(w, _)| expert_matrix(w.role).is_some_and(|(_, _, k)| k == kind));
    let are_alike = |kind| {
        let mut forms = of(kind).map(|(_, form)| form);
        forms.next().is_some_and(|first| forms.all(|form| form == first))
    };
    KINDS.into_iter().all(are_alike)
        && (experts.clone().all(is_plain) || experts.clone().all(|(_, form)| is_indexed(form)))
}

/// The matrices of one kind, while they come one after the other.
#[derive(Debug)]
pub(crate) enum Growing {
    Dense(Tensor),
    Blocks { ty: QuantType, shape: (usize, usize, usize), data: Vec<u8> },
}

impl Growing {
    /// Room for `experts` matrices shaped as `w`.
    ///
    /// # Errors
    /// `OutOfMemory` on the host, `Device`.
    pub(crate) fn new(place: &Place, experts: usize, w: &Wanted, form: Form) -> Result<Self> {
        let shape = (experts, w.rows, w.cols);
        match form {
            Form::Dense(dtype) => {
                let stack = Tensor::zeros(shape, formats::plain(dtype), &place.device);
                Ok(Self::Dense(stack.map_err(|e| place.fault(e))?))
            }
            Form::Blocks(ty) | Form::Packed(ty) => {
                let bytes = (experts as u64).saturating_mul(form.bytes(w));
                let mut data = Vec::new();
                let is_there = usize::try_from(bytes).is_ok_and(|n| data.try_reserve_exact(n).is_ok());
                if !is_there {
                    let what = format!("the experts of {:?}", w.role);
                    let available = alloyforge_kernels::memory::available().unwrap_or(0);
                    return Err(Error::OutOfMemory { what, needed: bytes, available });
                }
                Ok(Self::Blocks { ty, shape, data })
            }
        }
    }

    /// Takes in the matrix of `expert`, turned into type `ty`: plain numbers in any order, blocks in that of
    /// the experts.
    pub(crate) fn put(
        &mut self,
        place: &Place,
        expert: usize,
        weight: Weight<'_>,
        ty: QuantType,
        form: Form,
    ) -> Result<()> {
        let matrix = match self {
            Self::Dense(_) => convert::matrix(place, weight, ty, form)?,
            // the bytes as they will stand on the device
            Self::Blocks { .. } => convert::matrix(place, weight, ty, Form::Packed(ty))?,
        };
        match (self, matrix) {
            (Self::Dense(stack), Matrix::Dense(w)) => {
                w.unsqueeze(0).and_then(|w| stack.slice_set(&w, 0, expert)).map_err(|e| place.fault(e))
            }
            (Self::Blocks { data, .. }, Matrix::Packed(w)) if data.len() == expert * w.data.len() => {
                data.extend_from_slice(&w.data);
                Ok(())
            }
            _ => Err(Error::internal(format!("the matrix of expert {expert} does not fit its stack"))),
        }
    }

    /// The whole stack, on the device.
    pub(crate) fn finish(self, place: &Place) -> Result<Matrices> {
        let fault = |e| place.fault(e);
        match self {
            Self::Dense(stack) => Ok(Matrices::Dense(stack)),
            Self::Blocks { ty, shape, data } => {
                let Some(blocks) = formats::blocks(ty) else {
                    return Err(Error::internal(format!("Candle has no blocks of {}", ty.name())));
                };
                let storage = QStorage::from_data(data.into(), &place.device, blocks).map_err(fault)?;
                Ok(Matrices::Blocks(Arc::new(QTensor::new(storage, shape).map_err(fault)?)))
            }
        }
    }
}

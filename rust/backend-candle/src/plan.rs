//! Which form each weight takes, and whether all of them fit.
//!
//! On the CPU matrices become f32 where all of them take no more than half of the free memory, and
//! stay as the file has them otherwise. On a GPU plain matrices keep their type, blocks stay blocks
//! where Candle has kernels for them, and the rest becomes f16.

use alloyforge_interfaces::WeightSource;
use alloyforge_types::{DType, Error, LayerRole, MatrixPlace, ModelSpec, QuantType, Result, Role, Weight};

use crate::fault::Place;
use crate::quantize::Target;
use crate::{device, formats};

/// One weight that the spec asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) role: Role,
    pub(crate) place: MatrixPlace,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl Wanted {
    pub(crate) fn new(spec: &ModelSpec, role: Role) -> Result<Self> {
        let fault = || Error::internal(format!("{role:?} has no shape in the spec"));
        let (rows, cols) = spec.weight_shape(role).ok_or_else(fault)?;
        Ok(Self { role, place: spec.matrix_place(role), rows, cols })
    }

    pub(crate) fn values(&self) -> u64 {
        self.rows as u64 * self.cols as u64
    }
}

/// How many numbers all of `wanted` have.
pub(crate) fn values(wanted: &[Wanted]) -> u64 {
    wanted.iter().map(Wanted::values).fold(0, u64::saturating_add)
}

/// What a weight becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Plain numbers on the device.
    Dense(DType),
    /// Bytes of this type on the host.
    Packed(QuantType),
    /// Blocks of this type on a GPU.
    Blocks(QuantType),
}

impl Form {
    pub(crate) fn bytes(self, w: &Wanted) -> u64 {
        let row = match self {
            Self::Dense(DType::F32) => w.cols * 4,
            Self::Dense(DType::F16 | DType::BF16) => w.cols * 2,
            Self::Packed(ty) | Self::Blocks(ty) => ty.row_bytes(w.cols).unwrap_or(w.cols * 4),
        };
        w.rows as u64 * row as u64
    }
}

/// The rules that give each weight its form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forms {
    pub(crate) is_cpu: bool,
    /// Whether the CPU's matrices become f32.
    pub(crate) is_wide: bool,
    pub(crate) dtype: Option<DType>,
    pub(crate) target: Option<Target>,
}

impl Forms {
    /// The type that the values of a weight stored as `stored` are turned into first.
    pub(crate) fn turned(&self, w: &Wanted, stored: QuantType) -> QuantType {
        let ty = match (w.role, self.target) {
            (role, _) if role.is_vector() => return stored,
            // a router is small, and its choices turn on close numbers
            (Role::Layer(_, LayerRole::Router), _) | (_, None) => stored,
            (_, Some(target)) => target.type_of(&w.place, w.cols),
        };
        match (formats::stored_plain(ty), self.dtype) {
            // widening to f32 changes no value: the CPU does it when it multiplies
            (Some(_), Some(DType::F32)) if self.is_cpu => ty,
            (Some(_), Some(dtype)) => formats::stored(dtype),
            (None, _) if !self.is_cpu && formats::blocks(ty).is_none() => {
                formats::stored(self.dtype.unwrap_or(DType::F16))
            }
            _ => ty,
        }
    }

    /// The form of a weight whose values are of type `ty` by now.
    pub(crate) fn form(&self, w: &Wanted, ty: QuantType) -> Form {
        if w.role.is_vector() || (self.is_cpu && self.is_wide) {
            Form::Dense(DType::F32)
        } else if self.is_cpu {
            Form::Packed(ty)
        } else {
            formats::stored_plain(ty).map_or(Form::Blocks(ty), Form::Dense)
        }
    }
}

/// Settles whether the CPU's matrices become f32, and that everything fits.
pub(crate) fn settle(
    place: &Place,
    source: &dyn WeightSource,
    wanted: &[Wanted],
    forms: Forms,
    workspace: u64,
) -> Result<Forms> {
    let wide = values(wanted).saturating_mul(4);
    let Some(available) = device::available(&place.device) else {
        return Ok(Forms { is_wide: true, ..forms });
    };
    let forms = Forms { is_wide: wide <= available / 2, ..forms };
    let weights = if forms.is_cpu && forms.is_wide {
        wide
    } else {
        wanted.iter().try_fold(0u64, |sum, w| {
            let ty = forms.turned(w, source.weight(w.role)?.ty);
            Ok::<_, Error>(sum.saturating_add(forms.form(w, ty).bytes(w)))
        })?
    };
    let needed = weights.saturating_add(workspace);
    if needed > available {
        return Err(Error::OutOfMemory { what: format!("the model on `{}`", place.name), needed, available });
    }
    Ok(forms)
}

/// A weight from its source, its size checked: the conversions below rely on it.
pub(crate) fn fetch<'a>(source: &'a dyn WeightSource, w: &Wanted) -> Result<Weight<'a>> {
    let weight = source.weight(w.role)?;
    let bytes = weight.ty.row_bytes(weight.cols).and_then(|row| row.checked_mul(weight.rows));
    if (weight.rows, weight.cols) != (w.rows, w.cols) || bytes != Some(weight.data.len()) {
        return Err(Error::internal(format!(
            "weight `{}` for {:?} is [{}, {}] of {} in {} bytes, the spec wants [{}, {}]",
            weight.name,
            w.role,
            weight.rows,
            weight.cols,
            weight.ty.name(),
            weight.data.len(),
            w.rows,
            w.cols
        )));
    }
    Ok(weight)
}

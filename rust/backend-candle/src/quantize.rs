//! Quantising matrices while they are loaded, by Candle's own conversion.

use alloyforge_types::{Error, MatrixPlace, QuantMix, QuantType, Result};
use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};

use crate::formats;

/// The types that matrices are turned into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target(QuantMix);

impl Target {
    /// # Errors
    /// `InvalidRequest` for types that Candle cannot make.
    pub(crate) fn new(mix: QuantMix) -> Result<Self> {
        if formats::blocks(mix.base()).is_none() && formats::stored_plain(mix.base()).is_none() {
            let fault = format!("the Candle backend cannot quantise to {}", mix.name());
            return Err(Error::invalid("quantize", fault));
        }
        Ok(Self(mix))
    }

    /// The type of the matrix at `place` with rows of `cols` values.
    pub(crate) fn type_of(self, place: &MatrixPlace, cols: usize) -> QuantType {
        self.0.type_of(place, cols)
    }
}

/// `values`, rows of `cols`, in blocks of `ty`, a type from [`Target::type_of`].
pub(crate) fn quantize(values: Vec<f32>, cols: usize, ty: QuantType) -> candle_core::Result<Vec<u8>> {
    let rows = values.len() / cols.max(1);
    match ty {
        QuantType::F32 => Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        QuantType::F16 => Ok(values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()),
        QuantType::BF16 => Ok(values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect()),
        _ => {
            let Some(blocks) = formats::blocks(ty) else {
                return Err(candle_core::Error::Msg(format!("no conversion to {}", ty.name())));
            };
            let values = Tensor::from_vec(values, (rows, cols), &Device::Cpu)?;
            Ok(QTensor::quantize(&values, blocks)?.data()?.into_owned())
        }
    }
}

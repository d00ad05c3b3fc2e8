//! Quantising matrices while they are loaded, by Candle's own conversion.

use alloyforge_types::{Error, QuantType, Result};
use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};

use crate::formats;

/// The type that matrices are turned into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target(QuantType);

impl Target {
    /// # Errors
    /// `InvalidRequest` for a type that Candle cannot make.
    pub(crate) fn new(ty: QuantType) -> Result<Self> {
        if formats::blocks(ty).is_none() && formats::stored_plain(ty).is_none() {
            let fault = format!("the Candle backend cannot quantise to {}", ty.name());
            return Err(Error::invalid("quantize", fault));
        }
        Ok(Self(ty))
    }

    /// The type for rows of `cols` values: where they fill no whole blocks, the nearest type of smaller
    /// blocks, as llama.cpp chooses it, and f16 where there is none.
    pub(crate) fn for_cols(self, cols: usize) -> QuantType {
        let nearest = match self.0 {
            QuantType::Q2K | QuantType::Q3K => QuantType::Q4_0,
            QuantType::Q4K => QuantType::Q5_0,
            QuantType::Q5K => QuantType::Q5_1,
            QuantType::Q6K => QuantType::Q8_0,
            other => other,
        };
        [self.0, nearest].into_iter().find(|ty| ty.row_bytes(cols).is_some()).unwrap_or(QuantType::F16)
    }
}

/// `values`, rows of `cols`, in blocks of `ty`, a type from [`Target::for_cols`].
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

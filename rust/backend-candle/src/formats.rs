//! Number formats between the project's names and Candle's.

use alloyforge_types::{DType, Error, KvType, QuantType, Result};
use candle_core::DType as CandleType;
use candle_core::quantized::GgmlDType;

/// Candle's name for a plain format.
pub(crate) fn plain(ty: DType) -> CandleType {
    match ty {
        DType::F32 => CandleType::F32,
        DType::F16 => CandleType::F16,
        DType::BF16 => CandleType::BF16,
    }
}

/// The stored format that is plain format `ty`.
pub(crate) fn stored(ty: DType) -> QuantType {
    match ty {
        DType::F32 => QuantType::F32,
        DType::F16 => QuantType::F16,
        DType::BF16 => QuantType::BF16,
    }
}

/// The plain format that a weight is stored in, where it is one.
pub(crate) fn stored_plain(ty: QuantType) -> Option<DType> {
    match ty {
        QuantType::F32 => Some(DType::F32),
        QuantType::F16 => Some(DType::F16),
        QuantType::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// Candle's name for a block format, where Candle has kernels for it.
pub(crate) fn blocks(ty: QuantType) -> Option<GgmlDType> {
    Some(match ty {
        QuantType::Q4_0 => GgmlDType::Q4_0,
        QuantType::Q4_1 => GgmlDType::Q4_1,
        QuantType::Q5_0 => GgmlDType::Q5_0,
        QuantType::Q5_1 => GgmlDType::Q5_1,
        QuantType::Q8_0 => GgmlDType::Q8_0,
        QuantType::Q2K => GgmlDType::Q2K,
        QuantType::Q3K => GgmlDType::Q3K,
        QuantType::Q4K => GgmlDType::Q4K,
        QuantType::Q5K => GgmlDType::Q5K,
        QuantType::Q6K => GgmlDType::Q6K,
        _ => return None,
    })
}

/// Whether Candle multiplies by stacks of matrices in a block format on a CUDA device.
pub(crate) fn has_stacks(ty: QuantType) -> bool {
    use QuantType as Q;
    matches!(ty, Q::Q8_0 | Q::Q2K | Q::Q3K | Q::Q4K | Q::Q5K | Q::Q6K)
}

/// Candle's name for a cache format.
///
/// # Errors
/// `InvalidRequest` for `q8_0`: the cache is read by Candle's plain products, which know no blocks.
pub(crate) fn cached(ty: KvType) -> Result<CandleType> {
    match ty {
        KvType::F32 => Ok(CandleType::F32),
        KvType::F16 => Ok(CandleType::F16),
        KvType::BF16 => Ok(CandleType::BF16),
        KvType::Q8_0 => Err(Error::invalid(
            "kv_dtype",
            "the Candle backend caches f32, f16 or bf16; q8_0 is the native backend's",
        )),
    }
}

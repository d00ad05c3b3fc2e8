//! Root mean square norms (Zhang and Sennrich, arXiv 1910.07467), in f32.

use candle_core::{D, Result, Tensor};

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension.
pub(crate) fn rms(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let inverse = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(eps))?.sqrt()?.recip()?;
    x.broadcast_mul(&inverse)?.broadcast_mul(weight)
}

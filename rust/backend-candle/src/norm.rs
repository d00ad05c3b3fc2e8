//! Root mean square norms (Zhang and Sennrich, arXiv 1910.07467) and layer norms (Ba et al., arXiv
//! 1607.06450), in f32.

use candle_core::{D, Result, Tensor};

/// A norm of the residual stream.
#[derive(Debug)]
pub(crate) enum Norm {
    Rms(Tensor),
    Layer { weight: Tensor, bias: Tensor },
}

impl Norm {
    /// Over the last dimension.
    pub(crate) fn forward(&self, x: &Tensor, eps: f32) -> Result<Tensor> {
        match self {
            Self::Rms(weight) => rms(x, weight, eps),
            Self::Layer { weight, bias } => {
                rms(&x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?, weight, eps)?.broadcast_add(bias)
            }
        }
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension.
pub(crate) fn rms(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let inverse = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(eps))?.sqrt()?.recip()?;
    x.broadcast_mul(&inverse)?.broadcast_mul(weight)
}

//! What stands between a gated MLP's two input products and its output product.

use alloyforge_types::{Activation, Error, Result};
use candle_core::Tensor;

use crate::fault::Place;
use crate::fused::Fused;

/// `activation(gate, up)`, in f32, by our kernel where there is one.
pub(crate) fn gated(
    place: &Place,
    fused: Option<&Fused>,
    kind: Activation,
    gate: &Tensor,
    up: &Tensor,
) -> Result<Tensor> {
    if let Some(fused) = fused
        && let Some(out) = fused.gated(kind, gate, up).map_err(|e| place.fault(e))?
    {
        return Ok(out);
    }
    let out = match kind {
        Activation::Silu => gate.silu().and_then(|g| g * up),
        Activation::GeluTanh => gate.gelu().and_then(|g| g * up),
        Activation::Gelu => gate.gelu_erf().and_then(|g| g * up),
        Activation::ClampedSwiglu { alpha, limit } => clamped_swiglu(gate, up, alpha, limit),
        other => return Err(Error::internal(format!("the Candle backend has no activation {other:?}"))),
    };
    out.map_err(|e| place.fault(e))
}

/// `activation(x)`, without a gate: the gated form with an `up` of one.
pub(crate) fn plain(place: &Place, kind: Activation, x: &Tensor) -> Result<Tensor> {
    let out = match kind {
        Activation::Silu => x.silu(),
        Activation::GeluTanh => x.gelu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::ClampedSwiglu { alpha, limit } => {
            x.ones_like().and_then(|ones| clamped_swiglu(x, &ones, alpha, limit))
        }
        other => return Err(Error::internal(format!("the Candle backend has no activation {other:?}"))),
    };
    out.map_err(|e| place.fault(e))
}

fn clamped_swiglu(gate: &Tensor, up: &Tensor, alpha: f32, limit: f32) -> candle_core::Result<Tensor> {
    let gate = gate.minimum(limit)?;
    let up = up.clamp(-limit, limit)?;
    // sigmoid(v) = 1 / (1 + exp(-v))
    let sigmoid = ((&gate * f64::from(-alpha))?.exp()? + 1.0)?.recip()?;
    (gate * sigmoid)? * (up + 1.0)?
}

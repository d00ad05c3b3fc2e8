//! A loaded model's weights, and the work of one MLP.

use alloyforge_types::{Activation, Result};
use candle_core::Tensor;

use crate::activation::gated;
use crate::experts::Experts;
use crate::fault::Place;
use crate::fused::Fused;
use crate::matrix::Matrix;
use crate::norm::Norm;

/// All weights.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,
    /// Learned positions, f32 `[positions, hidden]`.
    pub(crate) positions: Option<Tensor>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Norm,
    pub(crate) head: Matrix,
    pub(crate) head_bias: Option<Tensor>,
}

/// One layer's weights. Vectors are f32 of one dimension.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Option<Norm>,
    pub(crate) attention_post_norm: Option<Tensor>,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    pub(crate) q_norm: Option<Tensor>,
    pub(crate) k_norm: Option<Tensor>,
    /// Of shape `[heads, 1, 1]`.
    pub(crate) sinks: Option<Tensor>,
    pub(crate) cross: Option<Cross>,
    pub(crate) mlp_norm: Option<Norm>,
    pub(crate) mlp_post_norm: Option<Tensor>,
    pub(crate) mlp: Mlp,
}

/// Attention over an encoder's states.
#[derive(Debug)]
pub(crate) struct Cross {
    pub(crate) norm: Norm,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
}

/// A layer's MLP.
#[derive(Debug)]
pub(crate) enum Mlp {
    /// One for all rows.
    Dense(Gated),
    /// Without a gate.
    Plain { up: Linear, down: Linear, activation: Activation },
    /// Several, of which a router gives each row some.
    Moe { router: Linear, experts: Experts },
}

/// A product with or without a bias.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    /// From `[n, cols]` to `[n, rows]` of the same type.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_with(None, x)
    }

    /// Likewise, by our kernels where they are faster.
    pub(crate) fn forward_with(&self, fused: Option<&Fused>, x: &Tensor) -> candle_core::Result<Tensor> {
        let product = self.product_with(fused, x)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(&bias.to_dtype(product.dtype())?),
            None => Ok(product),
        }
    }

    /// Likewise, without the bias.
    pub(crate) fn product_with(&self, fused: Option<&Fused>, x: &Tensor) -> candle_core::Result<Tensor> {
        if let (Some(fused), Matrix::Dense(w)) = (fused, &self.matrix)
            && let Some(product) = fused.product(x, w, x.dtype())?
        {
            return Ok(product);
        }
        self.matrix.product(x)
    }
}

/// `down(activation(gate(x), up(x)))`.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) activation: Activation,
}

impl Gated {
    /// From `[n, hidden]` to `[n, hidden]` of the same type.
    pub(crate) fn forward(&self, place: &Place, fused: Option<&Fused>, x: &Tensor) -> Result<Tensor> {
        let fault = |e| place.fault(e);
        let gate = self.gate.forward_with(fused, x).map_err(fault)?;
        let up = self.up.forward_with(fused, x).map_err(fault)?;
        let hidden = gated(place, fused, self.activation, &gate, &up)?;
        self.down.forward_with(fused, &hidden).map_err(fault)
    }
}

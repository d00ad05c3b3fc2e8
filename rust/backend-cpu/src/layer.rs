//! A loaded layer: its weights and what its phases ask of its spec.

use alloyforge_kernels::activation::Activation;
use alloyforge_kernels::attention::HeadSpec;
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::matrix::Matrix;
use alloyforge_kernels::norm;
use alloyforge_kernels::router::RouterOrder;

use crate::cache::LayerPlace;

/// A product with its bias.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

impl From<Matrix> for Linear {
    fn from(matrix: Matrix) -> Self {
        Self { matrix, bias: None }
    }
}

/// A norm of the residual stream.
#[derive(Debug)]
pub(crate) enum Norm {
    Rms(Vec<f32>),
    Layer { weight: Vec<f32>, bias: Vec<f32> },
}

impl Norm {
    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Rms(weight) | Self::Layer { weight, .. } => weight.len(),
        }
    }

    /// The norm of `x`, into `out`.
    pub(crate) fn apply(&self, isa: Isa, x: &[f32], eps: f32, out: &mut [f32]) {
        match self {
            Self::Rms(weight) => norm::rms_norm(isa, x, weight, eps, out),
            Self::Layer { weight, bias } => norm::layer_norm(isa, x, weight, bias, eps, out),
        }
    }
}

/// The norm on queries and keys, with its weights.
#[derive(Debug)]
pub(crate) enum HeadNorm {
    None,
    /// Over each head.
    PerHead {
        q: Vec<f32>,
        k: Vec<f32>,
    },
    /// Over all heads together.
    FullWidth {
        q: Vec<f32>,
        k: Vec<f32>,
    },
}

/// A dense MLP.
#[derive(Debug)]
pub(crate) struct Dense {
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) activation: Activation,
}

/// An MLP without a gate.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) activation: Activation,
}

/// Attention over an encoder's states.
#[derive(Debug)]
pub(crate) struct Cross {
    pub(crate) norm: Norm,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    pub(crate) num_heads: usize,
    pub(crate) heads: HeadSpec,
    pub(crate) place: LayerPlace,
}

impl Cross {
    /// Width of all heads.
    pub(crate) fn width(&self) -> usize {
        self.num_heads * self.heads.layout.head_dim
    }
}

/// A mixture of experts.
#[derive(Debug)]
pub(crate) struct Experts {
    pub(crate) router: Linear,
    /// Gate, up and down of each.
    pub(crate) experts: Vec<[Linear; 3]>,
    pub(crate) per_token: usize,
    pub(crate) order: RouterOrder,
    pub(crate) activation: Activation,
}

#[derive(Debug)]
pub(crate) enum Mlp {
    /// Boxed: it is many times the size of the other variant.
    Dense(Box<Dense>),
    Plain(Box<Plain>),
    Experts(Experts),
}

/// A layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) num_heads: usize,
    pub(crate) num_kv_heads: usize,
    pub(crate) heads: HeadSpec,
    pub(crate) rope: Option<usize>,
    pub(crate) place: LayerPlace,
    pub(crate) attn_norm: Option<Norm>,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) head_norm: HeadNorm,
    pub(crate) sinks: Option<Vec<f32>>,
    pub(crate) o: Linear,
    /// Before the residual sum, and behind it.
    pub(crate) attn_post_norm: Option<Vec<f32>>,
    pub(crate) attn_after_norm: Option<Norm>,
    pub(crate) cross: Option<Box<Cross>>,
    pub(crate) mlp_norm: Option<Norm>,
    pub(crate) mlp: Mlp,
    pub(crate) mlp_post_norm: Option<Vec<f32>>,
    pub(crate) mlp_after_norm: Option<Norm>,
}

impl Layer {
    /// Width of a head.
    pub(crate) fn head_dim(&self) -> usize {
        self.heads.layout.head_dim
    }

    /// Width of all query heads.
    pub(crate) fn q_dim(&self) -> usize {
        self.num_heads * self.head_dim()
    }

    /// Width of all key heads.
    pub(crate) fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim()
    }
}

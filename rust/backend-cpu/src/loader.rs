//! From a weight source to loaded layers.

use alloyforge_interfaces::{LoadOptions, WeightSource};
use alloyforge_kernels::activation::Activation;
use alloyforge_kernels::attention::HeadSpec;
use alloyforge_kernels::dequant;
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::matrix::Matrix;
use alloyforge_kernels::plane::PlaneLayout;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::router::RouterOrder;
use alloyforge_types::{
    self as types, DType, Error, ExpertRole, KvType, LayerRole, MlpSpec, ModelSpec, QkNorm, QuantType,
    Result, Role, Weight,
};

use crate::cache::LayerPlace;
use crate::layer::{Dense, Experts, HeadNorm, Layer, Linear, Mlp};

/// Everything that is loaded once.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Vec<f32>,
    /// `None` where the embeddings are the head.
    pub(crate) head: Option<Matrix>,
    pub(crate) head_bias: Option<Vec<f32>>,
    /// Bytes of all.
    pub(crate) bytes: u64,
}

/// Loads the weights of `spec`, which has been checked.
pub(crate) fn load(
    spec: &ModelSpec,
    source: &dyn WeightSource,
    options: &LoadOptions,
    kv_type: KvType,
    pool: &Pool,
    isa: Isa,
) -> Result<Weights> {
    let mut loader = Loader { spec, source, options, pool, isa, bytes: 0, done: 0.0, total: numbers(spec) };
    let embedding = loader.matrix(Role::Embedding, spec.vocab_size, spec.hidden_dim, Use::Product)?;
    let layers = (0..spec.layers.len()).map(|i| loader.layer(i, kv_type)).collect::<Result<_>>()?;
    let final_norm = loader.vector(Role::FinalNorm, spec.hidden_dim)?;
    let head = match spec.has_tied_head {
        true => None,
        false => Some(loader.matrix(Role::Head, spec.vocab_size, spec.hidden_dim, Use::Product)?),
    };
    let head_bias = loader.vector_if(spec.has_head_bias, Role::HeadBias, spec.vocab_size)?;
    if let Some(progress) = &options.progress {
        progress(1.0);
    }
    Ok(Weights { embedding, layers, final_norm, head, head_bias, bytes: loader.bytes })
}

/// Numbers in the matrices of `spec`, for the progress bar alone.
fn numbers(spec: &ModelSpec) -> f64 {
    let hidden = spec.hidden_dim as f64;
    let embeddings = spec.vocab_size as f64 * hidden * if spec.has_tied_head { 1.0 } else { 2.0 };
    let layers = spec.layers.iter().map(|layer| {
        let a = &layer.attention;
        let attention = 2.0 * (a.num_heads + a.num_kv_heads) as f64 * a.head_dim as f64 * hidden;
        let mlp = match &layer.mlp {
            MlpSpec::Dense { ff_dim, .. } => 3.0 * *ff_dim as f64 * hidden,
            MlpSpec::Moe(moe) => (3.0 * moe.ff_dim as f64 + 1.0) * moe.num_experts as f64 * hidden,
            _ => 0.0,
        };
        attention + mlp
    });
    embeddings + layers.sum::<f64>()
}

/// What a matrix is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Products and embeddings: takes the type that the options ask for.
    Product,
    /// A router, whose choices turn on close numbers: stays as the file has it.
    Router,
}

struct Loader<'a> {
    spec: &'a ModelSpec,
    source: &'a dyn WeightSource,
    options: &'a LoadOptions,
    pool: &'a Pool,
    isa: Isa,
    bytes: u64,
    done: f64,
    total: f64,
}

impl<'a> Loader<'a> {
    /// The weight for `role`, which must have this shape.
    fn weight(&self, role: Role, rows: usize, cols: usize) -> Result<Weight<'a>> {
        let weight = self.source.weight(role)?;
        let len = weight.ty.row_bytes(weight.cols).and_then(|row| row.checked_mul(weight.rows));
        if (weight.rows, weight.cols) != (rows, cols) || len != Some(weight.data.len()) {
            return Err(Error::internal(format!(
                "{role:?} `{}` is {} by {} in {} bytes, not {rows} by {cols}",
                weight.name,
                weight.rows,
                weight.cols,
                weight.data.len(),
            )));
        }
        Ok(weight)
    }

    fn vector(&mut self, role: Role, len: usize) -> Result<Vec<f32>> {
        let weight = self.weight(role, 1, len)?;
        let mut numbers = vec![0.0; len];
        dequant::dequantize(weight.ty, &weight.data, &mut numbers)
            .map_err(|e| Error::internal(e.to_string()))?;
        self.bytes += 4 * len as u64;
        Ok(numbers)
    }

    fn vector_if(&mut self, is_there: bool, role: Role, len: usize) -> Result<Option<Vec<f32>>> {
        is_there.then(|| self.vector(role, len)).transpose()
    }

    fn matrix(&mut self, role: Role, rows: usize, cols: usize, purpose: Use) -> Result<Matrix> {
        let weight = self.weight(role, rows, cols)?;
        let to = match purpose {
            Use::Product => kept_type(weight.ty, self.options),
            Use::Router => weight.ty,
        };
        let matrix =
            Matrix::pack(self.pool, self.isa, &weight.name, (rows, cols), weight.ty, &weight.data, to)?;
        self.bytes += matrix.bytes() as u64;
        self.done += rows as f64 * cols as f64;
        if let Some(progress) = &self.options.progress {
            progress((self.done / self.total).min(1.0) as f32);
        }
        Ok(matrix)
    }

    /// A product of layer `i`.
    fn linear(
        &mut self,
        i: usize,
        role: LayerRole,
        bias: Option<LayerRole>,
        rows: usize,
        cols: usize,
    ) -> Result<Linear> {
        let purpose = if role == LayerRole::Router { Use::Router } else { Use::Product };
        let matrix = self.matrix(Role::Layer(i, role), rows, cols, purpose)?;
        let bias = bias.map(|bias| self.vector(Role::Layer(i, bias), rows)).transpose()?;
        Ok(Linear { matrix, bias })
    }

    fn layer(&mut self, i: usize, kv_type: KvType) -> Result<Layer> {
        use LayerRole as L;
        let layer = &self.spec.layers[i];
        let (a, norms, hidden) = (&layer.attention, layer.norms, self.spec.hidden_dim);
        let (q_dim, kv_dim) = (a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim);
        let qkv_bias = |role: L| a.has_qkv_bias.then_some(role);
        let norm = |role: L| Role::Layer(i, role);
        let head_norm = match a.qk_norm {
            QkNorm::None => HeadNorm::None,
            QkNorm::PerHead => HeadNorm::PerHead {
                q: self.vector(norm(L::QNorm), a.head_dim)?,
                k: self.vector(norm(L::KNorm), a.head_dim)?,
            },
            QkNorm::FullWidth => HeadNorm::FullWidth {
                q: self.vector(norm(L::QNorm), q_dim)?,
                k: self.vector(norm(L::KNorm), kv_dim)?,
            },
            other => return Err(self.unknown(format!("the q/k norm {other:?}"))),
        };
        Ok(Layer {
            num_heads: a.num_heads,
            num_kv_heads: a.num_kv_heads,
            heads: HeadSpec {
                layout: PlaneLayout { ty: kv_type, head_dim: a.head_dim },
                group: a.num_heads / a.num_kv_heads,
                scale: a.scale,
                softcap: a.softcap,
                window: a.window,
            },
            rope: a.rope,
            place: LayerPlace::new(self.spec, i, kv_type),
            attn_norm: self.vector_if(norms.has_pre(), norm(L::AttnNorm), hidden)?,
            q: self.linear(i, L::Q, qkv_bias(L::QBias), q_dim, hidden)?,
            k: self.linear(i, L::K, qkv_bias(L::KBias), kv_dim, hidden)?,
            v: self.linear(i, L::V, qkv_bias(L::VBias), kv_dim, hidden)?,
            head_norm,
            sinks: self.vector_if(a.has_sinks, norm(L::Sinks), a.num_heads)?,
            o: self.linear(i, L::O, a.has_o_bias.then_some(L::OBias), hidden, q_dim)?,
            attn_post_norm: self.vector_if(norms.has_post(), norm(L::AttnPostNorm), hidden)?,
            mlp_norm: self.vector_if(norms.has_pre(), norm(L::MlpNorm), hidden)?,
            mlp: self.mlp(i, &layer.mlp)?,
            mlp_post_norm: self.vector_if(norms.has_post(), norm(L::MlpPostNorm), hidden)?,
        })
    }

    fn mlp(&mut self, i: usize, mlp: &MlpSpec) -> Result<Mlp> {
        use LayerRole as L;
        let hidden = self.spec.hidden_dim;
        match mlp {
            MlpSpec::Dense { ff_dim, activation } => Ok(Mlp::Dense(Dense {
                gate: self.linear(i, L::Gate, None, *ff_dim, hidden)?,
                up: self.linear(i, L::Up, None, *ff_dim, hidden)?,
                down: self.linear(i, L::Down, None, hidden, *ff_dim)?,
                activation: self.activation(*activation)?,
            })),
            MlpSpec::Moe(moe) => {
                let order = match moe.order {
                    types::RouterOrder::TopKThenSoftmax => RouterOrder::AfterChoice,
                    types::RouterOrder::SoftmaxThenTopK { renormalise } => {
                        RouterOrder::BeforeChoice { renormalise }
                    }
                    other => return Err(self.unknown(format!("the router order {other:?}"))),
                };
                let bias = moe.has_router_bias.then_some(L::RouterBias);
                let router = self.linear(i, L::Router, bias, moe.num_experts, hidden)?;
                let mut expert = |e: usize| {
                    let mut part = |role, bias, rows, cols| {
                        let bias = moe.has_expert_bias.then_some(L::Expert(e, bias));
                        self.linear(i, L::Expert(e, role), bias, rows, cols)
                    };
                    Ok([
                        part(ExpertRole::Gate, ExpertRole::GateBias, moe.ff_dim, hidden)?,
                        part(ExpertRole::Up, ExpertRole::UpBias, moe.ff_dim, hidden)?,
                        part(ExpertRole::Down, ExpertRole::DownBias, hidden, moe.ff_dim)?,
                    ])
                };
                let experts = (0..moe.num_experts).map(&mut expert).collect::<Result<_>>()?;
                let activation = self.activation(moe.activation)?;
                Ok(Mlp::Experts(Experts {
                    router,
                    experts,
                    per_token: moe.experts_per_token,
                    order,
                    activation,
                }))
            }
            other => Err(self.unknown(format!("the MLP {other:?}"))),
        }
    }

    fn activation(&self, activation: types::Activation) -> Result<Activation> {
        match activation {
            types::Activation::Silu => Ok(Activation::Silu),
            types::Activation::GeluTanh => Ok(Activation::GeluTanh),
            types::Activation::Gelu => Ok(Activation::Gelu),
            types::Activation::ClampedSwiglu { alpha, limit } => {
                Ok(Activation::ClampedSwiglu { alpha, limit })
            }
            other => Err(self.unknown(format!("the activation {other:?}"))),
        }
    }

    fn unknown(&self, what: String) -> Error {
        Error::unsupported(self.spec.architecture.clone(), format!("{what} on the native CPU backend"))
    }
}

/// The type that a matrix of type `ty` is kept in.
///
/// An f32 result needs nothing that the file does not have, so f32 leaves every type as it is.
fn kept_type(ty: QuantType, options: &LoadOptions) -> QuantType {
    match (options.quantize, options.dtype) {
        (Some(to), _) => to,
        (None, Some(DType::F16)) if ty.is_plain() => QuantType::F16,
        (None, Some(DType::BF16)) if ty.is_plain() => QuantType::BF16,
        _ => ty,
    }
}

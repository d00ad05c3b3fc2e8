//! From a weight source to loaded layers.

use alloyforge_interfaces::{LoadOptions, WeightSource};
use alloyforge_kernels::activation::Activation;
use alloyforge_kernels::attention::HeadSpec;
use alloyforge_kernels::dequant;
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::matrix::Matrix;
use alloyforge_kernels::plane::PlaneLayout;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::quantize;
use alloyforge_kernels::router::RouterOrder;
use alloyforge_types::{
    self as types, DType, Error, ExpertRole, KvType, LayerRole, MlpSpec, ModelSpec, NormKind, NormPlacement,
    QkNorm, QuantType, Result, Role, Weight,
};

use crate::cache::LayerPlace;
use crate::layer::{Cross, Dense, Experts, HeadNorm, Layer, Linear, Mlp, Norm, Plain};
use crate::states::cross_spec;

/// Everything that is loaded once.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,
    /// Learned positions, row by row.
    pub(crate) positions: Option<Vec<f32>>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Norm,
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
    if let Some(mix) = options.quantize.filter(|mix| quantize::row_fn(mix.base()).is_none()) {
        return Err(Error::invalid("quantize", format!("{} can be read but not written", mix.name())));
    }
    // the embeddings and the head count as a layer each
    let total = (spec.layers.len() + 2) as f32;
    let progress = |done: usize| {
        if let Some(progress) = &options.progress {
            progress(done as f32 / total);
        }
    };
    let mut loader = Loader { spec, source, options, pool, isa, bytes: 0 };
    let embedding = loader.matrix(Role::Embedding)?;
    let positions = spec.positions.map(|_| loader.numbers(Role::Positions)).transpose()?;
    progress(1);
    let mut layers = Vec::with_capacity(spec.layers.len());
    for i in 0..spec.layers.len() {
        layers.push(loader.layer(i, kv_type)?);
        progress(i + 2);
    }
    let final_norm = loader.norm(Role::FinalNorm, Role::FinalNormBias)?;
    let head = (!spec.has_tied_head).then(|| loader.matrix(Role::Head)).transpose()?;
    let head_bias = loader.vector_if_any(Role::HeadBias)?;
    progress(spec.layers.len() + 2);
    Ok(Weights { embedding, positions, layers, final_norm, head, head_bias, bytes: loader.bytes })
}

/// [`Matrix::pack`] or [`Matrix::pack_tiles`].
type Pack = fn(&Pool, Isa, &str, (usize, usize), QuantType, &[u8], QuantType) -> Result<Matrix>;

struct Loader<'a> {
    spec: &'a ModelSpec,
    source: &'a dyn WeightSource,
    options: &'a LoadOptions,
    pool: &'a Pool,
    isa: Isa,
    bytes: u64,
}

impl<'a> Loader<'a> {
    /// The weight for `role`, in the shape that the spec gives it.
    fn weight(&self, role: Role) -> Result<Weight<'a>> {
        let weight = self.source.weight(role)?;
        let shape = self.spec.weight_shape(role);
        let len = weight.ty.row_bytes(weight.cols).and_then(|row| row.checked_mul(weight.rows));
        if shape != Some((weight.rows, weight.cols)) || len != Some(weight.data.len()) {
            return Err(Error::internal(format!(
                "{role:?} `{}` is {} by {} in {} bytes, not {shape:?}",
                weight.name,
                weight.rows,
                weight.cols,
                weight.data.len(),
            )));
        }
        Ok(weight)
    }

    fn vector(&mut self, role: Role) -> Result<Vec<f32>> {
        self.numbers(role)
    }

    /// The norm whose weight is `role`.
    fn norm(&mut self, role: Role, bias: Role) -> Result<Norm> {
        match self.spec.norm {
            NormKind::Rms => Ok(Norm::Rms(self.vector(role)?)),
            NormKind::Layer => Ok(Norm::Layer { weight: self.vector(role)?, bias: self.vector(bias)? }),
            other => Err(self.unknown(format!("the norm {other:?}"))),
        }
    }

    /// That norm, where the spec has one.
    fn norm_if_any(&mut self, role: Role, bias: Role) -> Result<Option<Norm>> {
        self.spec.weight_shape(role).map(|_| self.norm(role, bias)).transpose()
    }

    /// The norm before a residual sum, where there is one.
    fn post_norm(&mut self, norms: NormPlacement, role: Role) -> Result<Option<Vec<f32>>> {
        norms.has_post().then(|| self.vector(role)).transpose()
    }

    /// The norm behind a residual sum, where there is one.
    fn after_norm(&mut self, norms: NormPlacement, role: Role, bias: Role) -> Result<Option<Norm>> {
        norms.has_after().then(|| self.norm(role, bias)).transpose()
    }

    /// All numbers of a weight.
    fn numbers(&mut self, role: Role) -> Result<Vec<f32>> {
        let weight = self.weight(role)?;
        let mut numbers = vec![0.0; weight.rows * weight.cols];
        dequant::dequantize(weight.ty, &weight.data, &mut numbers)
            .map_err(|e| Error::internal(e.to_string()))?;
        self.bytes += 4 * numbers.len() as u64;
        Ok(numbers)
    }

    /// The vector for `role`, where the spec has one.
    fn vector_if_any(&mut self, role: Role) -> Result<Option<Vec<f32>>> {
        self.spec.weight_shape(role).map(|_| self.vector(role)).transpose()
    }

    fn matrix(&mut self, role: Role) -> Result<Matrix> {
        let weight = self.weight(role)?;
        let shape = (weight.rows, weight.cols);
        let kept = self.kept_type(role, &weight);
        let (to, pack): (_, Pack) = match role {
            // its choices turn on close numbers
            Role::Layer(_, LayerRole::Router) => (weight.ty, Matrix::pack),
            // its rows are read one by one
            Role::Embedding if !self.spec.has_tied_head => (kept, Matrix::pack_rows),
            // activations are not rounded to bytes
            _ if self.options.dtype == Some(DType::F32) => (kept, Matrix::pack),
            _ => (kept, Matrix::pack_tiles),
        };
        let matrix = pack(self.pool, self.isa, &weight.name, shape, weight.ty, &weight.data, to)?;
        self.bytes += matrix.bytes() as u64;
        self.source.release(role);
        Ok(matrix)
    }

    /// The type that a matrix is kept in.
    ///
    /// An f32 result needs nothing that the file does not have, so f32 leaves every type as it is.
    fn kept_type(&self, role: Role, weight: &Weight<'_>) -> QuantType {
        match (self.options.quantize, self.options.dtype) {
            (Some(mix), _) => mix.type_of(&self.spec.matrix_place(role), weight.cols),
            (None, Some(DType::F16)) if weight.ty.is_plain() => QuantType::F16,
            (None, Some(DType::BF16)) if weight.ty.is_plain() => QuantType::BF16,
            _ => weight.ty,
        }
    }

    fn linear(&mut self, role: Role, bias: Role) -> Result<Linear> {
        Ok(Linear { matrix: self.matrix(role)?, bias: self.vector_if_any(bias)? })
    }

    fn layer(&mut self, i: usize, kv_type: KvType) -> Result<Layer> {
        use LayerRole as L;
        let layer = &self.spec.layers[i];
        let a = &layer.attention;
        let role = |role: L| Role::Layer(i, role);
        let cross = match &layer.cross {
            None => None,
            Some(c) => Some(Box::new(Cross {
                norm: self.norm(role(L::CrossNorm), role(L::CrossNormBias))?,
                q: self.linear(role(L::CrossQ), role(L::CrossQBias))?,
                k: self.linear(role(L::CrossK), role(L::CrossKBias))?,
                v: self.linear(role(L::CrossV), role(L::CrossVBias))?,
                o: self.linear(role(L::CrossO), role(L::CrossOBias))?,
                num_heads: c.num_heads,
                heads: HeadSpec {
                    layout: PlaneLayout { ty: kv_type, head_dim: c.head_dim },
                    group: 1,
                    scale: c.scale,
                    softcap: None,
                    window: None,
                },
                place: LayerPlace::new(&cross_spec(self.spec), i, kv_type),
            })),
        };
        let head_norm = match a.qk_norm {
            QkNorm::None => HeadNorm::None,
            QkNorm::PerHead => {
                HeadNorm::PerHead { q: self.vector(role(L::QNorm))?, k: self.vector(role(L::KNorm))? }
            }
            QkNorm::FullWidth => {
                HeadNorm::FullWidth { q: self.vector(role(L::QNorm))?, k: self.vector(role(L::KNorm))? }
            }
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
            attn_norm: self.norm_if_any(role(L::AttnNorm), role(L::AttnNormBias))?,
            q: self.linear(role(L::Q), role(L::QBias))?,
            k: self.linear(role(L::K), role(L::KBias))?,
            v: self.linear(role(L::V), role(L::VBias))?,
            head_norm,
            sinks: self.vector_if_any(role(L::Sinks))?,
            o: self.linear(role(L::O), role(L::OBias))?,
            attn_post_norm: self.post_norm(layer.norms, role(L::AttnPostNorm))?,
            attn_after_norm: self.after_norm(
                layer.norms,
                role(L::AttnPostNorm),
                role(L::AttnPostNormBias),
            )?,
            cross,
            mlp_norm: self.norm_if_any(role(L::MlpNorm), role(L::MlpNormBias))?,
            mlp: self.mlp(i, &layer.mlp)?,
            mlp_post_norm: self.post_norm(layer.norms, role(L::MlpPostNorm))?,
            mlp_after_norm: self.after_norm(layer.norms, role(L::MlpPostNorm), role(L::MlpPostNormBias))?,
        })
    }

    fn mlp(&mut self, i: usize, mlp: &MlpSpec) -> Result<Mlp> {
        use LayerRole as L;
        let role = |role: L| Role::Layer(i, role);
        match mlp {
            MlpSpec::Dense { activation, .. } => Ok(Mlp::Dense(Box::new(Dense {
                gate: self.linear(role(L::Gate), role(L::GateBias))?,
                up: self.linear(role(L::Up), role(L::UpBias))?,
                down: self.linear(role(L::Down), role(L::DownBias))?,
                activation: self.activation(*activation)?,
            }))),
            MlpSpec::Plain { activation, .. } => Ok(Mlp::Plain(Box::new(Plain {
                up: self.linear(role(L::Up), role(L::UpBias))?,
                down: self.linear(role(L::Down), role(L::DownBias))?,
                activation: self.activation(*activation)?,
            }))),
            MlpSpec::Moe(moe) => {
                let order = match moe.order {
                    types::RouterOrder::TopKThenSoftmax => RouterOrder::AfterChoice,
                    types::RouterOrder::SoftmaxThenTopK { renormalise } => {
                        RouterOrder::BeforeChoice { renormalise }
                    }
                    other => return Err(self.unknown(format!("the router order {other:?}"))),
                };
                let activation = self.activation(moe.activation)?;
                let router = self.linear(role(L::Router), role(L::RouterBias))?;
                let mut experts = Vec::new();
                for e in 0..moe.num_experts {
                    use ExpertRole as E;
                    let role = |part| role(L::Expert(e, part));
                    experts.push([
                        self.linear(role(E::Gate), role(E::GateBias))?,
                        self.linear(role(E::Up), role(E::UpBias))?,
                        self.linear(role(E::Down), role(E::DownBias))?,
                    ]);
                }
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
            types::Activation::QuickGelu => Ok(Activation::QuickGelu),
            types::Activation::Relu => Ok(Activation::Relu),
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

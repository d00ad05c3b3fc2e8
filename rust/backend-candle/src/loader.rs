//! From a family's weights to tensors on the device: planned first, then one after another.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use alloyforge_interfaces::{LoadOptions, WeightSource};
use alloyforge_types::{
    DType, Error, ExpertRole, KvType, LayerRole, LayerSpec, MlpSpec, ModelSpec, MoeSpec, Result, Role,
};
use candle_core::Tensor;

use crate::experts::{Experts, Stack, Stacks};
use crate::fault::Place;
use crate::layer::{Cross, Gated, Layer, Linear, Mlp, Weights};
use crate::matrix::Matrix;
use crate::norm::Norm;
use crate::plan::{Form, Forms, Room, Settled, Wanted};
use crate::quantize::Target;
use crate::stack::Growing;
use crate::{convert, device, plan, stack};

/// The weights with what is known about them as a whole.
pub(crate) struct Loaded {
    pub(crate) weights: Weights,
    /// Bytes that they hold.
    pub(crate) bytes: u64,
    /// What the KV cache is kept in.
    pub(crate) kv_type: KvType,
    /// The type of rows between products.
    pub(crate) compute: DType,
}

/// Loads what `spec` asks for from `source`, leaving `workspace` bytes free, and those of the KV cache.
///
/// # Errors
/// `OutOfMemory` before anything is taken; `InvalidRequest` for a type that Candle cannot make; what
/// the source says; `Device`.
pub(crate) fn load(
    place: &Place,
    spec: &ModelSpec,
    source: &dyn WeightSource,
    options: &LoadOptions,
    workspace: u64,
) -> Result<Loaded> {
    let wanted = spec.roles().map(|role| Wanted::new(spec, role)).collect::<Result<Vec<_>>>()?;
    let forms = Forms {
        is_cpu: place.device.is_cpu(),
        is_wide: false,
        dtype: options.dtype,
        target: options.quantize.map(Target::new).transpose()?,
    };
    let room = Room { device: &place.name, available: device::available(&place.device), workspace };
    let Settled { forms, kv_type, each } = plan::settle(room, source, &wanted, forms, options)?;
    let stacked = stacked(place, spec, &wanted, &each);
    let total = plan::values(&wanted).max(1);
    let (mut done, mut bytes) = (0, 0);
    let mut parts = Parts::default();
    let mut layer_forms = Vec::new();
    for w in &wanted {
        let weight = plan::fetch(source, w)?;
        let ty = forms.turned(w, weight.ty);
        let form = forms.form(w, ty);
        if matches!(w.role, Role::Layer(..)) && !w.role.is_vector() {
            layer_forms.push(form);
        }
        let stack = stack::expert_matrix(w.role).filter(|(layer, ..)| stacked.contains(layer));
        if let Some((layer, expert, kind)) = stack {
            parts.stack(place, spec, (layer, kind), form, w)?.put(place, expert, weight, ty, form)?;
        } else {
            let part = if w.role == Role::Positions {
                Part::Vector(convert::dense_f32(place, &weight)?)
            } else if w.role.is_vector() {
                let row = convert::dense_f32(place, &weight)?;
                Part::Vector(row.flatten_all().map_err(|e| place.fault(e))?)
            } else {
                Part::Matrix(convert::matrix(place, weight, ty, form)?)
            };
            parts.loose.insert(w.role, part);
        }
        bytes += form.bytes(w);
        done += w.values();
        if let Some(progress) = &options.progress {
            progress((done as f64 / total as f64) as f32);
        }
    }
    let weights = parts.assemble(spec, place)?;
    // rows between products are of the matrices' own type where all of them have one; blocks take f32
    let all = |ty: DType| !forms.is_cpu && layer_forms.iter().all(|form| *form == Form::Dense(ty));
    let compute = [DType::F16, DType::BF16].into_iter().find(|&ty| all(ty)).unwrap_or(DType::F32);
    Ok(Loaded { weights, bytes, kv_type, compute })
}

/// A loaded weight.
enum Part {
    Vector(Tensor),
    Matrix(Matrix),
}

/// The layers whose experts stand in stacks: on a GPU, where their forms, those of `each`, allow it.
fn stacked(place: &Place, spec: &ModelSpec, wanted: &[Wanted], each: &[Form]) -> HashSet<usize> {
    if place.device.is_cpu() {
        return HashSet::new();
    }
    let experts = |layer: usize| {
        let forms = wanted.iter().zip(each.iter().copied());
        forms.filter(move |(w, _)| stack::expert_matrix(w.role).is_some_and(|(l, ..)| l == layer))
    };
    let layers = spec.layers.iter().enumerate().filter(|(_, layer)| matches!(layer.mlp, MlpSpec::Moe(_)));
    layers.map(|(i, _)| i).filter(|&i| stack::can_stack(place, experts(i))).collect()
}

/// The loaded weights that are not in their places yet.
#[derive(Default)]
struct Parts {
    loose: HashMap<Role, Part>,
    /// By the layer and the kind of its experts' matrices.
    stacks: HashMap<(usize, ExpertRole), Growing>,
}

impl Parts {
    /// The stack of a layer's kind of matrices, shaped as that of `w`.
    fn stack(
        &mut self,
        place: &Place,
        spec: &ModelSpec,
        key: (usize, ExpertRole),
        form: Form,
        w: &Wanted,
    ) -> Result<&mut Growing> {
        let num_experts = match spec.layers.get(key.0).map(|layer| &layer.mlp) {
            Some(MlpSpec::Moe(moe)) => moe.num_experts,
            _ => return Err(Error::internal(format!("layer {} has no experts", key.0))),
        };
        Ok(match self.stacks.entry(key) {
            Entry::Occupied(stack) => stack.into_mut(),
            Entry::Vacant(room) => room.insert(Growing::new(place, num_experts, w, form)?),
        })
    }

    fn vector(&mut self, role: Role) -> Option<Tensor> {
        match self.loose.remove(&role)? {
            Part::Vector(tensor) => Some(tensor),
            Part::Matrix(_) => None,
        }
    }

    /// The norm whose weight is `role`: with a bias it is a layer norm.
    fn norm(&mut self, role: Role, bias: Role) -> Option<Norm> {
        let weight = self.vector(role)?;
        Some(match self.vector(bias) {
            Some(bias) => Norm::Layer { weight, bias },
            None => Norm::Rms(weight),
        })
    }

    fn matrix(&mut self, role: Role) -> Result<Matrix> {
        match self.loose.remove(&role) {
            Some(Part::Matrix(matrix)) => Ok(matrix),
            _ => Err(Error::internal(format!("{role:?} was not loaded"))),
        }
    }

    fn linear(&mut self, matrix: Role, bias: Role) -> Result<Linear> {
        Ok(Linear { matrix: self.matrix(matrix)?, bias: self.vector(bias) })
    }

    fn assemble(mut self, spec: &ModelSpec, place: &Place) -> Result<Weights> {
        let embedding = self.matrix(Role::Embedding)?;
        let layers = spec
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| self.layer(i, layer, place))
            .collect::<Result<Vec<_>>>()?;
        let head = if spec.has_tied_head { embedding.clone() } else { self.matrix(Role::Head)? };
        let final_norm = self
            .norm(Role::FinalNorm, Role::FinalNormBias)
            .ok_or_else(|| Error::internal("the final norm was not loaded"))?;
        let positions = spec.positions.map(|_| self.vector(Role::Positions));
        let positions = match positions {
            Some(None) => return Err(Error::internal("the positions were not loaded")),
            Some(table) => table,
            None => None,
        };
        let head_bias = self.vector(Role::HeadBias);
        Ok(Weights { embedding, positions, layers, final_norm, head, head_bias })
    }

    fn layer(&mut self, index: usize, spec: &LayerSpec, place: &Place) -> Result<Layer> {
        use LayerRole as L;
        let of = |role| Role::Layer(index, role);
        let sinks = self.vector(of(L::Sinks));
        let sinks = sinks.map(|s| s.reshape((spec.attention.num_heads, 1, 1))).transpose();
        let mlp = match &spec.mlp {
            MlpSpec::Moe(moe) => Mlp::Moe {
                router: self.linear(of(L::Router), of(L::RouterBias))?,
                experts: self.experts(index, moe, place)?,
            },
            MlpSpec::Dense { activation, .. } => Mlp::Dense(Gated {
                gate: Linear { matrix: self.matrix(of(L::Gate))?, bias: None },
                up: Linear { matrix: self.matrix(of(L::Up))?, bias: None },
                down: Linear { matrix: self.matrix(of(L::Down))?, bias: None },
                activation: *activation,
            }),
            MlpSpec::Plain { activation, .. } => Mlp::Plain {
                up: self.linear(of(L::Up), of(L::UpBias))?,
                down: self.linear(of(L::Down), of(L::DownBias))?,
                activation: *activation,
            },
            other => return Err(Error::internal(format!("an MLP {other:?} passed the check"))),
        };
        let cross = match spec.cross {
            None => None,
            Some(_) => Some(Cross {
                norm: self
                    .norm(of(L::CrossNorm), of(L::CrossNormBias))
                    .ok_or_else(|| Error::internal("a cross attention's norm was not loaded"))?,
                q: self.linear(of(L::CrossQ), of(L::CrossQBias))?,
                k: self.linear(of(L::CrossK), of(L::CrossKBias))?,
                v: self.linear(of(L::CrossV), of(L::CrossVBias))?,
                o: self.linear(of(L::CrossO), of(L::CrossOBias))?,
            }),
        };
        Ok(Layer {
            attention_norm: self.norm(of(L::AttnNorm), of(L::AttnNormBias)),
            attention_post_norm: self.vector(of(L::AttnPostNorm)),
            q: self.linear(of(L::Q), of(L::QBias))?,
            k: self.linear(of(L::K), of(L::KBias))?,
            v: self.linear(of(L::V), of(L::VBias))?,
            o: self.linear(of(L::O), of(L::OBias))?,
            q_norm: self.vector(of(L::QNorm)),
            k_norm: self.vector(of(L::KNorm)),
            sinks: sinks.map_err(|e| place.fault(e))?,
            cross,
            mlp_norm: self.norm(of(L::MlpNorm), of(L::MlpNormBias)),
            mlp_post_norm: self.vector(of(L::MlpPostNorm)),
            mlp,
        })
    }

    fn experts(&mut self, index: usize, moe: &MoeSpec, place: &Place) -> Result<Experts> {
        use ExpertRole as E;
        let stacks = match self.stacks.contains_key(&(index, E::Gate)) {
            true => Some(Stacks {
                gate: self.finish(index, moe, place, (E::Gate, E::GateBias))?,
                up: self.finish(index, moe, place, (E::Up, E::UpBias))?,
                down: self.finish(index, moe, place, (E::Down, E::DownBias))?,
                activation: moe.activation,
            }),
            false => None,
        };
        let mut each = Vec::new();
        for e in 0..moe.num_experts {
            let stack = |stack: &Stack| stack.expert(e).map_err(|e| place.fault(e));
            let of = |role| Role::Layer(index, LayerRole::Expert(e, role));
            let [gate, up, down] = match &stacks {
                None => [
                    self.linear(of(E::Gate), of(E::GateBias))?,
                    self.linear(of(E::Up), of(E::UpBias))?,
                    self.linear(of(E::Down), of(E::DownBias))?,
                ],
                Some(stacks) => match (stack(&stacks.gate)?, stack(&stacks.up)?, stack(&stacks.down)?) {
                    (Some(gate), Some(up), Some(down)) => [gate, up, down],
                    _ => break,
                },
            };
            each.push(Gated { gate, up, down, activation: moe.activation });
        }
        Ok(Experts { each, stacks })
    }

    /// The whole stack of one kind, with the biases of that kind.
    fn finish(
        &mut self,
        index: usize,
        moe: &MoeSpec,
        place: &Place,
        (kind, bias): (ExpertRole, ExpertRole),
    ) -> Result<Stack> {
        let Some(growing) = self.stacks.remove(&(index, kind)) else {
            return Err(Error::internal(format!("layer {index} has no stack of {kind:?}")));
        };
        let biases = (0..moe.num_experts)
            .filter_map(|e| self.vector(Role::Layer(index, LayerRole::Expert(e, bias))))
            .collect::<Vec<_>>();
        let bias = match biases.len() {
            0 => None,
            n if n == moe.num_experts => Some(Tensor::stack(&biases, 0).map_err(|e| place.fault(e))?),
            n => return Err(Error::internal(format!("layer {index} has {n} biases of {kind:?}"))),
        };
        Ok(Stack { matrices: growing.finish(place)?, bias })
    }
}

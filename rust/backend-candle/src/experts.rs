//! A mixture of experts. On the CPU, and for many rows, the router's choice is made on the host and each
//! expert goes once over all its rows. On a GPU the choice stays there where experts stand in stacks and rows
//! are few: nothing is copied to the host in the middle of a step, which would stand still for it.

use alloyforge_types::{Activation, MoeSpec, Result, RouterOrder};
use candle_core::{D, DType, Tensor};

use crate::activation::gated;
use crate::fault::Place;
use crate::fused::Fused;
use crate::layer::{Gated, Linear};
use crate::stack::Matrices;

/// The experts of a layer: each by itself, or all in stacks, or both.
#[derive(Debug)]
pub(crate) struct Experts {
    /// None where their stacks are of blocks, of which no part can be had.
    pub(crate) each: Vec<Gated>,
    pub(crate) stacks: Option<Stacks>,
}

/// The matrices of all experts of a layer.
#[derive(Debug)]
pub(crate) struct Stacks {
    pub(crate) gate: Stack,
    pub(crate) up: Stack,
    pub(crate) down: Stack,
    pub(crate) activation: Activation,
}

/// The matrices of one kind, and their biases, f32 `[experts, outputs]`.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) matrices: Matrices,
    pub(crate) bias: Option<Tensor>,
}

impl Stack {
    /// As [`Matrices::product`], with the biases of the choices.
    fn forward(&self, fused: Option<&Fused>, x: &Tensor, ids: &Tensor) -> candle_core::Result<Tensor> {
        let product = self.matrices.product(fused, x, ids)?;
        match &self.bias {
            Some(bias) => product + bias.index_select(&ids.flatten_all()?, 0)?.to_dtype(x.dtype())?,
            None => Ok(product),
        }
    }

    /// The matrix of one expert with its bias, where they can be had by themselves.
    pub(crate) fn expert(&self, expert: usize) -> candle_core::Result<Option<Linear>> {
        let Some(matrix) = self.matrices.expert(expert)? else { return Ok(None) };
        let bias = self.bias.as_ref().map(|bias| bias.get(expert)).transpose()?;
        Ok(Some(Linear { matrix, bias }))
    }
}

impl Experts {
    /// The stacks, where `rows` rows go over them: each row reads the matrices that it chose, at most twice
    /// what all of them are. Without a kernel of ours for their type the chosen ones are copied first, which
    /// is left at one row. Where the one becomes faster than the other was not measured on a GPU.
    fn stacks_for(&self, spec: &MoeSpec, rows: usize, has_kernels: bool) -> Option<&Stacks> {
        let stacks = self.stacks.as_ref()?;
        let is_read_in_place = has_kernels && stacks.gate.matrices.are_two_byte();
        let few = if is_read_in_place { 2 * spec.num_experts / spec.experts_per_token } else { 1 };
        (self.each.is_empty() || rows <= few.max(1)).then_some(stacks)
    }
}

/// The sum over each row's experts of weight times output, from `[n, hidden]` to the same shape.
pub(crate) fn forward(
    place: &Place,
    fused: Option<&Fused>,
    spec: &MoeSpec,
    router: &Linear,
    experts: &Experts,
    x: &Tensor,
) -> Result<Tensor> {
    let fault = |e| place.fault(e);
    let logits = router.forward(x).and_then(|l| l.to_dtype(DType::F32)).map_err(fault)?;
    let rows = x.dim(0).map_err(fault)?;
    match experts.stacks_for(spec, rows, fused.is_some()) {
        Some(stacks) => on_device(place, fused, spec, stacks, &logits, x),
        None => on_host(place, fused, spec, &experts.each, &logits, x),
    }
}

/// The experts' outputs by choices that stay on the device.
fn on_device(
    place: &Place,
    fused: Option<&Fused>,
    spec: &MoeSpec,
    stacks: &Stacks,
    logits: &Tensor,
    x: &Tensor,
) -> Result<Tensor> {
    let fault = |e| place.fault(e);
    let (ids, weights) = route(fused, spec, logits).map_err(fault)?;
    let gate = stacks.gate.forward(fused, x, &ids).map_err(fault)?;
    let up = stacks.up.forward(fused, x, &ids).map_err(fault)?;
    let hidden = gated(place, fused, stacks.activation, &gate, &up)?;
    let sum = || {
        let out = stacks.down.forward(fused, &hidden, &ids)?.to_dtype(DType::F32)?;
        let (n, chosen) = ids.dims2()?;
        let out = out.reshape((n, chosen, ()))?;
        out.broadcast_mul(&weights.unsqueeze(2)?)?.sum(1)?.to_dtype(x.dtype())
    };
    sum().map_err(fault)
}

/// The choices of each row, the highest first, u32 `[n, chosen]`, and their weights, f32 of the same shape, by
/// our kernel where there is one. Without it, which of equal logits is chosen depends on the device.
fn route(fused: Option<&Fused>, spec: &MoeSpec, logits: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    if let Some(fused) = fused
        && let Some(chosen) = fused.route(logits, spec)?
    {
        return Ok(chosen);
    }
    let order = logits.contiguous()?.arg_sort_last_dim(false)?;
    let ids = order.narrow(1, 0, spec.experts_per_token)?.contiguous()?;
    let chosen = logits.gather(&ids, 1)?;
    let highest = chosen.max_keepdim(D::Minus1)?;
    let shares = chosen.broadcast_sub(&highest)?.exp()?;
    let sum = match spec.order {
        RouterOrder::SoftmaxThenTopK { renormalise: false } => {
            logits.broadcast_sub(&highest)?.exp()?.sum_keepdim(D::Minus1)?
        }
        // a softmax over all, renormalised over the chosen, is the softmax over the chosen
        _ => shares.sum_keepdim(D::Minus1)?,
    };
    Ok((ids, shares.broadcast_div(&sum)?))
}

/// The experts' outputs by choices that are copied to the host, once a layer, whatever the number of rows.
fn on_host(
    place: &Place,
    fused: Option<&Fused>,
    spec: &MoeSpec,
    experts: &[Gated],
    logits: &Tensor,
    x: &Tensor,
) -> Result<Tensor> {
    let fault = |e| place.fault(e);
    let logits = logits.to_vec2::<f32>().map_err(fault)?;
    let mut chosen: Vec<(Vec<u32>, Vec<f32>)> = vec![Default::default(); experts.len()];
    for (row, logits) in logits.iter().enumerate() {
        for (expert, weight) in choose(spec, logits) {
            chosen[expert].0.push(row as u32);
            chosen[expert].1.push(weight);
        }
    }
    let mut sum = x.zeros_like().map_err(fault)?;
    for (expert, (rows, weights)) in experts.iter().zip(chosen) {
        if rows.is_empty() {
            continue;
        }
        let count = rows.len();
        let rows = Tensor::from_vec(rows, count, &place.device).map_err(fault)?;
        let weights =
            Tensor::from_vec(weights, (count, 1), &place.device).and_then(|w| w.to_dtype(x.dtype()));
        let weights = weights.map_err(fault)?;
        let out = expert.forward(place, fused, &x.index_select(&rows, 0).map_err(fault)?)?;
        sum = out.broadcast_mul(&weights).and_then(|o| sum.index_add(&rows, &o, 0)).map_err(fault)?;
    }
    Ok(sum)
}

/// The experts of one row with their weights. `logits` has one number an expert.
fn choose(spec: &MoeSpec, logits: &[f32]) -> Vec<(usize, f32)> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // stable: of equal logits the lower index stays in front; adding zero makes -0 equal to 0
    order.sort_by(|&a, &b| (logits[b] + 0.0).total_cmp(&(logits[a] + 0.0)));
    order.truncate(spec.experts_per_token);
    let max = order.first().map_or(0.0, |&e| logits[e]);
    let exp = |e: usize| (logits[e] - max).exp();
    let chosen: f32 = order.iter().map(|&e| exp(e)).sum();
    let sum = match spec.order {
        RouterOrder::SoftmaxThenTopK { renormalise: false } => (0..logits.len()).map(exp).sum(),
        // a softmax over all, renormalised over the chosen, is the softmax over the chosen
        _ => chosen,
    };
    order.into_iter().map(|e| (e, exp(e) / sum)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn spec(order: RouterOrder) -> MoeSpec {
        MoeSpec {
            num_experts: 4,
            experts_per_token: 2,
            ff_dim: 1,
            activation: Activation::Silu,
            order,
            has_router_bias: false,
            has_expert_bias: false,
        }
    }

    #[test]
    fn of_equal_logits_the_lower_index_wins() {
        let chosen = choose(&spec(RouterOrder::TopKThenSoftmax), &[0.0, 1.0, 1.0, 1.0]);
        assert_eq!(chosen, [(1, 0.5), (2, 0.5)]);
    }

    #[test]
    fn weights_are_shares_of_all_experts_unless_renormalised() {
        let logits = [4f32.ln(), 0.0, 3f32.ln(), 2f32.ln()];
        let all = choose(&spec(RouterOrder::SoftmaxThenTopK { renormalise: false }), &logits);
        let few = choose(&spec(RouterOrder::SoftmaxThenTopK { renormalise: true }), &logits);
        for (found, expected) in all.iter().zip([(0, 0.4), (2, 0.3)]) {
            assert!(found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-6, "{found:?}");
        }
        for (found, expected) in few.iter().zip([(0, 4.0 / 7.0), (2, 3.0 / 7.0)]) {
            assert!(found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-6, "{found:?}");
        }
    }

    fn random(shape: impl Into<candle_core::Shape>) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("numbers")
    }

    /// Experts of one layer by themselves and in stacks.
    fn experts(spec: &MoeSpec, hidden: usize) -> Experts {
        let (n, ff) = (spec.num_experts, spec.ff_dim);
        let stack = |rows: usize, cols: usize| Stack {
            matrices: Matrices::Dense(random((n, rows, cols))),
            bias: spec.has_expert_bias.then(|| random((n, rows))),
        };
        let stacks = Stacks {
            gate: stack(ff, hidden),
            up: stack(ff, hidden),
            down: stack(hidden, ff),
            activation: spec.activation,
        };
        let linear = |stack: &Stack, e| stack.expert(e).expect("a matrix").expect("plain numbers");
        let each = (0..n).map(|e| Gated {
            gate: linear(&stacks.gate, e),
            up: linear(&stacks.up, e),
            down: linear(&stacks.down, e),
            activation: spec.activation,
        });
        Experts { each: each.collect(), stacks: Some(stacks) }
    }

    #[test]
    fn stacks_give_what_each_expert_gives() {
        let place = Place { device: Device::Cpu, name: "cpu".into() };
        let orders = [
            RouterOrder::TopKThenSoftmax,
            RouterOrder::SoftmaxThenTopK { renormalise: false },
            RouterOrder::SoftmaxThenTopK { renormalise: true },
        ];
        for (i, order) in orders.into_iter().enumerate() {
            for (num_experts, chosen, rows) in [(4, 2, 1), (7, 3, 5), (3, 3, 2), (9, 1, 4)] {
                let spec = MoeSpec {
                    num_experts,
                    experts_per_token: chosen,
                    ff_dim: 12,
                    activation: if i == 0 {
                        Activation::ClampedSwiglu { alpha: 1.7, limit: 2.0 }
                    } else {
                        Activation::Silu
                    },
                    has_expert_bias: i == 0,
                    ..spec(order)
                };
                let experts = experts(&spec, 8);
                let (logits, x) = (random((rows, num_experts)), random((rows, 8)));
                let stacks = experts.stacks.as_ref().expect("stacks");
                let found = on_device(&place, None, &spec, stacks, &logits, &x).expect("a sum");
                let wanted = on_host(&place, None, &spec, &experts.each, &logits, &x).expect("a sum");
                let off =
                    (found - wanted).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>()).expect("a number");
                assert!(off < 1e-4, "{order:?} {num_experts} {chosen} {rows}: {off}");
            }
        }
    }

    #[test]
    fn choices_on_a_device_are_those_of_the_host() {
        let order = RouterOrder::SoftmaxThenTopK { renormalise: false };
        let spec = MoeSpec { num_experts: 60, experts_per_token: 4, ..spec(order) };
        let logits = random((9, 60));
        let (ids, weights) = route(None, &spec, &logits).expect("choices");
        let (ids, weights) = (ids.to_vec2::<u32>().expect("ids"), weights.to_vec2::<f32>().expect("weights"));
        for (row, logits) in logits.to_vec2::<f32>().expect("logits").iter().enumerate() {
            for (i, (expert, weight)) in choose(&spec, logits).into_iter().enumerate() {
                assert_eq!(ids[row][i] as usize, expert);
                assert!((weights[row][i] - weight).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn few_rows_go_over_stacks() {
        let spec = spec(RouterOrder::TopKThenSoftmax);
        let mut experts = experts(&spec, 8);
        let goes =
            |experts: &Experts, rows, has_kernels| experts.stacks_for(&spec, rows, has_kernels).is_some();
        // f32 has no kernel of ours
        assert!(goes(&experts, 1, true) && !goes(&experts, 2, true));
        if let Some(Stacks { gate: Stack { matrices: Matrices::Dense(w), .. }, .. }) = &mut experts.stacks {
            *w = w.to_dtype(DType::BF16).expect("bf16");
        }
        assert!(goes(&experts, 1, false) && !goes(&experts, 2, false));
        assert!(goes(&experts, 4, true) && !goes(&experts, 5, true));
        // blocks cannot be had one by one
        let stacked = Experts { each: Vec::new(), ..experts };
        assert!(stacked.stacks_for(&spec, 1000, false).is_some());
    }
}

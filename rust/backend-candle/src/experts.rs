//! A mixture of experts: the router's choice on the host, each expert once over all its rows.

use alloyforge_types::{MoeSpec, Result, RouterOrder};
use candle_core::{DType, Tensor};

use crate::fault::Place;
use crate::fused::Fused;
use crate::layer::{Gated, Linear};

/// The sum over each row's experts of weight times output, from `[n, hidden]` to the same shape. The
/// router's choice is copied to the host once a layer, whatever the number of rows.
pub(crate) fn forward(
    place: &Place,
    fused: Option<&Fused>,
    spec: &MoeSpec,
    router: &Linear,
    experts: &[Gated],
    x: &Tensor,
) -> Result<Tensor> {
    let fault = |e| place.fault(e);
    let logits = router.forward(x).and_then(|l| l.to_dtype(DType::F32)?.to_vec2::<f32>()).map_err(fault)?;
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
    use alloyforge_types::Activation;

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
}

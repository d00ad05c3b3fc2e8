//! The choice of experts.

/// When the softmax is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterOrder {
    /// Over the chosen experts' logits.
    AfterChoice,
    /// Over all experts.
    BeforeChoice {
        /// Whether the chosen weights are divided by their sum.
        renormalise: bool,
    },
}

/// Chooses as many experts as `experts` has places, by falling logit, the lower index first among
/// equals, and gives their weights. There are at least as many logits as places.
///
/// A NaN logit is never passed over in silence: some weight is NaN, and then the row is.
pub fn choose(logits: &[f32], order: RouterOrder, experts: &mut [u32], weights: &mut [f32]) {
    let mut chosen = 0;
    for (index, &logit) in logits.iter().enumerate() {
        // the first place whose logit is lower; those behind move on by one
        let place = (0..chosen).find(|&i| logits[experts[i] as usize] < logit).unwrap_or(chosen);
        if place == experts.len() {
            continue;
        }
        chosen = (chosen + 1).min(experts.len());
        experts.copy_within(place..chosen - 1, place + 1);
        experts[place] = index as u32;
    }
    let among = |index: u32| logits[index as usize];
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (weight, &expert) in weights.iter_mut().zip(&*experts) {
        *weight = (among(expert) - most).exp();
    }
    let sum = match order {
        RouterOrder::AfterChoice | RouterOrder::BeforeChoice { renormalise: true } => {
            let unseen: f32 = logits.iter().map(|l| if l.is_nan() { f32::NAN } else { 0.0 }).sum();
            weights.iter().sum::<f32>() + unseen
        }
        RouterOrder::BeforeChoice { renormalise: false } => logits.iter().map(|l| (l - most).exp()).sum(),
    };
    for weight in weights {
        *weight /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sorts everything.
    fn naive(logits: &[f32], order: RouterOrder, count: usize) -> Vec<(usize, f64)> {
        let mut ranked: Vec<usize> = (0..logits.len()).collect();
        ranked.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let all: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let chosen: Vec<_> = ranked[..count].iter().map(|&e| (e, f64::from(logits[e]).exp())).collect();
        let part: f64 = chosen.iter().map(|(_, w)| w).sum();
        let sum = if order == (RouterOrder::BeforeChoice { renormalise: false }) { all } else { part };
        chosen.into_iter().map(|(e, w)| (e, w / sum)).collect()
    }

    proptest! {
        #[test]
        fn the_choice_is_the_sorted_one(
            (logits, count) in prop::collection::vec(-4i8..4, 1..40)
                .prop_flat_map(|l| { let n = l.len(); (Just(l), 1..=n) }),
        ) {
            // few distinct values, so that there are ties
            let logits: Vec<f32> = logits.into_iter().map(|l| f32::from(l) * 0.7).collect();
            for order in [
                RouterOrder::AfterChoice,
                RouterOrder::BeforeChoice { renormalise: true },
                RouterOrder::BeforeChoice { renormalise: false },
            ] {
                let (mut experts, mut weights) = (vec![9; count], vec![9.0; count]);
                choose(&logits, order, &mut experts, &mut weights);
                for ((e, w), (expert, weight)) in
                    naive(&logits, order, count).into_iter().zip(experts.into_iter().zip(weights))
                {
                    prop_assert_eq!(e, expert as usize);
                    prop_assert!((w - f64::from(weight)).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn a_nan_logit_makes_the_weights_nan() {
        for at in 0..4 {
            let mut logits = [0.5, 2.0, 1.0, -1.0];
            logits[at] = f32::NAN;
            for order in [RouterOrder::AfterChoice, RouterOrder::BeforeChoice { renormalise: false }] {
                let (mut experts, mut weights) = ([0; 2], [0.0; 2]);
                choose(&logits, order, &mut experts, &mut weights);
                assert_ne!(experts[0], experts[1]);
                assert!(weights.iter().all(|w| w.is_nan()));
            }
        }
    }
}

//! Tests of the sampler.

use alloyforge_types::{DryBreaker, DryParams, Mirostat, XtcParams};
use proptest::prelude::*;

use super::*;

fn sampler(params: &SamplingParams, vocab: usize) -> Sampler {
    Sampler::new(params, vocab, None, 0).unwrap()
}

fn weights(params: &SamplingParams, probs: &[f32], tokens: &[u32]) -> Vec<f64> {
    let logits: Vec<f32> = probs.iter().map(|p| p.ln()).collect();
    let mut history = TokenHistory::default();
    tokens.iter().for_each(|&t| history.push(t));
    let d = sampler(params, probs.len()).distribution(&logits, &history, 0, None).unwrap();
    let mut all = vec![0.0; probs.len()];
    d.weights.iter().for_each(|&(t, w)| all[t as usize] = w);
    all
}

fn assert_close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() < 1e-5, "{got:?} want {want:?}");
    }
}

/// What a device draws is held to the same table (`kernels/cuda/check/draw.cpp`): half of its numbers
/// are the last or the first of a token's share, where one bit decides.
#[test]
fn draws_are_those_of_the_table() {
    for line in include_str!("../../../../kernels/cuda/check/draws.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (vocab, seed): (u32, u32) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        let temperature = words[2].parse().unwrap();
        let number = words[3].parse::<u64>().unwrap() as f64 / (1u64 << 53) as f64;
        let logit = |t: u32| {
            let h = t.wrapping_add(seed.wrapping_mul(7919)).wrapping_mul(2_654_435_761);
            let h = (h ^ h >> 15).wrapping_mul(2_246_822_519);
            ((h ^ h >> 13) & 0xffff) as f32 / 4096.0 - 8.0
        };
        let logits: Vec<f32> = (0..vocab).map(logit).collect();
        let mut s = sampler(&SamplingParams { temperature, ..Default::default() }, logits.len());
        let drawn = s.draw_from_all(&logits, number).unwrap();
        assert_eq!(drawn.token, words[4].parse::<u32>().unwrap(), "{line}");
    }
}

const FOUR: [f32; 4] = [0.1, 0.2, 0.3, 0.4];

/// Published in llama.cpp's `tests/test-sampling.cpp`.
#[test]
fn published_cases() {
    let p = SamplingParams::default;
    let third = 1.0 / 3.0;
    for (params, want) in [
        (SamplingParams { temperature: 0.0, ..p() }, [0.0, 0.0, 0.0, 1.0]),
        (SamplingParams { top_k: 1, ..p() }, [0.0, 0.0, 0.0, 1.0]),
        (SamplingParams { top_k: 3, ..p() }, [0.0, 2.0 / 9.0, third, 4.0 / 9.0]),
        (SamplingParams { top_p: 0.0, ..p() }, [0.0, 0.0, 0.0, 1.0]),
        (SamplingParams { top_p: 0.7, ..p() }, [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]),
        (SamplingParams { top_p: 0.8, ..p() }, [0.0, 2.0 / 9.0, third, 4.0 / 9.0]),
        (SamplingParams { min_p: 0.26, ..p() }, [0.0, 2.0 / 9.0, third, 4.0 / 9.0]),
        (SamplingParams { min_p: 0.74, ..p() }, [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]),
        (SamplingParams { min_p: 1.05, ..p() }, [0.0, 0.0, 0.0, 1.0]),
        (SamplingParams { top_n_sigma: 3.0, ..p() }, [0.1, 0.2, 0.3, 0.4]),
        (
            SamplingParams { xtc: XtcParams { probability: 0.99, threshold: 0.09 }, ..p() },
            [0.1, 0.0, 0.0, 0.0],
        ),
        (
            SamplingParams { xtc: XtcParams { probability: 0.99, threshold: 0.19 }, ..p() },
            [0.1, 0.2, 0.0, 0.0],
        ),
    ] {
        assert_close(&weights(&params, &FOUR, &[]), &want);
    }
    let typical = SamplingParams { typical_p: 0.5, ..p() };
    assert_close(&weights(&typical, &[0.97, 0.01, 0.01, 0.01], &[]), &[1.0, 0.0, 0.0, 0.0]);
    assert_close(&weights(&typical, &[0.4, 0.2, 0.2, 0.2], &[]), &[0.0, third, third, third]);
    let penalties = SamplingParams { frequency_penalty: 5.0, presence_penalty: 5.0, ..p() };
    assert_close(&weights(&penalties, &[0.2; 5], &[0]), &[1.1e-5, 0.249997, 0.249997, 0.249997, 0.249997]);
    // what a penalty leaves next to nothing of counts as nothing
    assert_eq!(weights(&penalties, &[0.2; 5], &[0, 1, 2, 0, 0])[0], 0.0);
    let repetition = SamplingParams { repetition_penalty: 50.0, ..p() };
    assert_eq!(weights(&repetition, &[0.2; 5], &[0]), [0.0, 0.25, 0.25, 0.25, 0.25]);
    let dry = DryParams { multiplier: 1.0, base: 1.1, allowed_length: 2, sequence_breakers: vec![] };
    let params = SamplingParams { dry, ..p() };
    assert_close(&weights(&params, &[0.25; 4], &[0, 1, 2, 0, 1]), &[0.296923, 0.296923, 0.109232, 0.296923]);
}

#[test]
fn the_prompt_counts_for_repetition_and_not_for_frequency() {
    let params = SamplingParams { frequency_penalty: 1.0, repetition_penalty: 2.0, ..Default::default() };
    let logits = [2.0, 2.0, 2.0];
    let mut history = TokenHistory::new(&[0]);
    history.push(1);
    let mut s = sampler(&params, 3);
    s.process(&logits, &history, None).unwrap();
    assert_eq!(s.scratch.logits, [1.0, 0.0, 2.0]);
}

#[test]
fn what_is_not_a_distribution_is_an_error() {
    for bad in [[f32::NAN, 1.0], [f32::NEG_INFINITY; 2]] {
        for temperature in [0.0, 1.0] {
            for top_k in [0, 1] {
                let params = SamplingParams { temperature, top_k, ..Default::default() };
                let got = sampler(&params, 2).draw(&bad, &TokenHistory::default(), 0, None);
                assert!(matches!(got, Err(Error::Internal { .. })), "{bad:?} {got:?}");
            }
        }
    }
    let infinite = [f32::INFINITY, 1.0];
    let got = sampler(&SamplingParams::default(), 2).draw(&infinite, &TokenHistory::default(), 0, None);
    assert_eq!(got.unwrap().token, 0);
}

#[test]
fn the_mask_and_the_bias_forbid() {
    let params = SamplingParams { logit_bias: vec![(1, f32::NEG_INFINITY)], ..Default::default() };
    let mut s = sampler(&params, 3);
    for step in 0..50 {
        let drawn = s.draw(&[5.0, 9.0, 1.0], &TokenHistory::default(), step, Some(&[0b110])).unwrap();
        assert_eq!(drawn.token, 2);
    }
}

#[test]
fn every_range_is_checked() {
    let d = SamplingParams::default;
    for (name, params) in [
        ("temperature", SamplingParams { temperature: -1.0, ..d() }),
        ("temperature", SamplingParams { temperature: f32::NAN, ..d() }),
        ("top_p", SamplingParams { top_p: 1.5, ..d() }),
        ("min_p", SamplingParams { min_p: -0.1, ..d() }),
        ("typical_p", SamplingParams { typical_p: 2.0, ..d() }),
        ("xtc_probability", SamplingParams { xtc: XtcParams { probability: 2.0, threshold: 0.1 }, ..d() }),
        ("repetition_penalty", SamplingParams { repetition_penalty: 0.0, ..d() }),
        ("mirostat_tau", SamplingParams { mirostat: Some(Mirostat { tau: 0.0, eta: 0.1 }), ..d() }),
        ("logit_bias", SamplingParams { logit_bias: vec![(9, 0.0)], ..d() }),
        (
            "dry_sequence_breakers",
            SamplingParams {
                dry: DryParams {
                    multiplier: 1.0,
                    sequence_breakers: vec![DryBreaker::Tokens(vec![])],
                    ..d().dry
                },
                ..d()
            },
        ),
    ] {
        match Sampler::new(&params, 9, None, 0) {
            Err(Error::InvalidRequest { name: got, .. }) => assert_eq!(got, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn mirostat_steers_to_its_target() {
    let logits: Vec<f32> = (0..1000).map(|i| -((i + 1) as f32).ln()).collect();
    let params = SamplingParams { mirostat: Some(Mirostat { tau: 3.0, eta: 0.1 }), ..Default::default() };
    let mut s = sampler(&params, logits.len());
    for step in 0..2000 {
        s.draw(&logits, &TokenHistory::default(), step, None).unwrap();
    }
    // at the bound where the mean surprise among the kept tokens equals the target
    let mean = |mu: f32| {
        let probs: Vec<f64> = logits.iter().map(|&l| f64::from(l).exp()).collect();
        let total: f64 = probs.iter().sum();
        let kept: Vec<f64> = probs.iter().map(|p| p / total).filter(|p| -p.log2() <= f64::from(mu)).collect();
        let sum: f64 = kept.iter().sum();
        kept.iter().map(|p| -(p / sum) * (p / sum).log2()).sum::<f64>()
    };
    assert!((mean(s.mu) - 3.0).abs() < 0.6, "mean surprise {} bits", mean(s.mu));
}

/// Draws follow the distribution: chi-square over fixed seeds, so the outcome never changes.
#[test]
fn draws_follow_the_distribution() {
    let probs = [0.05f32, 0.1, 0.15, 0.3, 0.4];
    let logits: Vec<f32> = probs.iter().map(|p| p.ln()).collect();
    for params in
        [SamplingParams::default(), SamplingParams { min_p: 0.3, seed: Some(5), ..Default::default() }]
    {
        let want = weights(&params, &probs, &[]);
        let mut s = sampler(&params, 5);
        let n = 20_000;
        let mut seen = [0.0f64; 5];
        for step in 0..n {
            let drawn = s.draw(&logits, &TokenHistory::default(), step, None).unwrap();
            seen[drawn.token as usize] += 1.0;
        }
        let chi: f64 = (0..5)
            .filter(|&i| want[i] > 0.0)
            .map(|i| (seen[i] - want[i] * n as f64).powi(2) / (want[i] * n as f64))
            .sum();
        assert!(chi < 18.5, "chi-square {chi}: {seen:?}"); // 0.1 % point with 4 degrees of freedom
        assert!((0..5).all(|i| want[i] > 0.0 || seen[i] == 0.0));
    }
}

/// The chain as its documentation states it, with full sorts in f64.
fn naive(params: &SamplingParams, logits: &[f32]) -> Vec<f64> {
    let n = logits.len();
    let scaled: Vec<f64> = logits.iter().map(|&l| f64::from(l) / f64::from(params.temperature)).collect();
    let mut kept: Vec<usize> = (0..n).collect();
    kept.sort_by(|&a, &b| scaled[b].partial_cmp(&scaled[a]).unwrap());
    let shares = |kept: &[usize]| -> Vec<f64> {
        let max = scaled[kept[0]];
        let w: Vec<f64> = kept.iter().map(|&i| (scaled[i] - max).exp()).collect();
        let sum: f64 = w.iter().sum();
        w.iter().map(|x| x / sum).collect()
    };
    if params.top_k > 0 {
        kept.truncate(params.top_k);
    }
    let q = shares(&kept);
    let mut sum = 0.0;
    let cut = q.iter().position(|x| {
        sum += x;
        sum >= f64::from(params.top_p) - 1e-6
    });
    if params.top_p < 1.0 {
        kept.truncate(cut.map_or(kept.len(), |c| c + 1));
    }
    let q = shares(&kept);
    let bound = f64::from(params.min_p) - 1e-6;
    kept = kept.iter().zip(&q).filter(|(_, x)| **x / q[0] >= bound).map(|(i, _)| *i).collect();
    let mut out = vec![0.0; n];
    for (i, w) in kept.iter().zip(shares(&kept)) {
        out[*i] = w;
    }
    out
}

proptest! {
    #[test]
    fn the_chain_matches_a_naive_one(
        logits in prop::collection::vec(-8f32..8.0, 1..300),
        temperature in 0.2f32..3.0,
        top_k in 0usize..50,
        top_p in 0.05f32..1.0,
        min_p in 0f32..0.5,
    ) {
        let params = SamplingParams { temperature, top_k, top_p, min_p, ..Default::default() };
        let got = sampler(&params, logits.len()).distribution(&logits, &TokenHistory::default(), 0, None).unwrap();
        let mut all = vec![0.0; logits.len()];
        got.weights.iter().for_each(|&(t, w)| all[t as usize] = w);
        let want = naive(&params, &logits);
        // a bound that a share meets within rounding may fall either way: compare all but that
        let count = |v: &[f64]| v.iter().filter(|x| **x > 0.0).count();
        if count(&all) == count(&want) {
            for (g, w) in all.iter().zip(&want) {
                prop_assert!((g - w).abs() < 1e-5, "{all:?} {want:?}");
            }
        } else {
            prop_assert!(count(&all).abs_diff(count(&want)) == 1);
        }
    }

    #[test]
    fn a_draw_repeats_itself(logits in prop::collection::vec(-4f32..4.0, 2..50), seed: u64, step in 0u64..1000) {
        let params = SamplingParams { seed: Some(seed), top_p: 0.9, ..Default::default() };
        let one = sampler(&params, logits.len()).draw(&logits, &TokenHistory::default(), step, None).unwrap();
        let mut other = sampler(&params, logits.len());
        for earlier in 0..step.min(5) {
            other.draw(&logits, &TokenHistory::default(), earlier, None).unwrap();
        }
        prop_assert_eq!(one, other.draw(&logits, &TokenHistory::default(), step, None).unwrap());
    }
}

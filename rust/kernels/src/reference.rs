//! Every kernel in its plainest form, in double precision, for the tests to hold the kernels against.
//!
//! These say what a kernel computes; they share no code with the kernels.

use crate::activation::Activation;

/// `x * weight / sqrt(mean(x^2) + eps)` (Zhang and Sennrich, arXiv 1910.07467).
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    let mean = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + f64::from(eps)).sqrt();
    x.iter().zip(weight).map(|(&v, &w)| f64::from(v) * scale * f64::from(w)).collect()
}

/// `(x - mean(x)) * weight / sqrt(var(x) + eps) + bias` (Ba et al., arXiv 1607.06450).
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f64> {
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
    let var = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (var + f64::from(eps)).sqrt();
    let scaled = x.iter().zip(weight).map(|(&v, &w)| (f64::from(v) - mean) * scale * f64::from(w));
    scaled.zip(bias).map(|(v, &b)| v + f64::from(b)).collect()
}

/// The numbers that a row's blocks of bytes stand for: the nearest of 255 steps up to the largest
/// magnitude of every 32.
pub fn blocks_of_bytes(row: &[f32]) -> Vec<f64> {
    row.chunks(32)
        .flat_map(|block| {
            let largest = block.iter().fold(0.0f32, |a, x| a.max(x.abs()));
            let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
            block.iter().map(move |x| f64::from((x * inverse).round_ties_even()) * f64::from(largest / 127.0))
        })
        .collect()
}

/// Turns each pair of coordinates by its angle; `half` pairs `i` with `i + dim / 2`, otherwise `2 i`
/// with `2 i + 1` (Su et al., arXiv 2104.09864).
pub fn rotate(head: &[f32], cos: &[f32], sin: &[f32], half: bool) -> Vec<f64> {
    let mut out: Vec<f64> = head.iter().map(|&v| f64::from(v)).collect();
    for i in 0..cos.len() {
        let (a, b) = if half { (i, i + cos.len()) } else { (2 * i, 2 * i + 1) };
        let (x, y) = (f64::from(head[a]), f64::from(head[b]));
        let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
        (out[a], out[b]) = (x * c - y * s, y * c + x * s);
    }
    out
}

/// A gated activation.
pub fn activate(activation: Activation, gate: f32, up: f32) -> f64 {
    let (g, u) = (f64::from(gate), f64::from(up));
    match activation {
        Activation::Silu => g / (1.0 + (-g).exp()) * u,
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044_715 * g.powi(3));
            0.5 * g * (1.0 + inner.tanh()) * u
        }
        Activation::Gelu => 0.5 * g * (1.0 + libm::erf(g / std::f64::consts::SQRT_2)) * u,
        Activation::QuickGelu => g / (1.0 + (-1.702 * g).exp()) * u,
        Activation::Relu => g.max(0.0) * u,
        Activation::ClampedSwiglu { alpha, limit } => {
            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
            let (g, u) = (g.min(limit), u.clamp(-limit, limit));
            g / (1.0 + (-alpha * g).exp()) * (u + 1.0)
        }
    }
}

/// `weights * x` of a matrix `[rows, cols]` in row-major order.
pub fn product(weights: &[f32], cols: usize, x: &[f32]) -> Vec<f64> {
    weights
        .chunks_exact(cols)
        .map(|row| row.iter().zip(x).map(|(&w, &v)| f64::from(w) * f64::from(v)).sum())
        .collect()
}

/// Softmax attention of one query over `keys` and `values`, rows of `[len, head_dim]`.
pub fn attend(
    query: &[f32],
    keys: &[Vec<f32>],
    values: &[Vec<f32>],
    scale: f32,
    softcap: Option<f32>,
    sink: Option<f32>,
) -> Vec<f64> {
    let scores: Vec<f64> = keys
        .iter()
        .map(|key| {
            let dot: f64 = query.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
            let score = dot * f64::from(scale);
            softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        })
        .collect();
    let sink = sink.map_or(f64::NEG_INFINITY, f64::from);
    let most = scores.iter().copied().fold(sink, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum::<f64>() + (sink - most).exp();
    (0..query.len())
        .map(|d| scores.iter().zip(values).map(|(s, v)| (s - most).exp() / sum * f64::from(v[d])).sum())
        .collect()
}

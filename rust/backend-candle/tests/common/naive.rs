//! The forward pass as its definition reads, one token and one number at a time, in f64.

use alloyforge_interfaces::WeightSource as _;
use alloyforge_types::{
    Activation, ExpertRole as E, LayerRole as L, MlpSpec, QkNorm, Role, RopeLayout, RopeSections, RopeSpec,
    RouterOrder,
};

use super::{RandomWeights, Text};

type Row = Vec<f64>;

fn vector(w: &RandomWeights, role: Role) -> Row {
    // through the stored bytes' check too, so that both sides see the same roles
    w.weight(role).expect("a weight");
    w.values(role).2.iter().map(|&v| f64::from(v)).collect()
}

fn product(w: &RandomWeights, role: Role, x: &[f64]) -> Row {
    let made = w.values(role);
    made.2.chunks(made.1).map(|row| row.iter().zip(x).map(|(&a, &b)| f64::from(a) * b).sum()).collect()
}

fn plus(mut x: Row, by: &[f64]) -> Row {
    x.iter_mut().zip(by).for_each(|(x, b)| *x += b);
    x
}

fn norm(x: &[f64], weight: &[f64], eps: f64) -> Row {
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(v, w)| v / (mean + eps).sqrt() * w).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// By the series and continued fraction of Abramowitz and Stegun 7.1.5, summed to the end.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn activate(kind: Activation, gate: f64, up: f64) -> f64 {
    match kind {
        Activation::Silu => gate * sigmoid(gate) * up,
        Activation::Gelu => 0.5 * gate * (1.0 + erf(gate / 2f64.sqrt())) * up,
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
            0.5 * gate * (1.0 + inner.tanh()) * up
        }
        Activation::ClampedSwiglu { alpha, limit } => {
            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
            let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
            gate * sigmoid(alpha * gate) * (up + 1.0)
        }
        other => panic!("{other:?}"),
    }
}

fn gated(kind: Activation, gate: Row, up: Row) -> Row {
    gate.into_iter().zip(up).map(|(g, u)| activate(kind, g, u)).collect()
}

/// As transformers writes them: contiguous parts, or height and width over every third place.
fn axes(rope: &RopeSpec) -> Vec<usize> {
    let half = rope.dim / 2;
    match rope.sections {
        None => vec![0; half],
        Some(RopeSections::Contiguous([t, h, w])) => [vec![0; t], vec![1; h], vec![2; w]].concat(),
        Some(RopeSections::Interleaved([_, h, w])) => {
            let mut axes = vec![0; half];
            (1..3 * h).step_by(3).for_each(|i| axes[i] = 1);
            (2..3 * w).step_by(3).for_each(|i| axes[i] = 2);
            axes
        }
    }
}

fn turn(rope: &RopeSpec, len: usize, position: [u32; 3], head: &mut [f64]) {
    let table = rope.table(len);
    let axes = axes(rope);
    for (i, &axis) in axes.iter().enumerate() {
        let angle = f64::from(table.inv_freq[i]) * f64::from(position[axis]);
        let (sin, cos) = angle.sin_cos();
        let (sin, cos) = (sin * f64::from(table.magnitude), cos * f64::from(table.magnitude));
        let (a, b) = match rope.layout {
            RopeLayout::Half => (i, i + rope.dim / 2),
            RopeLayout::Interleaved => (2 * i, 2 * i + 1),
        };
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
    }
}

fn mlp(w: &RandomWeights, layer: usize, spec: &MlpSpec, x: &[f64]) -> Row {
    let of = |role| Role::Layer(layer, role);
    let moe = match spec {
        MlpSpec::Dense { activation, .. } => {
            let hidden = gated(*activation, product(w, of(L::Gate), x), product(w, of(L::Up), x));
            return product(w, of(L::Down), &hidden);
        }
        MlpSpec::Moe(moe) => moe,
        other => panic!("{other:?}"),
    };
    let biased = |matrix, bias, wanted: bool, x: &[f64]| {
        let out = product(w, of(matrix), x);
        if wanted { plus(out, &vector(w, of(bias))) } else { out }
    };
    let logits = biased(L::Router, L::RouterBias, moe.has_router_bias, x);
    let mut left: Vec<usize> = (0..moe.num_experts).collect();
    let mut chosen = Vec::new();
    for _ in 0..moe.experts_per_token {
        let mut best = 0;
        for i in 1..left.len() {
            if logits[left[i]] > logits[left[best]] {
                best = i;
            }
        }
        chosen.push(left.remove(best));
    }
    let over: Vec<usize> = match moe.order {
        RouterOrder::SoftmaxThenTopK { renormalise: false } => (0..moe.num_experts).collect(),
        _ => chosen.clone(),
    };
    let sum: f64 = over.iter().map(|&e| logits[e].exp()).sum();
    let mut out = vec![0.0; x.len()];
    for e in chosen {
        let expert = |role| L::Expert(e, role);
        let gate = biased(expert(E::Gate), expert(E::GateBias), moe.has_expert_bias, x);
        let up = biased(expert(E::Up), expert(E::UpBias), moe.has_expert_bias, x);
        let hidden = gated(moe.activation, gate, up);
        let down = biased(expert(E::Down), expert(E::DownBias), moe.has_expert_bias, &hidden);
        out.iter_mut().zip(down).for_each(|(o, d)| *o += d * logits[e].exp() / sum);
    }
    out
}

/// The logits of every token of `text`.
pub fn logits(w: &RandomWeights, text: &Text) -> Vec<Row> {
    let spec = &w.spec;
    let eps = f64::from(spec.norm_eps);
    let hidden = spec.hidden_dim;
    let table = w.values(Role::Embedding);
    let mut stream: Vec<Row> = text
        .tokens
        .iter()
        .map(|&t| {
            let row = &table.2[t as usize * hidden..(t as usize + 1) * hidden];
            row.iter().map(|&v| f64::from(v) * f64::from(spec.embedding_scale)).collect()
        })
        .collect();
    for (at, values) in &text.embeds {
        for (i, row) in values.chunks(hidden).enumerate() {
            stream[at + i] = row.iter().map(|&v| f64::from(v)).collect();
        }
    }
    for (l, layer) in spec.layers.iter().enumerate() {
        let a = &layer.attention;
        let of = |role| Role::Layer(l, role);
        let heads = |x: &[f64], index: usize, matrix, bias, weight, turns: bool| -> Row {
            let mut out = product(w, of(matrix), x);
            if a.has_qkv_bias {
                out = plus(out, &vector(w, of(bias)));
            }
            if !turns {
                return out;
            }
            match a.qk_norm {
                QkNorm::None => {}
                QkNorm::FullWidth => out = norm(&out, &vector(w, of(weight)), eps),
                QkNorm::PerHead => {
                    let weight = vector(w, of(weight));
                    out = out.chunks(a.head_dim).flat_map(|head| norm(head, &weight, eps)).collect();
                }
                other => panic!("{other:?}"),
            }
            if let Some(rope) = a.rope {
                let position = text.rope_positions.get(index).copied().unwrap_or([index as u32; 3]);
                let len = text.rope_len.max(index + 1);
                out.chunks_mut(a.head_dim).for_each(|head| turn(&spec.ropes[rope], len, position, head));
            }
            out
        };
        let before = |x: &Row, role| {
            if layer.norms.has_pre() { norm(x, &vector(w, of(role)), eps) } else { x.clone() }
        };
        let join = |x: &Row, out: Row, role| {
            let out = if layer.norms.has_post() { norm(&out, &vector(w, of(role)), eps) } else { out };
            x.iter().zip(out).map(|(x, o)| x + o * f64::from(spec.residual_scale)).collect::<Row>()
        };
        let normed: Vec<Row> = stream.iter().map(|x| before(x, L::AttnNorm)).collect();
        let all = |matrix, bias, weight, turns| -> Vec<Row> {
            normed.iter().enumerate().map(|(i, x)| heads(x, i, matrix, bias, weight, turns)).collect()
        };
        let q = all(L::Q, L::QBias, L::QNorm, true);
        let k = all(L::K, L::KBias, L::KNorm, true);
        let v = all(L::V, L::VBias, L::KNorm, false);
        let sinks = a.has_sinks.then(|| vector(w, of(L::Sinks)));
        for i in 0..stream.len() {
            let end = text.attend_end.get(i).copied().unwrap_or(i + 1);
            let seen: Vec<usize> =
                (0..end).filter(|&j| a.window.is_none_or(|window| j + window > i)).collect();
            let mut attended = Vec::new();
            for head in 0..a.num_heads {
                let slice = |x: &Row, head: usize| x[head * a.head_dim..(head + 1) * a.head_dim].to_vec();
                let kv_head = head / (a.num_heads / a.num_kv_heads);
                let query = slice(&q[i], head);
                let scores: Vec<f64> = seen
                    .iter()
                    .map(|&j| {
                        let dot: f64 = query.iter().zip(slice(&k[j], kv_head)).map(|(a, b)| a * b).sum();
                        let score = dot * f64::from(a.scale);
                        a.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                    })
                    .collect();
                let sink = sinks.as_ref().map_or(0.0, |s| s[head].exp());
                let sum = scores.iter().map(|s| s.exp()).sum::<f64>() + sink;
                let mut out = vec![0.0; a.head_dim];
                for (&j, score) in seen.iter().zip(&scores) {
                    for (o, v) in out.iter_mut().zip(slice(&v[j], kv_head)) {
                        *o += score.exp() / sum * v;
                    }
                }
                attended.extend(out);
            }
            let mut out = product(w, of(L::O), &attended);
            if a.has_o_bias {
                out = plus(out, &vector(w, of(L::OBias)));
            }
            stream[i] = join(&stream[i], out, L::AttnPostNorm);
            let out = mlp(w, l, &layer.mlp, &before(&stream[i], L::MlpNorm));
            stream[i] = join(&stream[i], out, L::MlpPostNorm);
        }
        if let (Some(values), Some((at, _))) = (text.deeper.get(l), text.embeds.first()) {
            for (row, values) in stream[*at..].iter_mut().zip(values.chunks(hidden)) {
                row.iter_mut().zip(values).for_each(|(x, &v)| *x += f64::from(v));
            }
        }
    }
    let head = if spec.has_tied_head { Role::Embedding } else { Role::Head };
    stream
        .iter()
        .map(|x| {
            let mut out = product(w, head, &norm(x, &vector(w, Role::FinalNorm), eps));
            if spec.has_head_bias {
                out = plus(out, &vector(w, Role::HeadBias));
            }
            let scaled = out.iter().map(|v| v * f64::from(spec.logit_scale));
            scaled
                .map(|v| spec.logit_softcap.map_or(v, |c| f64::from(c) * (v / f64::from(c)).tanh()))
                .collect()
        })
        .collect()
}

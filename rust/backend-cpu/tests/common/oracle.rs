//! The decoder in its plainest form: double precision, one sequence, nothing cached.
//!
//! It follows the descriptions in `alloyforge_types` and shares no code with the backend.

use alloyforge_types::{
    Activation, AttentionSpec, ExpertRole, LayerRole, MlpSpec, ModelSpec, MoeSpec, NormKind, NormPlacement,
    QkNorm, Role, RopeLayout, RopeSections, RouterOrder,
};

use super::{Stock, Text};

type Row = Vec<f64>;

struct Oracle<'a> {
    spec: &'a ModelSpec,
    stock: &'a Stock,
}

/// The logits of every token of `text`.
pub fn forward(spec: &ModelSpec, stock: &Stock, text: &Text) -> Vec<Row> {
    let oracle = Oracle { spec, stock };
    let mut rows: Vec<Row> = (0..text.tokens.len()).map(|i| oracle.embed(text, i)).collect();
    for layer in 0..spec.layers.len() {
        rows = oracle.layer(layer, rows, text);
    }
    rows.iter().map(|row| oracle.logits(row)).collect()
}

fn wide(numbers: &[f32]) -> Row {
    numbers.iter().map(|&x| f64::from(x)).collect()
}

impl Oracle<'_> {
    fn vector(&self, role: Role) -> Row {
        wide(&self.stock.0[&role].numbers)
    }

    fn multiply(&self, role: Role, x: &[f64]) -> Row {
        let w = &self.stock.0[&role];
        assert_eq!(w.cols, x.len(), "{role:?}");
        w.numbers.chunks(w.cols).map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
    }

    fn linear(&self, role: Role, bias: Option<Role>, x: &[f64]) -> Row {
        let mut y = self.multiply(role, x);
        if let Some(bias) = bias {
            y.iter_mut().zip(self.vector(bias)).for_each(|(y, b)| *y += b);
        }
        y
    }

    /// A norm of the residual stream.
    fn stream_norm(&self, role: LayerRole, layer: usize, x: &[f64]) -> Row {
        let weight = Role::Layer(layer, role);
        if self.spec.norm == NormKind::Rms {
            return self.norm(weight, x);
        }
        let bias = match role {
            LayerRole::AttnNorm => LayerRole::AttnNormBias,
            LayerRole::AttnPostNorm => LayerRole::AttnPostNormBias,
            LayerRole::MlpNorm => LayerRole::MlpNormBias,
            LayerRole::MlpPostNorm => LayerRole::MlpPostNormBias,
            other => panic!("{other:?}"),
        };
        self.layer_norm(weight, Role::Layer(layer, bias), x)
    }

    fn layer_norm(&self, weight: Role, bias: Role, x: &[f64]) -> Row {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let root = (variance + f64::from(self.spec.norm_eps)).sqrt();
        let scaled = x.iter().zip(self.vector(weight)).map(|(v, w)| (v - mean) / root * w);
        scaled.zip(self.vector(bias)).map(|(v, b)| v + b).collect()
    }

    fn norm(&self, role: Role, x: &[f64]) -> Row {
        let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let root = (mean + f64::from(self.spec.norm_eps)).sqrt();
        x.iter().zip(self.vector(role)).map(|(v, w)| v / root * w).collect()
    }

    fn embed(&self, text: &Text, i: usize) -> Row {
        let hidden = self.spec.hidden_dim;
        for span in &text.embeds {
            if (span.first_row..span.first_row + span.rows.len()).contains(&i) {
                let at = (span.rows.start + i - span.first_row) * hidden;
                return wide(&span.values[at..at + hidden]);
            }
        }
        let table = &self.stock.0[&Role::Embedding].numbers;
        let row = wide(&table[text.tokens[i] as usize * hidden..][..hidden]);
        row.into_iter().map(|x| x * f64::from(self.spec.embedding_scale)).collect()
    }

    fn layer(&self, i: usize, rows: Vec<Row>, text: &Text) -> Vec<Row> {
        let layer = &self.spec.layers[i];
        let (pre, post) = (layer.norms.has_pre(), layer.norms.has_post());
        let after = layer.norms == NormPlacement::After;
        let role = |r: LayerRole| Role::Layer(i, r);
        let into = |r: LayerRole, x: &Row| if pre { self.stream_norm(r, i, x) } else { x.clone() };
        // what is added, through a norm before or behind the sum
        let add = |r: LayerRole, x: &Row, y: Row| -> Row {
            let y = if post { self.stream_norm(r, i, &y) } else { y };
            let sum: Row =
                x.iter().zip(y).map(|(x, y)| x + f64::from(self.spec.residual_scale) * y).collect();
            if after { self.stream_norm(r, i, &sum) } else { sum }
        };
        let inputs: Vec<Row> = rows.iter().map(|x| into(LayerRole::AttnNorm, x)).collect();
        let attended = self.attention(i, &layer.attention, &inputs, text);
        let rows: Vec<Row> =
            rows.iter().zip(attended).map(|(x, y)| add(LayerRole::AttnPostNorm, x, y)).collect();
        rows.iter()
            .enumerate()
            .map(|(at, x)| {
                let input = into(LayerRole::MlpNorm, x);
                let y = match &layer.mlp {
                    MlpSpec::Dense { activation, has_bias, .. } => {
                        let bias = |r: LayerRole| has_bias.then_some(role(r));
                        let gate = self.linear(role(LayerRole::Gate), bias(LayerRole::GateBias), &input);
                        let up = self.linear(role(LayerRole::Up), bias(LayerRole::UpBias), &input);
                        let inner = gated(*activation, &gate, &up);
                        self.linear(role(LayerRole::Down), bias(LayerRole::DownBias), &inner)
                    }
                    MlpSpec::Plain { activation, has_bias, .. } => {
                        let bias = |r: LayerRole| has_bias.then_some(role(r));
                        let up = self.linear(role(LayerRole::Up), bias(LayerRole::UpBias), &input);
                        let inner = gated(*activation, &up, &vec![1.0; up.len()]);
                        self.linear(role(LayerRole::Down), bias(LayerRole::DownBias), &inner)
                    }
                    MlpSpec::Moe(moe) => self.experts(i, moe, &input),
                    other => panic!("{other:?}"),
                };
                self.deepened(i, at, add(LayerRole::MlpPostNorm, x, y), text)
            })
            .collect()
    }

    /// `row`, the token at `at` behind layer `i`, with what a picture adds there.
    fn deepened(&self, i: usize, at: usize, row: Row, text: &Text) -> Row {
        let hidden = self.spec.hidden_dim;
        let span = text.embeds.iter().find(|s| (s.first_row..s.first_row + s.rows.len()).contains(&at));
        let Some((span, values)) = span.and_then(|s| Some((s, s.deeper.get(i)?))) else { return row };
        let first = (span.rows.start + at - span.first_row) * hidden;
        row.iter().zip(&values[first..first + hidden]).map(|(x, v)| x + f64::from(*v)).collect()
    }

    fn attention(&self, i: usize, a: &AttentionSpec, inputs: &[Row], text: &Text) -> Vec<Row> {
        let role = |r: LayerRole| Role::Layer(i, r);
        let bias = |r: LayerRole| a.has_qkv_bias.then_some(role(r));
        let heads = |x: Row| -> Vec<Row> { x.chunks(a.head_dim).map(<[f64]>::to_vec).collect() };
        let prepare = |x: Row, norm: LayerRole, at: usize| -> Vec<Row> {
            let x = if a.qk_norm == QkNorm::FullWidth { self.norm(role(norm), &x) } else { x };
            heads(x)
                .into_iter()
                .map(|h| if a.qk_norm == QkNorm::PerHead { self.norm(role(norm), &h) } else { h })
                .map(|h| self.turn(a, h, text, at))
                .collect()
        };
        let (mut q, mut k, mut v) = (vec![], vec![], vec![]);
        for (at, x) in inputs.iter().enumerate() {
            q.push(prepare(self.linear(role(LayerRole::Q), bias(LayerRole::QBias), x), LayerRole::QNorm, at));
            k.push(prepare(self.linear(role(LayerRole::K), bias(LayerRole::KBias), x), LayerRole::KNorm, at));
            v.push(heads(self.linear(role(LayerRole::V), bias(LayerRole::VBias), x)));
        }
        let sinks = a.has_sinks.then(|| self.vector(role(LayerRole::Sinks)));
        let group = a.num_heads / a.num_kv_heads;
        (0..inputs.len())
            .map(|at| {
                let mut all = Vec::new();
                for (h, query) in q[at].iter().enumerate() {
                    let from = a.window.map_or(0, |w| (at + 1).saturating_sub(w));
                    let to = text.attend_end.get(at).copied().unwrap_or(at + 1);
                    let scores: Row = (from..to)
                        .map(|t| {
                            let dot: f64 = query.iter().zip(&k[t][h / group]).map(|(q, k)| q * k).sum();
                            let score = dot * f64::from(a.scale);
                            a.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                        })
                        .collect();
                    let sink = sinks.as_ref().map_or(0.0, |s| s[h].exp());
                    let sum = scores.iter().map(|s| s.exp()).sum::<f64>() + sink;
                    for d in 0..a.head_dim {
                        let values = (from..to).map(|t| v[t][h / group][d]);
                        all.push(scores.iter().zip(values).map(|(s, v)| s.exp() / sum * v).sum());
                    }
                }
                self.linear(role(LayerRole::O), a.has_o_bias.then_some(role(LayerRole::OBias)), &all)
            })
            .collect()
    }

    fn turn(&self, a: &AttentionSpec, mut head: Row, text: &Text, at: usize) -> Row {
        let Some(index) = a.rope else { return head };
        let rope = &self.spec.ropes[index];
        let table = rope.table(text.rope_len.max(at + 1));
        let position = text.rope_positions.get(at).copied().unwrap_or([at as u32; 3]);
        let before = head.clone();
        for (i, freq) in table.inv_freq.iter().enumerate() {
            let axis = match rope.sections {
                None => 0,
                Some(RopeSections::Contiguous([t, h, _])) => usize::from(i >= t) + usize::from(i >= t + h),
                Some(RopeSections::Interleaved(counts)) => {
                    let taken = i / 3;
                    if taken < counts[i % 3] { i % 3 } else { 0 }
                }
            };
            // the angle is an f32 by convention
            let angle = f64::from(position[axis] as f32 * freq);
            let (s, c) = (angle.sin() * f64::from(table.magnitude), angle.cos() * f64::from(table.magnitude));
            let (x, y) = match rope.layout {
                RopeLayout::Half => (i, i + rope.dim / 2),
                RopeLayout::Interleaved => (2 * i, 2 * i + 1),
            };
            head[x] = before[x] * c - before[y] * s;
            head[y] = before[y] * c + before[x] * s;
        }
        head
    }

    fn experts(&self, i: usize, moe: &MoeSpec, x: &[f64]) -> Row {
        let role = |r: LayerRole| Role::Layer(i, r);
        let router_bias = moe.has_router_bias.then_some(role(LayerRole::RouterBias));
        let logits = self.linear(role(LayerRole::Router), router_bias, x);
        let mut ranked: Vec<usize> = (0..logits.len()).collect();
        ranked.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        ranked.truncate(moe.experts_per_token);
        let chosen: f64 = ranked.iter().map(|&e| logits[e].exp()).sum();
        let sum = match moe.order {
            RouterOrder::SoftmaxThenTopK { renormalise: false } => logits.iter().map(|l| l.exp()).sum(),
            _ => chosen,
        };
        let mut y = vec![0.0; x.len()];
        for e in ranked {
            let part = |part, bias, x: &[f64]| {
                let bias = moe.has_expert_bias.then_some(role(LayerRole::Expert(e, bias)));
                self.linear(role(LayerRole::Expert(e, part)), bias, x)
            };
            let gate = part(ExpertRole::Gate, ExpertRole::GateBias, x);
            let up = part(ExpertRole::Up, ExpertRole::UpBias, x);
            let down = part(ExpertRole::Down, ExpertRole::DownBias, &gated(moe.activation, &gate, &up));
            y.iter_mut().zip(down).for_each(|(y, d)| *y += logits[e].exp() / sum * d);
        }
        y
    }

    fn logits(&self, row: &[f64]) -> Row {
        let head = if self.spec.has_tied_head { Role::Embedding } else { Role::Head };
        let x = match self.spec.norm {
            NormKind::Layer => self.layer_norm(Role::FinalNorm, Role::FinalNormBias, row),
            _ => self.norm(Role::FinalNorm, row),
        };
        self.linear(head, self.spec.has_head_bias.then_some(Role::HeadBias), &x)
            .into_iter()
            .map(|l| l * f64::from(self.spec.logit_scale))
            .map(|l| self.spec.logit_softcap.map_or(l, |c| f64::from(c) * (l / f64::from(c)).tanh()))
            .collect()
    }
}

fn gated(activation: Activation, gate: &[f64], up: &[f64]) -> Row {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    gate.iter()
        .zip(up)
        .map(|(&g, &u)| match activation {
            Activation::Silu => g * sigmoid(g) * u,
            Activation::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g);
                0.5 * g * (1.0 + inner.tanh()) * u
            }
            Activation::Gelu => 0.5 * g * (1.0 + libm::erf(g / 2f64.sqrt())) * u,
            Activation::ClampedSwiglu { alpha, limit } => {
                let (alpha, limit) = (f64::from(alpha), f64::from(limit));
                let (g, u) = (g.min(limit), u.max(-limit).min(limit));
                g * sigmoid(alpha * g) * (u + 1.0)
            }
            Activation::QuickGelu => g * sigmoid(1.702 * g) * u,
            Activation::Relu => g.max(0.0) * u,
            other => panic!("{other:?}"),
        })
        .collect()
}

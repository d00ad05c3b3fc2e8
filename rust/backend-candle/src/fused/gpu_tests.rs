//! Every kernel on a GPU against its definition in f64, through the code that launches it. Where there is no
//! GPU each test says so on the terminal and ends; `kernels/cuda/check` holds the same kernels against their
//! references on the host.

use std::io::Write as _;

use alloyforge_types::{
    Activation, AttentionSpec, BLOCK_LEN, LayerSpec, MlpSpec, ModelSpec, MoeSpec, NormPlacement, RouterOrder,
};

use super::*;
use crate::device;
use crate::fused::Turned;
use crate::step::{Sequence, first_seen};

const HALVES: [DType; 2] = [DType::F16, DType::BF16];
const ALL: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// A GPU with the kernels for caches of type `cached`.
fn gpu(test: &str, cached: DType) -> Option<Fused> {
    let opened = device::open("cuda").and_then(|place| Fused::new(&place, &spec(&[]), cached));
    let why = match opened {
        Ok(Some(fused)) => return Some(fused),
        Ok(None) => "the GPU is older than the kernels".to_owned(),
        Err(e) => e.to_string(),
    };
    // not by a macro, which would be kept from the terminal where a test passes
    let _ = writeln!(std::io::stderr(), "{test}: skipped: {why}");
    None
}

/// Numbers that depend on nothing but their order.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn number(&mut self) -> f32 {
        (0..4).map(|_| self.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0).sum::<f32>() * 0.866
    }

    /// A tensor on the GPU, and its numbers as they were rounded.
    fn tensor(&mut self, fused: &Fused, shape: &[usize], ty: DType) -> (Tensor, Vec<f64>) {
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| self.number()).collect();
        let tensor =
            Tensor::from_vec(numbers, shape, &Device::Cpu).and_then(|t| t.to_dtype(ty)).expect("numbers");
        (tensor.to_device(&Device::Cuda(fused.device.clone())).expect("on the GPU"), host(&tensor))
    }

    fn words(&mut self, fused: &Fused, len: usize, below: usize) -> (Tensor, Vec<u32>) {
        let words: Vec<u32> = (0..len).map(|_| self.below(below) as u32).collect();
        (on_gpu(fused, words.clone()), words)
    }
}

fn on_gpu(fused: &Fused, words: Vec<u32>) -> Tensor {
    let len = words.len();
    Tensor::from_vec(words, len, &Device::Cuda(fused.device.clone())).expect("on the GPU")
}

fn host(x: &Tensor) -> Vec<f64> {
    let numbers = x.to_dtype(DType::F32).and_then(|x| x.flatten_all()?.to_vec1::<f32>()).expect("numbers");
    numbers.into_iter().map(f64::from).collect()
}

/// Half of the distance between a number of type `ty` and the next one, as a share of it.
fn rounding(ty: DType) -> f64 {
    match ty {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    }
}

/// That `found` is `wanted` but for its rounding and `off`, a bound of what the sums leave.
fn assert_near(what: &str, found: &Tensor, wanted: &[f64], off: f64) {
    let share = rounding(found.dtype());
    let found = host(found);
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (x, y)) in found.iter().zip(wanted).enumerate() {
        assert!((x - y).abs() <= share * y.abs() + off, "{what} at {i}: {x}, not {y}");
    }
}

/// The factor of a root mean square norm.
fn inverse(row: &[f64], eps: f64) -> f64 {
    1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + eps).sqrt()
}

fn spec(layers: &[AttentionSpec]) -> ModelSpec {
    let layer = |attention: &AttentionSpec| LayerSpec {
        attention: attention.clone(),
        mlp: MlpSpec::Dense { ff_dim: 1, activation: Activation::Silu, has_bias: false },
        norms: NormPlacement::Pre,
        cross: None,
        kv_group: 0,
    };
    ModelSpec::plain("none", 1, layers.iter().map(layer).collect())
}

#[test]
fn norms() {
    let Some(fused) = gpu("norms", DType::F16) else { return };
    let mut random = Random(1);
    let (rows, eps) = (3, 1e-5f32);
    for hidden in [4, 576, 1028, 4096] {
        for (out, bits) in ALL.into_iter().flat_map(|ty| (0..8).map(move |bits| (ty, bits))) {
            let (residual, before) = random.tensor(&fused, &[rows, hidden], DType::F32);
            let (added, more) = random.tensor(&fused, &[rows, hidden], out);
            let (post, post_numbers) = random.tensor(&fused, &[hidden], DType::F32);
            let (weight, weights) = random.tensor(&fused, &[hidden], DType::F32);
            let (is_added, has_post, has_weight) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let scale = 0.75;
            let normed = fused
                .add_norm(&AddNorm {
                    residual: &residual,
                    added: is_added.then_some(&added),
                    post: has_post.then_some(&post),
                    scale,
                    weight: has_weight.then_some(&weight),
                    out,
                    eps,
                })
                .expect("launched")
                .expect("a multiple of four");
            let mut sums = before;
            for (sums, more) in sums.chunks_mut(hidden).zip(more.chunks(hidden)).filter(|_| is_added) {
                let factor = f64::from(scale) * if has_post { inverse(more, eps.into()) } else { 1.0 };
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum += more[i] * factor * if has_post { post_numbers[i] } else { 1.0 };
                }
            }
            let what = format!("{hidden} {out:?} {bits}");
            assert_near(&what, &residual, &sums, 2e-5);
            if has_weight {
                let rows = sums.chunks(hidden).flat_map(|row| {
                    let factor = inverse(row, eps.into());
                    row.iter().zip(&weights).map(move |(x, w)| x * factor * w)
                });
                assert_near(&what, &normed, &rows.collect::<Vec<_>>(), 2e-5);
            }
        }
    }
}

/// What an activation gives for a gate and its neighbour.
type Wanted = Box<dyn Fn(f64, f64) -> f64>;

#[test]
fn gates_and_embeddings() {
    let Some(fused) = gpu("gates_and_embeddings", DType::F16) else { return };
    let mut random = Random(2);
    let (alpha, limit) = (1.702, 1.5);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let kinds: [(Activation, Wanted); 3] = [
        (Activation::Silu, Box::new(move |g, u| g * sigmoid(g) * u)),
        (
            Activation::GeluTanh,
            Box::new(|g, u| {
                0.5 * g
                    * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g)).tanh())
                    * u
            }),
        ),
        (
            Activation::ClampedSwiglu { alpha, limit },
            Box::new(move |g, u| {
                let (g, u) = (g.min(limit.into()), u.clamp((-limit).into(), limit.into()));
                g * sigmoid(f64::from(alpha) * g) * (u + 1.0)
            }),
        ),
    ];
    for (ty, width) in ALL.into_iter().flat_map(|ty| [4, 60, 1536].map(|width| (ty, width))) {
        let (gate, g) = random.tensor(&fused, &[3, width], ty);
        let (up, u) = random.tensor(&fused, &[3, width], ty);
        for (kind, wanted) in &kinds {
            let found = fused.gated(*kind, &gate, &up).expect("launched").expect("a kind of the kernel's");
            let wanted: Vec<f64> = g.iter().zip(&u).map(|(&g, &u)| wanted(g, u)).collect();
            assert_near(&format!("{kind:?} {ty:?}"), &found, &wanted, 2e-5);
        }
        let (table, numbers) = random.tensor(&fused, &[11, width], ty);
        let (ids, chosen) = random.words(&fused, 5, 11);
        let found = fused.rows(&table, &ids, 3.25).expect("launched").expect("a multiple of four");
        let rows = chosen.iter().flat_map(|&id| &numbers[id as usize * width..][..width]);
        assert_near("rows", &found, &rows.map(|x| 3.25 * x).collect::<Vec<_>>(), 1e-6);
    }
}

#[test]
fn products() {
    let Some(fused) = gpu("products", DType::F16) else { return };
    let mut random = Random(3);
    for ty in HALVES {
        // with our kernel, and with cuBLAS
        for (n, outputs, cols) in [(1, 1, 8), (4, 19, 584), (3, 512, 2048), (5, 64, 256), (70, 40, 72)] {
            let (x, xs) = random.tensor(&fused, &[n, cols], ty);
            let (w, ws) = random.tensor(&fused, &[outputs, cols], ty);
            let wanted: Vec<f64> = xs
                .chunks(cols)
                .flat_map(|x| ws.chunks(cols).map(move |w| x.iter().zip(w).map(|(x, w)| x * w).sum()))
                .collect();
            for out in [ty, DType::F32] {
                let found = fused.product(&x, &w, out).expect("launched");
                let is_there = n <= PRODUCT_ROWS || out == DType::F32;
                assert_eq!(found.is_some(), is_there, "{n} {out:?}");
                let what = format!("{ty:?} {out:?} {n} {outputs} {cols}");
                found.into_iter().for_each(|found| assert_near(&what, &found, &wanted, 1e-6 * cols as f64));
            }
        }
        // matrices of a stack: one row of x for all choices, and one for each
        let (experts, outputs, cols, n, chosen) = (5, 19, 264, 3, 2);
        let (w, ws) = random.tensor(&fused, &[experts, outputs, cols], ty);
        let (ids, which) = random.words(&fused, n * chosen, experts);
        let ids = ids.reshape((n, chosen)).expect("a shape");
        for repeats in [chosen, 1] {
            let (x, xs) = random.tensor(&fused, &[n * chosen / repeats, cols], ty);
            let found = fused.stack_product(&x, &w, &ids).expect("launched").expect("types of the kernel's");
            let wanted: Vec<f64> = (0..n * chosen * outputs)
                .map(|at| {
                    let (i, o) = (at / outputs, at % outputs);
                    let w = &ws[(which[i] as usize * outputs + o) * cols..][..cols];
                    xs[i / repeats * cols..][..cols].iter().zip(w).map(|(x, w)| x * w).sum()
                })
                .collect();
            assert_near(&format!("stack {ty:?} {repeats}"), &found, &wanted, 3e-4);
        }
    }
}

#[test]
fn choices_of_experts() {
    let Some(fused) = gpu("choices_of_experts", DType::F16) else { return };
    let mut random = Random(4);
    let rows = 9;
    for (experts, chosen) in [(4, 2), (8, 8), (60, 4), (128, 8), (512, 32)] {
        for renormalise in [true, false] {
            let order = RouterOrder::SoftmaxThenTopK { renormalise };
            let spec = MoeSpec {
                num_experts: experts,
                experts_per_token: chosen,
                ff_dim: 1,
                activation: Activation::Silu,
                order,
                has_router_bias: false,
                has_expert_bias: false,
            };
            // many of them equal
            let numbers: Vec<f32> = (0..rows * experts).map(|_| random.below(20) as f32 / 4.0).collect();
            let logits =
                Tensor::from_vec(numbers.clone(), (rows, experts), &Device::Cuda(fused.device.clone()));
            let (ids, weights) =
                fused.route(&logits.expect("on the GPU"), &spec).expect("launched").expect("room");
            let mut wanted = (Vec::new(), Vec::new());
            for row in numbers.chunks(experts) {
                let mut order: Vec<usize> = (0..experts).collect();
                order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
                let shares: Vec<f64> = order.iter().map(|&e| f64::from(row[e]).exp()).collect();
                let sum: f64 = shares[..if renormalise { chosen } else { experts }].iter().sum();
                wanted.0.extend(order[..chosen].iter().map(|&e| e as u32));
                wanted.1.extend(shares[..chosen].iter().map(|share| share / sum));
            }
            assert_eq!(ids.flatten_all().and_then(|ids| ids.to_vec1::<u32>()).expect("ids"), wanted.0);
            assert_near(&format!("{experts} {chosen}"), &weights, &wanted.1, 1e-6);
        }
    }
}

/// A head's vector with its bias, its norm and its turn.
fn turned(
    x: &[f64],
    bias: Option<&[f64]>,
    norm: Option<&[f64]>,
    turn: Option<(&[f64], &[f64], RopeLayout)>,
) -> Vec<f64> {
    let mut x: Vec<f64> = x.iter().enumerate().map(|(i, x)| x + bias.map_or(0.0, |b| b[i])).collect();
    if let Some(norm) = norm {
        let factor = inverse(&x, 1e-5f32.into());
        x.iter_mut().zip(norm).for_each(|(x, w)| *x *= factor * w);
    }
    let Some((cos, sin, layout)) = turn else { return x };
    let half = cos.len();
    for i in 0..half {
        let (a, b) = match layout {
            RopeLayout::Half => (i, i + half),
            RopeLayout::Interleaved => (2 * i, 2 * i + 1),
        };
        (x[a], x[b]) = (x[a] * cos[i] - x[b] * sin[i], x[b] * cos[i] + x[a] * sin[i]);
    }
    x
}

#[test]
fn vectors_of_heads() {
    for cached in HALVES {
        let Some(fused) = gpu("vectors_of_heads", cached) else { return };
        let mut random = Random(5);
        let cases = [
            (64, 64, RopeLayout::Half, false, false),
            (128, 128, RopeLayout::Half, true, true),
            (96, 32, RopeLayout::Interleaved, true, false),
            (256, 0, RopeLayout::Half, false, true),
        ];
        for ((dim, turning, layout, has_bias, has_norm), ty) in
            cases.into_iter().flat_map(|case| ALL.map(|ty| (case, ty)))
        {
            let (rows, heads, kv_heads, blocks) = (5, 6, 2, 3);
            let (q_width, kv_width, half) = (heads * dim, kv_heads * dim, turning / 2);
            let widths = [q_width, kv_width, kv_width];
            let products = widths.map(|width| random.tensor(&fused, &[rows, width], ty));
            let biases = widths.map(|width| random.tensor(&fused, &[width], DType::F32));
            let norms = [0, 1].map(|_| random.tensor(&fused, &[dim], DType::F32));
            let [cos, sin] = [0, 1].map(|_| random.tensor(&fused, &[9, half.max(1)], DType::F32));
            let (angles, which) = random.words(&fused, rows, 9);
            let places: Vec<u32> = (0..rows as u32).map(|row| 17 * row + 3).collect();
            let slots = on_gpu(&fused, places.clone());
            let pools = [0, 1].map(|_| random.tensor(&fused, &[blocks, BLOCK_LEN, kv_width], cached));
            let a = AttentionSpec::plain(heads, kv_heads, dim);
            let turn = Turned { cos: &cos.0, sin: &sin.0, angles: &angles, dim: turning, layout };
            let queries = fused
                .vectors(&Vectors {
                    spec: &a,
                    products: [&products[0].0, &products[1].0, &products[2].0],
                    biases: [0, 1, 2].map(|i| has_bias.then_some(&biases[i].0)),
                    norms: [0, 1].map(|i| has_norm.then_some(&norms[i].0)),
                    turn: (turning > 0).then_some(turn),
                    eps: 1e-5,
                    keys: &pools[0].0,
                    values: &pools[1].0,
                    slots: &slots,
                })
                .expect("launched");
            let vector = |i: usize, row: usize, head: usize| {
                let at = head * dim;
                let angle = which[row] as usize * half;
                turned(
                    &products[i].1[row * widths[i] + at..][..dim],
                    has_bias.then(|| &biases[i].1[at..at + dim]),
                    (has_norm && i < 2).then(|| &norms[i].1[..]),
                    (turning > 0 && i < 2)
                        .then(|| (&cos.1[angle..angle + half], &sin.1[angle..angle + half], layout)),
                )
            };
            let what = format!("{dim} {turning} {ty:?} {cached:?}");
            let wanted: Vec<f64> =
                (0..rows * heads).flat_map(|at| vector(0, at / heads, at % heads)).collect();
            assert_near(&what, &queries, &wanted, 3e-6);
            // what no row went to stays as it was
            for (i, (pool, before)) in pools.iter().enumerate() {
                let mut wanted = before.clone();
                for (row, &slot) in places.iter().enumerate() {
                    let vectors = (0..kv_heads).flat_map(|head| vector(i + 1, row, head));
                    wanted.splice(slot as usize * kv_width..(slot as usize + 1) * kv_width, vectors);
                }
                assert_near(&what, pool, &wanted, 3e-6);
            }
        }
    }
}

/// Sequences of a step: a prompt, a chunk behind a cached part, single tokens, guesses, both directions.
fn sequences() -> Vec<Sequence> {
    let mut all: Vec<Sequence> = Vec::new();
    for (start, num_rows, is_two_way) in
        [(0, 70, false), (45, 33, false), (99, 1, false), (1000, 4, false), (31, 1, false), (40, 30, true)]
    {
        let first_row = all.last().map_or(0, |s| s.first_row + s.num_rows);
        let ends = (1..=num_rows).map(|row| start + if is_two_way { num_rows } else { row }).collect();
        all.push(Sequence { first_row, num_rows, start, ends, spans: Vec::new() });
    }
    all
}

#[test]
fn attention_over_blocks() {
    for (cached, dim) in HALVES.into_iter().flat_map(|ty| HEAD_DIMS.map(|dim| (ty, dim))) {
        let Some(fused) = gpu("attention_over_blocks", cached) else { return };
        let mut random = Random(6);
        for (heads, kv_heads, window, softcap, has_sinks) in
            [(4, 2, None, None, false), (6, 2, Some(37), Some(3.0), true), (18, 2, None, None, true)]
        {
            let a =
                AttentionSpec { window, softcap, has_sinks, ..AttentionSpec::plain(heads, kv_heads, dim) };
            let sequences = sequences();
            let rows: usize = sequences.iter().map(|s| s.num_rows).sum();
            let lens: Vec<usize> =
                sequences.iter().map(|s| (s.start + s.num_rows).div_ceil(BLOCK_LEN)).collect();
            let blocks: usize = lens.iter().sum();
            // blocks in no order
            let mut order: Vec<u32> = (0..blocks as u32).collect();
            (1..blocks).for_each(|i| order.swap(i, random.below(i + 1)));
            let mut rest = order.as_slice();
            let tables: Vec<&[u32]> =
                lens.iter().map(|&len| rest.split_off(..len).expect("blocks")).collect();
            let mut words = Words::default();
            let plan = Plan::new(
                &spec(std::slice::from_ref(&a)),
                &sequences,
                std::slice::from_ref(&tables),
                &mut words,
            );
            words.upload(&Device::Cuda(fused.device.clone())).expect("on the GPU");

            let (queries, q) = random.tensor(&fused, &[rows, heads, dim], cached);
            let pool = [blocks, BLOCK_LEN, kv_heads * dim];
            let ((keys, k), (values, v)) =
                (random.tensor(&fused, &pool, cached), random.tensor(&fused, &pool, cached));
            let (sinks, s) = random.tensor(&fused, &[heads, 1, 1], DType::F32);
            for out in [cached, DType::F32] {
                let x = Attend {
                    spec: &a,
                    group: 0,
                    queries: &queries,
                    keys: &keys,
                    values: &values,
                    sinks: has_sinks.then_some(&sinks),
                    out,
                };
                let found = fused.attend(&x, &plan, &words).expect("launched");
                let mut wanted = Vec::new();
                for (sequence, table) in sequences.iter().zip(&tables) {
                    for (row, head) in
                        (0..sequence.num_rows).flat_map(|row| (0..heads).map(move |h| (row, h)))
                    {
                        let query = &q[((sequence.first_row + row) * heads + head) * dim..][..dim];
                        let place = |token: usize| {
                            let slot = table[token / BLOCK_LEN] as usize * BLOCK_LEN + token % BLOCK_LEN;
                            (slot * kv_heads + head / (heads / kv_heads)) * dim
                        };
                        let seen = first_seen(sequence.start + row, window)..sequence.ends[row];
                        let weights: Vec<f64> = seen
                            .clone()
                            .map(|token| {
                                let key = &k[place(token)..][..dim];
                                let score = query.iter().zip(key).map(|(x, y)| x * y).sum::<f64>()
                                    * f64::from(a.scale);
                                softcap
                                    .map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                                    .exp()
                            })
                            .collect();
                        let sink = if has_sinks { s[head].exp() } else { 0.0 };
                        let sum = weights.iter().sum::<f64>() + sink;
                        wanted.extend((0..dim).map(|d| {
                            let parts = seen.clone().zip(&weights).map(|(token, w)| w * v[place(token) + d]);
                            parts.sum::<f64>() / sum
                        }));
                    }
                }
                // weights are rounded before they meet the values, whose sizes lie about one
                let off = 3.0 * rounding(cached) + 1e-4;
                assert_near(&format!("{dim} {heads} {cached:?} {out:?}"), &found, &wanted, off);
            }
        }
    }
}

#[test]
fn draws() {
    let Some(fused) = gpu("draws", DType::F16) else { return };
    let draw = |numbers: Vec<f32>, vocab: usize, temperature: f32, number: f64| {
        let logits =
            Tensor::from_vec(numbers, ((), vocab), &Device::Cuda(fused.device.clone())).expect("on the GPU");
        fused.draw(&logits, &[TokenDraw { row: 0, temperature, number }]).expect("launched")[0]
    };
    assert_eq!(draw(vec![1.0, 3.0, 3.0, 2.0], 4, 0.0, 0.0), DrawnToken::Token(1));
    assert_eq!(draw(vec![1.0, f32::NAN], 2, 1.0, 0.5), DrawnToken::NotNumbers);
    assert_eq!(draw(vec![f32::NEG_INFINITY; 3], 3, 1.0, 0.5), DrawnToken::NoToken);
    // what the host's sampler gave: vocabulary, seed, temperature, number, token
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/cuda/check/draws.txt");
    let mut num = 0;
    for line in std::fs::read_to_string(file).expect("the draws").lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [vocab, seed, temperature, number, token] = fields[..] else { continue };
        let (Ok(vocab), Ok(seed)) = (vocab.parse::<u32>(), seed.parse::<u32>()) else { continue };
        let logit = |t: u32| {
            let mut h = t.wrapping_add(seed.wrapping_mul(7919)).wrapping_mul(2_654_435_761);
            h ^= h >> 15;
            h = h.wrapping_mul(2_246_822_519);
            h ^= h >> 13;
            (h & 0xffff) as f32 / 4096.0 - 8.0
        };
        let number = number.parse::<u64>().expect("a number") as f64 * 2f64.powi(-53);
        let found =
            draw((0..vocab).map(logit).collect(), vocab as usize, temperature.parse().expect("one"), number);
        assert_eq!(found, DrawnToken::Token(token.parse().expect("a token")), "{line}");
        num += 1;
    }
    assert!(num >= 40, "{num}");
}

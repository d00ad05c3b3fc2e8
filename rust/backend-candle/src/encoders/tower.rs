//! The blocks of a transformer over rows of several pictures or texts at once.

use std::sync::{Mutex, PoisonError};

use alloyforge_interfaces::{TowerLayers, TowerRows};
use alloyforge_types::{EncoderActivation, Error, GridRope, Result, TowerSpec};
use candle_core::{D, Tensor};

use super::ops;
use super::weights::{Linear, Norm, Weights};
use crate::fault::Place;

/// Scores that exist at a time: 64 MiB of f32.
const SCORE_VALUES: usize = 1 << 24;

/// Most blocks, so that a damaged count takes no memory.
const MAX_LAYERS: usize = 1024;

#[derive(Debug)]
struct Block {
    norm1: Norm,
    norm2: Norm,
    qkv: Linear,
    out: Linear,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    /// DINOv2's factors on what attention and MLP add.
    scales: Option<[Tensor; 2]>,
}

/// Who computes the blocks.
enum Layers {
    /// Candle.
    Own(Vec<Block>),
    /// Another backend, on the host.
    Given(Mutex<Box<dyn TowerLayers>>),
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(blocks) => write!(f, "{} blocks", blocks.len()),
            Self::Given(_) => f.write_str("given"),
        }
    }
}

/// The blocks with the norms around them.
#[derive(Debug)]
pub(super) struct Tower {
    spec: TowerSpec,
    pre_norm: Option<Norm>,
    layers: Layers,
    post_norm: Option<Norm>,
}

/// Rows and what positions turn them by.
pub(super) struct Rows<'a> {
    /// Of shape `[rows, width]`.
    pub(super) values: Tensor,
    /// Cosines and sines, each of shape `[rows, 1, head_dim / 2]`.
    pub(super) turn: Option<&'a (Tensor, Tensor)>,
    /// Where each row's patch lies, as time, line and column: what they follow from.
    pub(super) places: Vec<[u32; 3]>,
}

impl Tower {
    /// Loads the blocks and their norms; the blocks only where nobody else computes them.
    pub(super) fn load(
        spec: &TowerSpec,
        weights: &Weights<'_>,
        given: Option<Box<dyn TowerLayers>>,
    ) -> Result<Self> {
        if spec.num_layers > MAX_LAYERS {
            return Err(Error::internal(format!("an encoder of {} blocks", spec.num_layers)));
        }
        let TowerSpec { width, ff_dim, norm_eps, .. } = *spec;
        let inner = spec.num_heads.checked_mul(spec.head_dim);
        let inner = inner.ok_or_else(|| Error::internal("an encoder's heads overflow"))?;
        let [attention_bias, mlp_bias] = spec.has_bias;
        let norm = |name: String| weights.norm(&name, spec.norm, width, norm_eps);
        let block = |i: usize| -> Result<Block> {
            let name = |part: &str| format!("blk.{i}.{part}");
            let qkv = ["attn_q", "attn_k", "attn_v"].map(name);
            let scale = |part: &str| weights.tensor(&name(part), &[width]);
            Ok(Block {
                norm1: norm(name("ln1"))?,
                norm2: norm(name("ln2"))?,
                qkv: weights.joined(&qkv, inner, width, attention_bias)?,
                out: weights.linear(&name("attn_out"), width, inner, attention_bias)?,
                gate: spec
                    .is_gated
                    .then(|| weights.linear(&name("ffn_gate"), ff_dim, width, mlp_bias))
                    .transpose()?,
                up: weights.linear(&name("ffn_up"), ff_dim, width, mlp_bias)?,
                down: weights.linear(&name("ffn_down"), width, ff_dim, mlp_bias)?,
                scales: match spec.has_layer_scale {
                    true => Some([scale("ls1")?, scale("ls2")?]),
                    false => None,
                },
            })
        };
        Ok(Self {
            pre_norm: spec.has_pre_norm.then(|| norm("pre_ln".into())).transpose()?,
            layers: match given {
                Some(layers) => Layers::Given(Mutex::new(layers)),
                None => Layers::Own((0..spec.num_layers).map(block).collect::<Result<_>>()?),
            },
            post_norm: spec.has_post_norm.then(|| norm("post_ln".into())).transpose()?,
            spec: spec.clone(),
        })
    }

    /// Whether rows are turned by places rather than by cosines and sines.
    pub(super) fn takes_places(&self) -> bool {
        matches!(self.layers, Layers::Given(_))
    }

    /// Bytes of blocks that are somebody else's.
    pub(super) fn given_bytes(&self) -> u64 {
        match &self.layers {
            Layers::Own(_) => 0,
            Layers::Given(layers) => {
                let used = layers.lock().unwrap_or_else(PoisonError::into_inner).memory();
                used.weights + used.kv + used.workspace
            }
        }
    }

    /// Runs `rows`, where `segments(layer)` are the lengths of runs of rows that see each other. Gives the
    /// rows behind the last block and its norm, and without a norm those behind each of the blocks `taps`.
    pub(super) fn run<'s>(
        &self,
        place: &Place,
        rows: Rows<'_>,
        segments: impl Fn(usize) -> &'s [usize],
        taps: &[usize],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let fault = |e| place.fault(e);
        let mut x = rows.values;
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(&x).map_err(fault)?;
        }
        let mut tapped = Vec::with_capacity(taps.len());
        match &self.layers {
            Layers::Own(blocks) => {
                for (i, block) in blocks.iter().enumerate() {
                    x = self.block(block, &x, rows.turn, segments(i)).map_err(fault)?;
                    if taps.contains(&i) {
                        tapped.push(x.clone());
                    }
                }
            }
            Layers::Given(layers) => {
                let last = self.spec.num_layers - 1;
                let wanted: Vec<usize> = (0..=last).filter(|i| *i == last || taps.contains(i)).collect();
                let (mut groupings, mut grouping_of) = (Vec::new(), Vec::new());
                for lens in (0..=last).map(segments) {
                    let known = groupings.iter().position(|have| *have == lens);
                    grouping_of.push(known.unwrap_or(groupings.len()));
                    if known.is_none() {
                        groupings.push(lens);
                    }
                }
                let values: Vec<f32> = x.flatten_all().and_then(|x| x.to_vec1()).map_err(fault)?;
                let (values, places) = (values.into(), rows.places);
                let rows = TowerRows { values, places, groupings, grouping_of, taps: &wanted };
                let made = layers.lock().unwrap_or_else(PoisonError::into_inner).run(&rows)?;
                for (i, made) in wanted.into_iter().zip(made) {
                    x = Tensor::from_vec(made, x.dims(), x.device()).map_err(fault)?;
                    if taps.contains(&i) {
                        tapped.push(x.clone());
                    }
                }
            }
        }
        let x = match &self.post_norm {
            Some(norm) => norm.forward(&x).map_err(fault)?,
            None => x,
        };
        Ok((x, tapped))
    }

    fn block(
        &self,
        block: &Block,
        x: &Tensor,
        turn: Option<&(Tensor, Tensor)>,
        segments: &[usize],
    ) -> candle_core::Result<Tensor> {
        let scaled = |x: Tensor, which: usize| match &block.scales {
            Some(scales) => x.broadcast_mul(&scales[which]),
            None => Ok(x),
        };
        let is_post = self.spec.is_post_norm;
        let input = if is_post { x.clone() } else { block.norm1.forward(x)? };
        let attended = self.attend(&block.qkv.forward(&input)?, turn, segments)?;
        let x = (x + scaled(block.out.forward(&attended)?, 0)?)?;
        let x = if is_post { block.norm1.forward(&x)? } else { x };
        let input = if is_post { x.clone() } else { block.norm2.forward(&x)? };
        let kind = self.spec.activation;
        let inner = match &block.gate {
            Some(gate) => ops::gate(&gate.forward(&input)?, &block.up.forward(&input)?, kind)?,
            None => ops::activation(&block.up.forward(&input)?, kind)?,
        };
        let x = (&x + scaled(block.down.forward(&inner)?, 1)?)?;
        if is_post { block.norm2.forward(&x) } else { Ok(x) }
    }

    /// Softmax attention of rows `[n, 3 * heads * head_dim]` within their segments.
    fn attend(
        &self,
        qkv: &Tensor,
        turn: Option<&(Tensor, Tensor)>,
        segments: &[usize],
    ) -> candle_core::Result<Tensor> {
        let (heads, dim) = (self.spec.num_heads, self.spec.head_dim);
        let rows = qkv.dim(0)?;
        let part = |i: usize| qkv.narrow(1, i * heads * dim, heads * dim)?.reshape((rows, heads, dim));
        let turned = |x: Tensor| match turn {
            Some((cos, sin)) => {
                let (a, b) = match self.spec.rope {
                    // turned coordinates may stand anywhere, as long as those of q and k agree
                    Some(GridRope::Paired { .. }) => {
                        let pairs = x.reshape((rows, heads, dim / 2, 2))?;
                        (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?)
                    }
                    _ => (x.narrow(2, 0, dim / 2)?, x.narrow(2, dim / 2, dim / 2)?),
                };
                let left = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
                let right = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
                Tensor::cat(&[left, right], D::Minus1)
            }
            None => Ok(x),
        };
        let (q, k, v) = (turned(part(0)?)?, turned(part(1)?)?, part(2)?);
        let mut parts = Vec::new();
        let (mut first, mut i) = (0, 0);
        while let Some(&len) = segments.get(i) {
            // segments of one length are one product
            let count = segments[i..].iter().take_while(|&&l| l == len).count();
            let batch = |x: &Tensor| {
                let x = x.narrow(0, first, count * len)?.reshape((count, len, heads, dim))?;
                x.permute((0, 2, 1, 3))?.contiguous()?.reshape((count * heads, len, dim))
            };
            let out = self.segment(&batch(&q)?, &batch(&k)?, &batch(&v)?)?;
            let out = out.reshape((count, heads, len, dim))?.permute((0, 2, 1, 3))?;
            parts.push(out.contiguous()?.reshape((count * len, heads * dim))?);
            first += count * len;
            i += count;
        }
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            parts => Tensor::cat(parts, 0),
        }
    }

    /// Attention of `[batch, len, dim]`, in pieces whose scores stay within a bound.
    fn segment(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, len, _) = q.dims3()?;
        let scale = 1.0 / (self.spec.head_dim as f32).sqrt();
        let k = k.transpose(1, 2)?;
        let piece = (SCORE_VALUES / (batch * len)).clamp(1, len);
        let mut parts = Vec::new();
        for from in (0..len).step_by(piece) {
            let rows = piece.min(len - from);
            let scores = q.narrow(1, from, rows)?.matmul(&k)?;
            let shares = ops::softmax(&scores, scale, self.spec.is_causal.then_some(from))?;
            parts.push(shares.matmul(v)?);
        }
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            parts => Tensor::cat(parts, 1),
        }
    }

    /// An MLP of its own with this tower's activation: SigLIP's pooling head.
    pub(super) fn activation(&self) -> EncoderActivation {
        self.spec.activation
    }
}

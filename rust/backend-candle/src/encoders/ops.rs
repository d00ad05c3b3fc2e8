//! Operations on rows of f32: on the CPU over all threads of the pool that runs them, elsewhere by
//! Candle's.

use std::sync::OnceLock;

use alloyforge_kernels::activation::{Activation, activate};
use alloyforge_kernels::isa::Isa;
use alloyforge_types::EncoderActivation;
use candle_core::{CpuStorage, D, Device, Result, Storage, Tensor};
use rayon::prelude::*;

/// Numbers that one task of the pool takes.
const TASK_VALUES: usize = 1 << 14;

fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(Isa::detect)
}

/// `x` with every row of its last dimension, whose others `shape` may fold, rewritten by `f`; `None`
/// where `x` is not on the CPU.
fn map_rows(x: &Tensor, f: impl Fn(usize, &[f32], &mut [f32]) + Sync) -> Option<Result<Tensor>> {
    if !matches!(x.device(), Device::Cpu) {
        return None;
    }
    let run = || {
        let x = x.contiguous()?;
        let width = x.dim(D::Minus1)?.max(1);
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
            candle_core::bail!("rows of another type than f32");
        };
        let from = &values[layout.start_offset()..layout.start_offset() + x.elem_count()];
        let mut to = vec![0.0; from.len()];
        let rows = (TASK_VALUES / width).max(1);
        to.par_chunks_mut(rows * width).zip(from.par_chunks(rows * width)).enumerate().for_each(
            |(task, (to, from))| {
                for (i, (to, from)) in to.chunks_mut(width).zip(from.chunks(width)).enumerate() {
                    f(task * rows + i, from, to);
                }
            },
        );
        Tensor::from_vec(to, x.dims(), &Device::Cpu)
    };
    Some(run())
}

fn host(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}

/// `x` plus one row, for each of its rows.
pub(super) fn add_row(x: &Tensor, row: &Tensor) -> Result<Tensor> {
    if !matches!(x.device(), Device::Cpu) {
        return x.broadcast_add(row);
    }
    let row = host(row)?;
    let add = |_: usize, from: &[f32], to: &mut [f32]| {
        to.iter_mut().zip(from).zip(&row).for_each(|((to, x), b)| *to = x + b);
    };
    map_rows(x, add).unwrap_or_else(|| candle_core::bail!("rows that left the CPU"))
}

/// A layer norm, or without a bias an RMS norm, over the last dimension.
pub(super) fn norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    if matches!(x.device(), Device::Cpu) {
        let (weight, bias) = (host(weight)?, bias.map(host).transpose()?);
        let width = weight.len() as f32;
        let norm = |_: usize, x: &[f32], to: &mut [f32]| match &bias {
            Some(bias) => {
                let mean = sum(x, |v| v) / width;
                let variance = sum(x, |v| (v - mean) * (v - mean)) / width;
                let scale = 1.0 / (variance + eps).sqrt();
                let parts = to.iter_mut().zip(x).zip(weight.iter().zip(bias));
                parts.for_each(|((to, x), (w, b))| *to = (x - mean) * scale * w + b);
            }
            None => {
                let scale = 1.0 / (sum(x, |v| v * v) / width + eps).sqrt();
                to.iter_mut().zip(x).zip(&weight).for_each(|((to, x), w)| *to = x * scale * w);
            }
        };
        if let Some(done) = map_rows(x, norm) {
            return done;
        }
    }
    let width = x.dim(D::Minus1)? as f64;
    let centred = match bias {
        Some(_) => x.broadcast_sub(&(x.sum_keepdim(D::Minus1)? / width)?)?,
        None => x.clone(),
    };
    let variance = (centred.sqr()?.sum_keepdim(D::Minus1)? / width)?;
    let y = centred.broadcast_div(&(variance + f64::from(eps))?.sqrt()?)?.broadcast_mul(weight)?;
    bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
}

/// A sum in sixteen parts, which a compiler turns into vector code.
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut parts = [0.0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for values in whole {
        parts.iter_mut().zip(values).for_each(|(p, &v)| *p += f(v));
    }
    parts.iter().sum::<f32>() + rest.iter().map(|&v| f(v)).sum::<f32>()
}

/// `activation` of every number.
pub(super) fn activation(x: &Tensor, kind: EncoderActivation) -> Result<Tensor> {
    const QUICK: f32 = 1.702;
    let isa = isa();
    let ones = [1.0f32; 1024];
    let with = |to: &mut [f32], kind: Activation| {
        to.chunks_mut(ones.len()).for_each(|part| {
            let len = part.len();
            activate(isa, kind, part, &ones[..len]);
        });
    };
    let apply = |_: usize, x: &[f32], to: &mut [f32]| match kind {
        EncoderActivation::Relu => to.iter_mut().zip(x).for_each(|(to, x)| *to = x.max(0.0)),
        EncoderActivation::QuickGelu => {
            to.iter_mut().zip(x).for_each(|(to, x)| *to = x * QUICK);
            with(to, Activation::Silu);
            to.iter_mut().for_each(|to| *to /= QUICK);
        }
        EncoderActivation::Gelu | EncoderActivation::GeluTanh | EncoderActivation::Silu => {
            to.copy_from_slice(x);
            with(to, gated(kind));
        }
    };
    if let Some(done) = map_rows(x, apply) {
        return done;
    }
    match kind {
        EncoderActivation::Gelu => x.gelu_erf(),
        EncoderActivation::GeluTanh => x.gelu(),
        EncoderActivation::Silu => x.silu(),
        EncoderActivation::Relu => x.relu(),
        EncoderActivation::QuickGelu => (x * f64::from(QUICK))?.silu()? / f64::from(QUICK),
    }
}

/// `activation(gate) * up`.
pub(super) fn gate(gate: &Tensor, up: &Tensor, kind: EncoderActivation) -> Result<Tensor> {
    activation(gate, kind)? * up
}

fn gated(kind: EncoderActivation) -> Activation {
    match kind {
        EncoderActivation::GeluTanh => Activation::GeluTanh,
        EncoderActivation::Silu => Activation::Silu,
        _ => Activation::Gelu,
    }
}

/// Softmax over the last dimension of scores `[heads, rows, len]`, each times `scale` first. Where
/// `first_causal` is given, row `i` sees the columns up to `first_causal + i`.
pub(super) fn softmax(scores: &Tensor, scale: f32, first_causal: Option<usize>) -> Result<Tensor> {
    let rows = scores.dim(D::Minus2)?;
    let soften = |row: usize, x: &[f32], to: &mut [f32]| {
        let seen = first_causal.map_or(x.len(), |first| (first + row % rows + 1).min(x.len()));
        let (x, to) = (&x[..seen], &mut to[..seen]);
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max) * scale;
        to.iter_mut().zip(x).for_each(|(to, x)| *to = (x * scale - max).exp());
        let sum = 1.0 / sum(to, |v| v);
        to.iter_mut().for_each(|to| *to *= sum);
    };
    if let Some(done) = map_rows(scores, soften) {
        return done;
    }
    let len = scores.dim(D::Minus1)?;
    let mut scores = (scores * f64::from(scale))?;
    if let Some(first) = first_causal {
        let mask: Vec<f32> = (0..rows * len)
            .map(|i| if i % len > first + i / len { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        scores = scores.broadcast_add(&Tensor::from_vec(mask, (rows, len), scores.device())?)?;
    }
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

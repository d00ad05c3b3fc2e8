//! What text models hear with: an encoder, and the head that makes the decoder's rows of its own.

use std::sync::{Arc, Mutex, PoisonError};

use alloyforge_interfaces::{Encoder, TensorStore};
use alloyforge_kernels::activation::{Activation, activate};
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::norm;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::product::Input;
use alloyforge_types::{Error, MediaItem, MediaRows, Result, SoundHead, SoundPiece, SoundPieces, SoundSpec};

use crate::encoder::AudioEncoder;
use crate::linear::{Linear, vector};
use crate::mel::LogMel;
use crate::{HOP, SAMPLE_RATE};

/// Encodes sounds, one at a time: an item's tensor `samples` at 16 kHz.
pub struct SoundEncoder {
    parts: Mutex<Parts>,
    spec: SoundSpec,
    bytes: u64,
}

struct Parts {
    encoder: AudioEncoder,
    mel: LogMel,
    head: Head,
}

/// From the encoder's rows to the decoder's.
enum Head {
    Pool(Linear),
    Stack { factor: usize, eps: f32, norms_inside: bool, norms: [Vec<f32>; 2], first: Linear, second: Linear },
}

impl SoundEncoder {
    /// Loads the head in front of `encoder`'s rows: `head.1` and `head.2`, `head.norm_pre`,
    /// `head.norm_mid` and `head.norm_post` of `store`.
    ///
    /// # Errors
    /// `Format` for a tensor that is missing or of the wrong shape; `OutOfMemory`.
    pub fn new(encoder: AudioEncoder, spec: SoundSpec, store: &Arc<dyn TensorStore>) -> Result<Self> {
        let (store, pool, isa, width) = (&**store, encoder.pool(), encoder.isa(), encoder.width());
        let head = match spec.head {
            SoundHead::Pool => {
                Head::Pool(Linear::load(store, "head.1", (spec.out_dim, width), true, pool, isa)?)
            }
            SoundHead::Stack { factor, inner, norms_inside, norm_eps } => {
                let wide = factor * width;
                let (name, len) =
                    if norms_inside { ("head.norm_mid", inner) } else { ("head.norm_post", spec.out_dim) };
                Head::Stack {
                    factor,
                    eps: norm_eps,
                    norms_inside,
                    norms: [
                        vector(store, "head.norm_pre.weight", wide)?,
                        vector(store, &format!("{name}.weight"), len)?,
                    ],
                    first: Linear::load(store, "head.1", (2 * inner, wide), false, pool, isa)?,
                    second: Linear::load(store, "head.2", (spec.out_dim, inner), false, pool, isa)?,
                }
            }
        };
        let own = match &head {
            Head::Pool(linear) => linear.bytes(),
            Head::Stack { first, second, norms, .. } => {
                first.bytes() + second.bytes() + norms.iter().map(|n| 4 * n.len()).sum::<usize>()
            }
        };
        let memory = encoder.layers().memory();
        let bytes = memory.weights + memory.kv + memory.workspace + encoder.bytes() + own as u64;
        let mel = LogMel::new(spec.num_mels);
        Ok(Self { parts: Mutex::new(Parts { encoder, mel, head }), spec, bytes })
    }
}

impl Encoder for SoundEncoder {
    fn encode(&self, item: &MediaItem) -> Result<MediaRows> {
        let fault = |fault: &str| Error::Media { item: item.kind.noun().into(), fault: fault.into() };
        let samples = item.tensor("samples").filter(|t| t.shape.len() == 1);
        let samples = &*samples.ok_or_else(|| fault("its processor gave no `samples`"))?.values;
        if samples.iter().any(|x| !x.is_finite()) {
            return Err(fault("has samples that are no finite numbers"));
        }
        // each call begins anew, so what a panic left behind does no harm
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = parts.encode(&self.spec, samples)?;
        Ok(MediaRows { width: self.spec.out_dim, rows: rows.into(), deeper: Vec::new() })
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Parts {
    fn encode(&mut self, spec: &SoundSpec, samples: &[f32]) -> Result<Vec<f32>> {
        let (pool, isa) = (self.encoder.pool(), self.encoder.isa());
        let frames = spec.num_frames(samples.len());
        let whole = match spec.pieces {
            SoundPieces::Windows => None,
            SoundPieces::Cuts => Some(self.mel.compute(pool, isa, samples, frames * HOP, frames)?),
        };
        let mut out = Vec::with_capacity(spec.num_rows(samples.len()) * spec.out_dim);
        for piece in spec.pieces(samples.len()).filter(|piece| piece.rows > 0) {
            let mel = match &whole {
                Some(mel) => cut(mel, spec, &piece),
                None => self.window(spec, samples, &piece)?,
            };
            let states = self.encoder.raw_states(&mel, piece.source_rows)?;
            self.head.run(&self.encoder, &states, piece.rows, &mut out)?;
        }
        Ok(out)
    }

    /// The spectrum of one piece of the sound, silence behind it; of that, as much as its rows see.
    fn window(&self, spec: &SoundSpec, samples: &[f32], piece: &SoundPiece) -> Result<Vec<f32>> {
        let (pool, isa, window) = (self.encoder.pool(), self.encoder.isa(), 2 * spec.source_len);
        let end = (piece.frames.end * HOP).min(samples.len());
        let part = samples.get(piece.frames.start * HOP..end).unwrap_or_default();
        self.mel.compute(pool, isa, part, window * HOP, window.min(piece.frames.len() + 2))
    }
}

/// One piece of a whole spectrum; pieces behind the first one have empty frames behind them.
fn cut(mel: &[f32], spec: &SoundSpec, piece: &SoundPiece) -> Vec<f32> {
    let mels = spec.num_mels;
    let mut out = mel[piece.frames.start * mels..piece.frames.end * mels].to_vec();
    if piece.frames.start > 0 {
        out.resize((2 * spec.source_len).min(piece.frames.len() + 2) * mels, 0.0);
    }
    out
}

impl Head {
    /// The decoder's `rows` rows of `states`, before the encoder's last norm, added to `out`.
    fn run(&self, encoder: &AudioEncoder, states: &[f32], rows: usize, out: &mut Vec<f32>) -> Result<()> {
        let (pool, isa, width) = (encoder.pool(), encoder.isa(), encoder.width());
        match self {
            Self::Pool(linear) => {
                let mut means = vec![0.0; rows * width];
                for (mean, pair) in means.chunks_exact_mut(width).zip(states.chunks_exact(2 * width)) {
                    let (first, second) = pair.split_at(width);
                    for ((mean, a), b) in mean.iter_mut().zip(first).zip(second) {
                        *mean = 0.5 * (a + b);
                    }
                }
                project(linear, pool, isa, &encoder.norm(&means), out)
            }
            Self::Stack { factor, eps, norms_inside, norms, first, second } => {
                let wide = factor * width;
                let mut stacked = encoder.norm(states);
                stacked.resize(rows * wide, 0.0);
                each_row(&mut stacked, wide, |row| norm::rms_norm_in_place(isa, row, &norms[0], *eps));
                let mut both = Vec::new();
                project(first, pool, isa, &stacked, &mut both)?;
                let inner = second.matrix.cols();
                let mut gated = Vec::with_capacity(rows * inner);
                for row in both.chunks_exact_mut(2 * inner) {
                    // the gate is the second half
                    let (value, gate) = row.split_at_mut(inner);
                    activate(isa, Activation::Silu, gate, value);
                    if *norms_inside {
                        norm::rms_norm_in_place(isa, gate, &norms[1], *eps);
                    }
                    gated.extend_from_slice(gate);
                }
                let start = out.len();
                project(second, pool, isa, &gated, out)?;
                if !norms_inside {
                    let dim = second.matrix.rows();
                    each_row(&mut out[start..], dim, |row| {
                        norm::rms_norm_in_place(isa, row, &norms[1], *eps)
                    });
                }
                Ok(())
            }
        }
    }
}

fn each_row(values: &mut [f32], width: usize, work: impl FnMut(&mut [f32])) {
    values.chunks_exact_mut(width).for_each(work);
}

/// The products of `rows`, added to `out`.
fn project(linear: &Linear, pool: &Pool, isa: Isa, rows: &[f32], out: &mut Vec<f32>) -> Result<()> {
    let (cols, start) = (linear.matrix.cols(), out.len());
    let count = rows.len() / cols;
    out.resize(start + count * linear.matrix.rows(), 0.0);
    linear.run(pool, isa, Input::first(rows, cols, count), None, &mut out[start..], 0)
}

const _: () = assert!(HOP == alloyforge_types::SOUND_HOP && SAMPLE_RATE == alloyforge_types::SOUND_RATE);

//! Voice activity by Silero's network (github.com/snakers4/silero-vad, its tensors for 16 kHz).
//!
//! Every 512 samples, with the 64 before them, become four spectra by a learned transform, four
//! convolutions make one row of them, and a recurrent cell, which remembers what came before, says how
//! probable speech is. All but the cell is a few products over many such pieces at once.

use std::ops::Range;
use std::sync::Arc;

use alloyforge_interfaces::TensorStore;
use alloyforge_kernels::disjoint::{Disjoint, PerWorker};
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::matrix::Matrix;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::product::{self, Input, Output, Store};
use alloyforge_types::{Error, QuantType, Result};

use crate::SAMPLE_RATE;
use crate::linear::numbers;

/// Samples of a piece.
pub const PIECE: usize = 512;

/// Samples before it that are heard too.
const CONTEXT: usize = 64;

/// Samples that are reflected at its end.
const PAD: usize = 64;

/// Samples from one spectrum to the next, and of one.
const STEP: usize = 128;
const SPECTRUM: usize = 256;

/// Frequencies.
const BINS: usize = SPECTRUM / 2 + 1;

/// Numbers that the cell remembers.
const CELL: usize = 128;

/// Pieces that are computed together.
const TOGETHER: usize = 256;

/// A product with a bias.
#[derive(Debug)]
struct Dense {
    matrix: Matrix,
    bias: Vec<f32>,
}

impl Dense {
    /// `count` rows of input, one every `stride` numbers.
    fn run(&self, pool: &Pool, isa: Isa, input: &[f32], stride: usize, count: usize) -> Result<Vec<f32>> {
        let rows = self.matrix.rows();
        let mut out = vec![0.0; count * rows];
        let scratch = PerWorker::new(pool.threads(), || {
            Ok::<_, Error>(vec![0.0; product::scratch_len(self.matrix.cols())])
        })?;
        let values = Disjoint::new(&mut out);
        pool.run(product::num_chunks(rows), |chunk, worker| {
            let bias = Some(&*self.bias);
            let output = Output {
                values: &values,
                stride: rows,
                first_row: 0,
                first_column: 0,
                bias,
                store: Store::Set,
            };
            let (part, input) = (product::chunk_rows(chunk, rows), Input::first(input, stride, count));
            // SAFETY: each chunk has columns of its own.
            unsafe { product::product(isa, &self.matrix, part, input, output, &mut scratch.get(worker)) }
        })?;
        Ok(out)
    }
}

/// The network.
pub struct VoiceActivity {
    pool: Arc<Pool>,
    isa: Isa,
    transform: Dense,
    convs: [Dense; 4],
    cell_input: Dense,
    /// `[512, 128]`, turned: what the cell remembers to its gates.
    cell_state: Vec<f32>,
    head: (Vec<f32>, f32),
}

/// How speech is cut out.
#[derive(Debug, Clone, Copy)]
pub struct VadOptions {
    /// From which probability on it is speech.
    pub threshold: f32,
    /// Seconds of silence that end a stretch of speech.
    pub min_silence: f64,
    /// Seconds of speech below which a stretch is dropped.
    pub min_speech: f64,
    /// Seconds that a stretch is widened by at both ends.
    pub pad: f64,
}

impl Default for VadOptions {
    fn default() -> Self {
        Self { threshold: 0.5, min_silence: 2.0, min_speech: 0.0, pad: 0.4 }
    }
}

impl VoiceActivity {
    /// Loads the network's tensors.
    ///
    /// # Errors
    /// `Format` for a tensor that is missing or of another shape; `OutOfMemory`.
    pub fn load(store: &dyn TensorStore, threads: usize) -> Result<Self> {
        let (pool, isa) = (Pool::shared(threads)?, Isa::detect());
        let of = |name: &str, want: &[usize]| {
            let (values, _, shape) = numbers(store, name)?;
            if shape != want {
                let fault = format!("has shape {shape:?}, expected {want:?}");
                return Err(Error::format(store.label(), format!("tensor `{name}`"), fault));
            }
            Ok(values)
        };
        let pack = |name: &str, shape: (usize, usize), values: &[f32], bias: Vec<f32>| {
            let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let matrix = Matrix::pack(&pool, isa, name, shape, QuantType::F32, &data, QuantType::F32)?;
            Ok::<_, Error>(Dense { matrix, bias })
        };
        let conv = |index: usize, rows: usize, channels: usize| {
            let name = format!("conv{index}");
            let weights = of(&format!("{name}.weight"), &[rows, channels, 3])?;
            let bias = of(&format!("{name}.bias"), &[rows])?;
            let turned: Vec<f32> = weights
                .chunks_exact(3 * channels)
                .flat_map(|row| (0..3).flat_map(move |tap| (0..channels).map(move |c| row[c * 3 + tap])))
                .collect();
            pack(&name, (rows, 3 * channels), &turned, bias)
        };
        let transform = of("stft_conv.weight", &[2 * BINS, 1, SPECTRUM])?;
        let mut bias = of("lstm_cell.bias_ih", &[4 * CELL])?;
        bias.iter_mut().zip(of("lstm_cell.bias_hh", &[4 * CELL])?).for_each(|(a, b)| *a += b);
        let (input, state) =
            (of("lstm_cell.weight_ih", &[4 * CELL, CELL])?, of("lstm_cell.weight_hh", &[4 * CELL, CELL])?);
        let mut turned = vec![0.0; state.len()];
        for (row, values) in state.chunks_exact(CELL).enumerate() {
            for (col, value) in values.iter().enumerate() {
                turned[col * 4 * CELL + row] = *value;
            }
        }
        Ok(Self {
            transform: pack("stft_conv", (2 * BINS, SPECTRUM), &transform, vec![0.0; 2 * BINS])?,
            convs: [conv(1, 128, BINS)?, conv(2, 64, 128)?, conv(3, 64, 64)?, conv(4, 128, 64)?],
            cell_input: pack("lstm_cell", (4 * CELL, CELL), &input, bias)?,
            cell_state: turned,
            head: (of("final_conv.weight", &[1, CELL, 1])?, of("final_conv.bias", &[1])?[0]),
            pool,
            isa,
        })
    }

    /// How probable speech is in each [`PIECE`] samples of `samples`, at 16 kHz.
    ///
    /// # Errors
    /// Only where the pool fails.
    pub fn probabilities(&self, samples: &[f32]) -> Result<Vec<f32>> {
        let pieces = samples.len().div_ceil(PIECE);
        let (mut hidden, mut memory) = (vec![0.0f32; CELL], vec![0.0f32; CELL]);
        let mut out = Vec::with_capacity(pieces);
        for first in (0..pieces).step_by(TOGETHER) {
            let count = TOGETHER.min(pieces - first);
            let gates = self.gates(samples, first, count)?;
            for gates in gates.chunks_exact(4 * CELL) {
                self.remember(gates, &mut hidden, &mut memory);
                let sum: f32 = hidden.iter().zip(&self.head.0).map(|(h, w)| h.max(0.0) * w).sum();
                out.push(sigmoid(sum + self.head.1));
            }
        }
        Ok(out)
    }

    /// What the cell is told of `count` pieces from `first` on.
    fn gates(&self, samples: &[f32], first: usize, count: usize) -> Result<Vec<f32>> {
        const LEN: usize = CONTEXT + PIECE + PAD;
        let (pool, isa) = (&self.pool, self.isa);
        let mut heard = vec![0.0; count * LEN];
        for (piece, heard) in heard.chunks_exact_mut(LEN).enumerate() {
            let start = (first + piece) * PIECE;
            for (i, to) in heard[..CONTEXT + PIECE].iter_mut().enumerate() {
                let place = (start + i).checked_sub(CONTEXT);
                *to = place.and_then(|p| samples.get(p)).copied().unwrap_or(0.0);
            }
            for i in 0..PAD {
                heard[CONTEXT + PIECE + i] = heard[CONTEXT + PIECE - 2 - i];
            }
        }
        // rows between two pieces are computed and left
        let rows = (heard.len() - SPECTRUM) / STEP + 1;
        let spectra = self.transform.run(pool, isa, &heard, STEP, rows)?;
        let per_piece = LEN / STEP;
        // four spectra with a silent one at each end
        let mut input = vec![0.0; count * 6 * BINS];
        for piece in 0..count {
            for t in 0..4 {
                let spectrum = &spectra[(piece * per_piece + t) * 2 * BINS..][..2 * BINS];
                let to = &mut input[(piece * 6 + t + 1) * BINS..][..BINS];
                for (k, to) in to.iter_mut().enumerate() {
                    *to = (spectrum[k].powi(2) + spectrum[BINS + k].powi(2)).sqrt();
                }
            }
        }
        let first = self.convs[0].run(pool, isa, &input, BINS, count * 6 - 2)?;
        let input = padded(&first, count, 6, 4, 6, 128);
        let second = self.convs[1].run(pool, isa, &input, 2 * 128, count * 3 - 1)?;
        let input = padded(&second, count, 3, 2, 4, 64);
        let third = self.convs[2].run(pool, isa, &input, 4 * 64, count)?;
        let input = padded(&third, count, 1, 1, 3, 64);
        let mut fourth = self.convs[3].run(pool, isa, &input, 3 * 64, count)?;
        fourth.iter_mut().for_each(|v| *v = v.max(0.0));
        self.cell_input.run(pool, isa, &fourth, CELL, count)
    }

    /// One step of the cell (Hochreiter and Schmidhuber, 1997): gates in PyTorch's order.
    fn remember(&self, gates: &[f32], hidden: &mut [f32], memory: &mut [f32]) {
        let mut all = gates.to_vec();
        for (h, column) in hidden.iter().zip(self.cell_state.chunks_exact(4 * CELL)) {
            for (gate, weight) in all.iter_mut().zip(column) {
                *gate += h * weight;
            }
        }
        for (i, (hidden, memory)) in hidden.iter_mut().zip(memory).enumerate() {
            let (input, forget) = (sigmoid(all[i]), sigmoid(all[CELL + i]));
            let (value, output) = (all[2 * CELL + i].tanh(), sigmoid(all[3 * CELL + i]));
            *memory = forget * *memory + input * value;
            *hidden = output * memory.tanh();
        }
    }

    /// Stretches of speech, in samples.
    ///
    /// # Errors
    /// As [`probabilities`](Self::probabilities).
    pub fn speech(&self, samples: &[f32], options: &VadOptions) -> Result<Vec<Range<usize>>> {
        Ok(stretches(&self.probabilities(samples)?, samples.len(), options))
    }
}

/// Of `from_rows` rows a piece the first `used`, their positive parts, one row in from the start of
/// `to_rows`.
fn padded(
    from: &[f32],
    count: usize,
    from_rows: usize,
    used: usize,
    to_rows: usize,
    width: usize,
) -> Vec<f32> {
    let mut out = vec![0.0; count * to_rows * width];
    for piece in 0..count {
        let from = &from[piece * from_rows * width..][..used * width];
        let to = &mut out[(piece * to_rows + 1) * width..][..used * width];
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.max(0.0));
    }
    out
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Stretches whose probability rises over the threshold and has not fallen 0.15 below it for as long as
/// a silence must last; widened, and joined where they then meet.
fn stretches(probabilities: &[f32], len: usize, options: &VadOptions) -> Vec<Range<usize>> {
    let samples = |seconds: f64| (seconds * SAMPLE_RATE as f64) as usize;
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut start = None;
    let mut quiet_since: Option<usize> = None;
    let mut close = |start: usize, end: usize| {
        if end.saturating_sub(start) >= samples(options.min_speech).max(1) {
            found.push(start..end);
        }
    };
    for (i, &p) in probabilities.iter().enumerate() {
        let at = i * PIECE;
        if p >= options.threshold {
            quiet_since = None;
            start.get_or_insert(at);
        } else if p < options.threshold - 0.15
            && let Some(begin) = start
        {
            let quiet = *quiet_since.get_or_insert(at);
            if at - quiet >= samples(options.min_silence) {
                close(begin, quiet);
                (start, quiet_since) = (None, None);
            }
        }
    }
    if let Some(begin) = start {
        close(begin, quiet_since.unwrap_or(len).min(len));
    }
    let pad = samples(options.pad);
    let mut out: Vec<Range<usize>> = Vec::new();
    for stretch in found {
        let stretch = stretch.start.saturating_sub(pad)..(stretch.end + pad).min(len);
        match out.last_mut() {
            Some(last) if stretch.start <= last.end => last.end = stretch.end.max(last.end),
            _ => out.push(stretch),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_silences_do_not_cut() {
        let mut probabilities = vec![0.0; 400];
        probabilities[50..100].fill(0.9);
        probabilities[110..150].fill(0.9);
        probabilities[300..310].fill(0.9);
        let options = VadOptions { min_silence: 1.0, pad: 0.1, ..VadOptions::default() };
        let found = stretches(&probabilities, 400 * PIECE, &options);
        assert_eq!(found, [50 * PIECE - 1600..150 * PIECE + 1600, 300 * PIECE - 1600..310 * PIECE + 1600]);
        let strict = VadOptions { min_speech: 1.0, ..options };
        assert_eq!(stretches(&probabilities, 400 * PIECE, &strict).len(), 1);
        assert_eq!(stretches(&[], 0, &options), []);
    }
}

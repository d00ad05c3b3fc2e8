//! The log-mel spectrum that Whisper hears (Radford et al., arXiv 2212.04356), as OpenAI computes it.
//!
//! Frames of 400 samples every 160, centred, the signal reflected at its ends; a periodic Hann window; the
//! power of 201 frequencies under Slaney's triangular filters; the logarithm, cut eight decades below the
//! loudest of all frames. Sixteen frames are transformed side by side, one in each lane.

use alloyforge_kernels::disjoint::{Disjoint, PerWorker};
use alloyforge_kernels::isa::{Isa, Kernel, LANES, Simd};
use alloyforge_kernels::pool::Pool;
use alloyforge_types::Result;

use crate::{HOP, SAMPLE_RATE};

/// Samples in a frame.
const WINDOW: usize = 400;

/// Complex numbers that a frame is transformed as.
const HALF: usize = WINDOW / 2;

/// Frequencies.
const BINS: usize = HALF + 1;

/// The radices of the transform; their product is [`HALF`].
const RADICES: [usize; 3] = [5, 5, 8];

type Lanes = [f32; LANES];

/// A triangular filter: its first frequency and its weights.
#[derive(Debug)]
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

/// The spectrum's tables.
#[derive(Debug)]
pub struct LogMel {
    filters: Vec<Filter>,
    window: Vec<f32>,
    /// Cosine and sine of `2 pi k / 400`.
    turns: Vec<(f32, f32)>,
}

impl LogMel {
    /// For `num_mels` filters from 0 to 8000 Hz.
    pub fn new(num_mels: usize) -> Self {
        let turn = |k: usize, n: usize| {
            let angle = 2.0 * std::f64::consts::PI * k as f64 / n as f64;
            (angle.cos() as f32, angle.sin() as f32)
        };
        let window = (0..WINDOW)
            .map(|i| (0.5 - 0.5 * (2.0 * std::f64::consts::PI * i as f64 / WINDOW as f64).cos()) as f32);
        Self {
            filters: filters(num_mels),
            window: window.collect(),
            turns: (0..WINDOW).map(|k| turn(k, WINDOW)).collect(),
        }
    }

    /// Filters.
    pub fn num_mels(&self) -> usize {
        self.filters.len()
    }

    /// The spectrum of `samples`, followed by silence up to `padded_len` samples, of shape
    /// `[num_frames, num_mels]`.
    ///
    /// # Errors
    /// Only where the pool fails.
    pub fn compute(
        &self,
        pool: &Pool,
        isa: Isa,
        samples: &[f32],
        padded_len: usize,
        num_frames: usize,
    ) -> Result<Vec<f32>> {
        let num_mels = self.num_mels();
        let mut out = vec![0.0; num_frames * num_mels];
        let groups = num_frames.div_ceil(LANES);
        let scratch =
            PerWorker::new(pool.threads(), || Ok::<_, alloyforge_types::Error>(Scratch::default()))?;
        let most = PerWorker::new(pool.threads(), || Ok::<_, alloyforge_types::Error>(f32::NEG_INFINITY))?;
        {
            let target = Disjoint::new(&mut out);
            pool.run(groups, |group, worker| {
                let first = group * LANES;
                let count = LANES.min(num_frames - first);
                // SAFETY: each group has frames of its own.
                let out = unsafe { target.part(first * num_mels..(first + count) * num_mels) };
                let scratch = &mut *scratch.get(worker);
                self.window_frames(samples, padded_len, first, count, scratch);
                isa.run(Transform { tables: self, scratch });
                let mut loudest = f32::NEG_INFINITY;
                for (mel, lanes) in scratch.mels.iter().enumerate() {
                    for (lane, energy) in lanes.iter().enumerate().take(count) {
                        let value = energy.max(1e-10).log10();
                        loudest = loudest.max(value);
                        out[lane * num_mels + mel] = value;
                    }
                }
                let mut most = most.get(worker);
                *most = most.max(loudest);
                Ok(())
            })?;
        }
        let most = (0..pool.threads()).map(|w| *most.get(w)).fold(f32::NEG_INFINITY, f32::max);
        for value in &mut out {
            *value = (value.max(most - 8.0) + 4.0) / 4.0;
        }
        Ok(out)
    }

    /// The samples of up to [`LANES`] frames, windowed, even ones as real and odd ones as imaginary parts.
    fn window_frames(
        &self,
        samples: &[f32],
        padded_len: usize,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
    ) {
        let at = |place: isize| {
            // reflected around the first and the last sample
            let place = place.unsigned_abs();
            let place = if place < padded_len { place } else { (2 * padded_len).saturating_sub(place + 2) };
            samples.get(place).copied().unwrap_or(0.0)
        };
        scratch.re.iter_mut().chain(&mut scratch.im).for_each(|lanes| *lanes = [0.0; LANES]);
        for lane in 0..count {
            let start = ((first + lane) * HOP) as isize - HALF as isize;
            let inside = usize::try_from(start).ok().and_then(|s| samples.get(s..s + WINDOW));
            for i in 0..HALF {
                let (even, odd) = match inside {
                    Some(frame) => (frame[2 * i], frame[2 * i + 1]),
                    None => (at(start + 2 * i as isize), at(start + 2 * i as isize + 1)),
                };
                scratch.re[i][lane] = even * self.window[2 * i];
                scratch.im[i][lane] = odd * self.window[2 * i + 1];
            }
        }
    }
}

/// What a thread works on.
#[derive(Debug)]
struct Scratch {
    re: Vec<Lanes>,
    im: Vec<Lanes>,
    re_next: Vec<Lanes>,
    im_next: Vec<Lanes>,
    power: Vec<Lanes>,
    mels: Vec<Lanes>,
}

impl Default for Scratch {
    fn default() -> Self {
        let zeros = |n: usize| vec![[0.0; LANES]; n];
        Self {
            re: zeros(HALF),
            im: zeros(HALF),
            re_next: zeros(HALF),
            im_next: zeros(HALF),
            power: zeros(BINS),
            mels: Vec::new(),
        }
    }
}

/// Frames to filtered power.
struct Transform<'a> {
    tables: &'a LogMel,
    scratch: &'a mut Scratch,
}

impl Kernel for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { tables, scratch } = self;
        let (mut n, mut stride) = (HALF, 1);
        for radix in RADICES {
            match radix {
                5 => stage::<S, 5>(s, tables, scratch, n, stride),
                _ => stage::<S, 8>(s, tables, scratch, n, stride),
            }
            std::mem::swap(&mut scratch.re, &mut scratch.re_next);
            std::mem::swap(&mut scratch.im, &mut scratch.im_next);
            n /= radix;
            stride *= radix;
        }
        power(s, tables, scratch);
        scratch.mels.resize(tables.filters.len(), [0.0; LANES]);
        for (mel, filter) in scratch.mels.iter_mut().zip(&tables.filters) {
            let mut sum = s.splat(0.0);
            for (weight, power) in filter.weights.iter().zip(&scratch.power[filter.first..]) {
                sum = s.mul_add(s.splat(*weight), s.load(power), sum);
            }
            s.store(sum, mel);
        }
    }
}

/// One stage of Stockham's transform (decimation in frequency), of radix `P` on `n` numbers that stand
/// `stride` apart.
#[inline(always)]
fn stage<S: Simd, const P: usize>(s: S, tables: &LogMel, scratch: &mut Scratch, n: usize, stride: usize) {
    let m = n / P;
    let Scratch { re, im, re_next, im_next, .. } = scratch;
    for q in 0..m {
        for r in 0..stride {
            let mut a = [(s.splat(0.0), s.splat(0.0)); P];
            for (j, a) in a.iter_mut().enumerate() {
                let at = r + stride * (q + m * j);
                *a = (s.load(&re[at]), s.load(&im[at]));
            }
            for k in 0..P {
                let (mut x, mut y) = a[0];
                for (j, (u, v)) in a.iter().enumerate().skip(1) {
                    // e^(-2 pi i j k / P)
                    let (c, sin) = tables.turns[(j * k * (WINDOW / P)) % WINDOW];
                    let (c, sin, minus) = (s.splat(c), s.splat(sin), s.splat(-sin));
                    x = s.mul_add(*u, c, s.mul_add(*v, sin, x));
                    y = s.mul_add(*v, c, s.mul_add(*u, minus, y));
                }
                // e^(-2 pi i q k / n)
                let (c, sin) = tables.turns[(q * k * (WINDOW / n)) % WINDOW];
                let (c, sin, minus) = (s.splat(c), s.splat(sin), s.splat(-sin));
                let at = r + stride * (P * q + k);
                s.store(s.mul_add(x, c, s.mul(y, sin)), &mut re_next[at]);
                s.store(s.mul_add(y, c, s.mul(x, minus)), &mut im_next[at]);
            }
        }
    }
}

/// From the transform of even and odd samples to the power of each frequency.
#[inline(always)]
fn power<S: Simd>(s: S, tables: &LogMel, scratch: &mut Scratch) {
    let Scratch { re, im, power, .. } = scratch;
    let (half, minus_one) = (s.splat(0.5), s.splat(-1.0));
    for (k, power) in power.iter_mut().enumerate() {
        let (a, b) = (k % HALF, (HALF - k) % HALF);
        let (ar, ai) = (s.load(&re[a]), s.load(&im[a]));
        let (br, bi) = (s.load(&re[b]), s.load(&im[b]));
        // the transforms of the even and of the odd samples
        let er = s.mul(half, s.add(ar, br));
        let ei = s.mul(half, s.mul_add(bi, minus_one, ai));
        let or = s.mul(half, s.add(ai, bi));
        let oi = s.mul(half, s.mul_add(ar, minus_one, br));
        let (c, sin) = tables.turns[k];
        let (c, sin) = (s.splat(c), s.splat(sin));
        let x = s.mul_add(or, c, s.mul_add(oi, sin, er));
        let y = s.mul_add(oi, c, s.mul_add(s.mul(or, sin), minus_one, ei));
        s.store(s.mul_add(x, x, s.mul(y, y)), power);
    }
}

/// Slaney's filters, each of area one (Slaney, Auditory Toolbox, 1998).
fn filters(num_mels: usize) -> Vec<Filter> {
    let step = 6.4f64.ln() / 27.0;
    let to_mel = |hz: f64| if hz < 1000.0 { 3.0 * hz / 200.0 } else { 15.0 + (hz / 1000.0).ln() / step };
    let to_hz = |mel: f64| if mel < 15.0 { 200.0 * mel / 3.0 } else { 1000.0 * ((mel - 15.0) * step).exp() };
    let top = to_mel(SAMPLE_RATE as f64 / 2.0);
    let edges: Vec<f64> = (0..num_mels + 2).map(|i| to_hz(top * i as f64 / (num_mels + 1) as f64)).collect();
    edges
        .windows(3)
        .map(|edge| {
            let weight = |bin: usize| {
                let hz = bin as f64 * SAMPLE_RATE as f64 / WINDOW as f64;
                let up = (hz - edge[0]) / (edge[1] - edge[0]);
                let down = (edge[2] - hz) / (edge[2] - edge[1]);
                up.min(down).max(0.0) * 2.0 / (edge[2] - edge[0])
            };
            let used: Vec<usize> = (0..BINS).filter(|&bin| weight(bin) > 0.0).collect();
            let (first, last) = (used.first().copied().unwrap_or(0), used.last().copied());
            let weights = last.map_or(Vec::new(), |last| (first..=last).map(|b| weight(b) as f32).collect());
            Filter { first, weights }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The spectrum by its definition, in double precision.
    fn naive(samples: &[f32], padded_len: usize, num_frames: usize, num_mels: usize) -> Vec<f64> {
        let filters = filters(num_mels);
        let pi = std::f64::consts::PI;
        let at = |i: isize| {
            let i = i.unsigned_abs();
            let i = if i < padded_len { i } else { 2 * padded_len - 2 - i };
            f64::from(samples.get(i).copied().unwrap_or(0.0))
        };
        let mut out = Vec::new();
        for t in 0..num_frames {
            let frame: Vec<f64> = (0..400)
                .map(|i| {
                    let window = 0.5 - 0.5 * (2.0 * pi * i as f64 / 400.0).cos();
                    at((t * 160 + i) as isize - 200) * window
                })
                .collect();
            let power: Vec<f64> = (0..201)
                .map(|k| {
                    let (mut re, mut im) = (0.0, 0.0);
                    for (i, x) in frame.iter().enumerate() {
                        let angle = 2.0 * pi * (k * i % 400) as f64 / 400.0;
                        re += x * angle.cos();
                        im -= x * angle.sin();
                    }
                    re * re + im * im
                })
                .collect();
            for filter in &filters {
                let sum: f64 =
                    filter.weights.iter().zip(&power[filter.first..]).map(|(w, p)| f64::from(*w) * p).sum();
                out.push(sum.max(1e-10).log10());
            }
        }
        let most = out.iter().copied().fold(f64::MIN, f64::max);
        out.iter().map(|v| (v.max(most - 8.0) + 4.0) / 4.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn spectra_are_the_definition(
            len in 0usize..4000,
            pad in 400usize..2000,
            pitch in 50.0f32..7000.0,
            noise in 0.0f32..0.3,
            num_mels in prop::sample::select(vec![40usize, 80, 128]),
        ) {
            let mut state = 1u32;
            let samples: Vec<f32> = (0..len)
                .map(|i| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let random = (state >> 8) as f32 / 8_388_608.0 - 1.0;
                    0.5 * (i as f32 * pitch / 16_000.0 * std::f32::consts::TAU).sin() + noise * random
                })
                .collect();
            let padded = len + pad;
            let frames = padded / 160;
            let want = naive(&samples, padded, frames, num_mels);
            let pool = Pool::new(2).expect("threads");
            for isa in Isa::available() {
                let got = LogMel::new(num_mels).compute(&pool, isa, &samples, padded, frames).expect("runs");
                for (g, w) in got.iter().zip(&want) {
                    prop_assert!((f64::from(*g) - w).abs() < 1e-4, "{}: {g} {w}", isa.name());
                }
            }
        }
    }
}

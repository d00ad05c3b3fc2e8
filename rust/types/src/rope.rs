//! Rotary position embeddings, resolved from a family's configuration.

/// Which coordinates of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// Coordinate `i` with `i + dim / 2`: what Hugging Face checkpoints are stored for.
    Half,
    /// Coordinate `2 i` with `2 i + 1`: what llama.cpp's conversion permutes Llama's q and k into.
    Interleaved,
}

/// How the frequencies are stretched for longer contexts.
///
/// Formulas: `modeling_rope_utils.py` of transformers, which follows the papers named below.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor` (Chen et al., arXiv 2306.15595).
    Linear {
        /// The stretch.
        factor: f32,
    },
    /// The base grows with the sequence once it is longer than `original_len` ("NTK-aware").
    Dynamic {
        /// The stretch.
        factor: f32,
        /// The context length before stretching, in tokens.
        original_len: usize,
    },
    /// YaRN: high frequencies stay, low ones are interpolated (Peng et al., arXiv 2309.00071).
    Yarn {
        /// The stretch.
        factor: f32,
        /// The context length before stretching, in tokens.
        original_len: usize,
        /// Turns over the original context above which a frequency stays.
        beta_fast: f32,
        /// Turns over the original context below which a frequency is interpolated.
        beta_slow: f32,
        /// Whether the ramp's ends are rounded to whole coordinates.
        truncate: bool,
        /// The factor on cos and sin.
        magnitude: f32,
    },
    /// Llama 3's piecewise smoothing between wave lengths.
    Llama3 {
        /// The stretch of the lowest frequencies.
        factor: f32,
        /// Frequencies with fewer turns than this over the original context are stretched.
        low_freq_factor: f32,
        /// Frequencies with more turns than this stay.
        high_freq_factor: f32,
        /// The context length before stretching, in tokens.
        original_len: usize,
    },
    /// One divisor a frequency, one set for short sequences and one for long (LongRoPE, arXiv
    /// 2402.13753).
    LongRope {
        /// Divisors up to `original_len` tokens.
        short: Vec<f32>,
        /// Divisors beyond.
        long: Vec<f32>,
        /// The context length before stretching, in tokens.
        original_len: usize,
        /// The factor on cos and sin.
        magnitude: f32,
    },
    /// One divisor a frequency, as a GGUF file's `rope_freqs.weight` has them.
    Divisors(Vec<f32>),
}

/// One rotary embedding. A model may have several (Gemma 3's local and global layers).
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// The base of the frequencies.
    pub theta: f32,
    /// Coordinates of a head that turn, from its first; even.
    pub dim: usize,
    /// Which coordinates turn together.
    pub layout: RopeLayout,
    /// How frequencies are stretched.
    pub scaling: RopeScaling,
    /// M-RoPE: how many frequencies take their position from time, height and width, in this order
    /// (Qwen2-VL, arXiv 2409.12191). `None`: one position for all.
    pub sections: Option<[usize; 3]>,
}

/// The frequencies that hold at one sequence length.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// `dim / 2` angular frequencies, in radians a position.
    pub inv_freq: Vec<f32>,
    /// The factor on cos and sin.
    pub magnitude: f32,
}

impl RopeSpec {
    /// The sequence length beyond which the frequencies change, where they do.
    pub fn changes_after(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::Dynamic { original_len, .. } | RopeScaling::LongRope { original_len, .. } => {
                Some(original_len)
            }
            _ => None,
        }
    }

    /// The frequencies for a sequence of `len` tokens, computed in f32 as the reference does.
    pub fn table(&self, len: usize) -> RopeTable {
        let plain = |theta: f32| -> Vec<f32> {
            (0..self.dim / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / self.dim as f32)).collect()
        };
        let base = plain(self.theta);
        let divided = |by: &[f32]| base.iter().zip(by).map(|(f, d)| f / d).collect();
        match &self.scaling {
            RopeScaling::None => RopeTable { inv_freq: base, magnitude: 1.0 },
            RopeScaling::Linear { factor } => {
                RopeTable { inv_freq: base.iter().map(|f| f / factor).collect(), magnitude: 1.0 }
            }
            RopeScaling::Dynamic { factor, original_len } => {
                let stretch = factor * len.max(*original_len) as f32 / *original_len as f32 - (factor - 1.0);
                let dim = self.dim as f32;
                RopeTable { inv_freq: plain(self.theta * stretch.powf(dim / (dim - 2.0))), magnitude: 1.0 }
            }
            RopeScaling::Yarn { factor, original_len, beta_fast, beta_slow, truncate, magnitude } => {
                // the coordinate whose frequency makes `turns` turns over the original context
                let coordinate = |turns: f32| {
                    self.dim as f32 * (*original_len as f32 / (turns * 2.0 * std::f32::consts::PI)).ln()
                        / (2.0 * self.theta.ln())
                };
                let (mut low, mut high) = (coordinate(*beta_fast), coordinate(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(self.dim as f32 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let inv_freq = base
                    .iter()
                    .enumerate()
                    .map(|(i, f)| {
                        let ramp = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
                        f / factor * ramp + f * (1.0 - ramp)
                    })
                    .collect();
                RopeTable { inv_freq, magnitude: *magnitude }
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_len } => {
                let old_len = *original_len as f32;
                let inv_freq = base
                    .iter()
                    .map(|f| {
                        let wave_len = 2.0 * std::f32::consts::PI / f;
                        if wave_len > old_len / low_freq_factor {
                            f / factor
                        } else if wave_len < old_len / high_freq_factor {
                            *f
                        } else {
                            let smooth =
                                (old_len / wave_len - low_freq_factor) / (high_freq_factor - low_freq_factor);
                            (1.0 - smooth) * f / factor + smooth * f
                        }
                    })
                    .collect();
                RopeTable { inv_freq, magnitude: 1.0 }
            }
            RopeScaling::LongRope { short, long, original_len, magnitude } => RopeTable {
                inv_freq: divided(if len > *original_len { long } else { short }),
                magnitude: *magnitude,
            },
            RopeScaling::Divisors(by) => RopeTable { inv_freq: divided(by), magnitude: 1.0 },
        }
    }
}
